/** Whether a leaf has the members of its type. Members that are not known are passed over: a later version may add some. */

import { isPlainObject } from "../action.js";
import { CanonError, type JsonValue } from "../canon.js";
import { parseStrict } from "../json.js";
import { LeafFault } from "./leaf.js";

/** Reads a leaf's bytes as its type; faults are worded as the gateway's own reader words them. */
export function leafOfItsType(text: string): Record<string, JsonValue> {
  let leaf: JsonValue;
  try {
    leaf = parseStrict(text);
  } catch (e) {
    throw e instanceof CanonError ? new LeafFault(`not canonical JSON: ${e.message}`) : e;
  }
  const fault = STAMP(leaf);
  if (fault !== undefined) throw new LeafFault(`not a leaf: ${fault}`);
  const members = leaf as Record<string, JsonValue>;
  const body = BODIES.get(members["type"] as string);
  if (body === undefined) throw new LeafFault(`unknown leaf type \`${String(members["type"])}\``);
  const bodyFault = body(leaf);
  if (bodyFault !== undefined) throw new LeafFault(`not a leaf: ${bodyFault}`);
  return members;
}

/** What is wrong with a value, or nothing. */
type Shape = (value: JsonValue) => string | undefined;
/** What may be left out may be `null` too, unless it has a default. */
type Members = Readonly<Record<string, Shape | { readonly optional: Shape; readonly nullable: boolean }>>;

const wrong = (value: JsonValue, expected: string) => `invalid type: ${kind(value)}, expected ${expected}`;
const string: Shape = (value) => (typeof value === "string" ? undefined : wrong(value, "a string"));
const boolean: Shape = (value) => (typeof value === "boolean" ? undefined : wrong(value, "a boolean"));
const digest: Shape = (value) => {
  if (typeof value !== "string") return string(value);
  return /^[0-9a-f]{64}$/.test(value) ? undefined : "expected 64 lowercase hex digits";
};

function integer(type: string, from: number, to: number): Shape {
  return (value) => {
    if (typeof value !== "number" || !Number.isInteger(value)) return wrong(value, type);
    return value >= from && value <= to ? undefined : `invalid value: integer \`${value}\`, expected ${type}`;
  };
}

function oneOf(...words: string[]): Shape {
  return (value) => {
    let word = value;
    if (isPlainObject(value)) {
      const [only, ...others] = Object.entries(value);
      if (only === undefined || others.length > 0) return "invalid value: map, expected map with a single key";
      if (only[1] !== null && words.includes(only[0])) return wrong(only[1] as JsonValue, "unit");
      word = only[0];
    }
    if (typeof word !== "string") return wrong(value, "string or map");
    return words.includes(word)
      ? undefined
      : `unknown variant \`${word}\`, expected one of ${words.map((w) => `\`${w}\``).join(", ")}`;
  };
}

function listOf(item: Shape): Shape {
  return (value) => (Array.isArray(value) ? first(value, item) : wrong(value, "a sequence"));
}

function mapOf(item: Shape): Shape {
  return (value) => (isPlainObject(value) ? first(Object.values(value) as JsonValue[], item) : wrong(value, "a map"));
}

function record(type: string, members: Members): Shape {
  const entries = Object.entries(members);
  const check = (shape: Members[string], value: JsonValue) =>
    typeof shape === "function" ? shape(value) : value === null && shape.nullable ? undefined : shape.optional(value);
  return (value) => {
    if (Array.isArray(value)) {
      for (const [at, [, shape]] of entries.entries()) {
        const item = value[at];
        if (item === undefined && typeof shape !== "function") continue;
        if (item === undefined) return `invalid length ${at}, expected struct ${type} with ${entries.length} elements`;
        const fault = check(shape, item);
        if (fault !== undefined) return fault;
      }
      return value.length > entries.length ? `invalid length ${value.length}, expected fewer elements in array` : undefined;
    }
    if (!isPlainObject(value)) return wrong(value, `struct ${type}`);
    for (const name of Object.keys(value).sort()) {
      const shape = Object.hasOwn(members, name) ? members[name] : undefined;
      const fault = shape === undefined ? undefined : check(shape, value[name] as JsonValue);
      if (fault !== undefined) return fault;
    }
    const missing = entries.find(([name, shape]) => typeof shape === "function" && !Object.hasOwn(value, name));
    return missing === undefined ? undefined : `missing field \`${missing[0]}\``;
  };
}

function first(values: readonly JsonValue[], shape: Shape): string | undefined {
  for (const value of values) {
    const fault = shape(value);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

function kind(value: JsonValue): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "sequence";
  switch (typeof value) {
    case "boolean":
      return `boolean \`${value}\``;
    case "string":
      return `string ${JSON.stringify(value)}`;
    case "number":
      return Number.isInteger(value) ? `integer \`${value}\`` : `floating point \`${value}\``;
    default:
      return "map";
  }
}

const optional = (shape: Shape) => ({ optional: shape, nullable: true });
const defaulted = (shape: Shape) => ({ optional: shape, nullable: false });
const u64 = integer("u64", 0, Number.MAX_SAFE_INTEGER);
const u32 = integer("u32", 0, 2 ** 32 - 1);
const u16 = integer("u16", 0, 2 ** 16 - 1);
const i64 = integer("i64", -Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
const door = oneOf("route", "connect", "sdk", "sql", "webhook", "fact");
const anything: Shape = () => undefined;

const STAMP = record("StampMembers", { node: string, seq: u64, ts: i64, prev_receipt_hash: digest, type: string });
const transfer = record("Transfer", { bytes: u64, frames: optional(u64), sha256: optional(digest) });
const outcome = record("OutcomeEntry", {
  credential: optional(record("CredentialUse", { id: string, version: string })),
  decision_id: string,
  ended_at: i64,
  intent_seq: u64,
  received: optional(transfer),
  sent: optional(transfer),
  started_at: i64,
  state: oneOf("completed", "failed", "aborted", "unknown"),
  tamper: optional(string),
  upstream_status: optional(u16),
});
const BODIES = new Map<string, Shape>([
  [
    "intent.v1",
    record("Intent", {
      action: string,
      action_commitment: digest,
      agent_binding: string,
      agent_id: optional(string),
      approval: optional(record("ApprovalUse", { approvers: listOf(string), id: string })),
      class: oneOf("read", "write", "delete", "admin", "mint", "persist", "money"),
      count: optional(u32),
      credential: optional(string),
      decision: oneOf("allow", "deny", "require_approval"),
      decision_id: string,
      door,
      dry_run: defaulted(boolean),
      index: optional(u32),
      mutates_state: boolean,
      parameters_commitment: digest,
      parent_run_id: optional(string),
      policies: defaulted(listOf(string)),
      reason: string,
      request_id: optional(string),
      resource: optional(string),
      risk: oneOf("low", "medium", "high", "critical"),
      route: string,
      run_id: optional(string),
      sending: defaulted(mapOf(string)),
      snapshot: digest,
      source_trust: oneOf(
        ...["trusted_internal_signed", "trusted_internal_unsigned", "semi_trusted_customer"],
        ...["untrusted_external", "malicious_suspected", "unknown"],
      ),
      tenant: string,
      tool: string,
      trace_id: optional(string),
      user: optional(string),
    }),
  ],
  ["outcome.v1", outcome],
  ["outcomes.v1", record("Entries", { entries: listOf(outcome) })],
  [
    "refused.v1",
    record("Refused", {
      agent_id: optional(string),
      count: u64,
      detail: optional(string),
      door,
      reason: string,
      route: optional(string),
      since: optional(i64),
      source: string,
      status: u16,
      tenant: optional(string),
      trace_id: optional(string),
    }),
  ],
  ["event.v1", record("Event", { at: i64, body: mapOf(anything), event_id: string, kind: string })],
  ["recovered.v1", record("Recovered", { bytes: u64, leaves: u64, torn: string })],
]);

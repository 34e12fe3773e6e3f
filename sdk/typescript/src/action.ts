/** The canonical action: five keys, long strings folded, hashed. */

import {
  CanonError,
  canonicalText,
  checkedNumber,
  deeper,
  loneSurrogate,
  reservedKey,
  setMember,
  sha256Hex,
  sortedKeys,
  type JsonObject,
  type JsonValue,
} from "./canon.js";

/** Strings of more UTF-8 bytes than this are replaced by their digest before the hash is taken. */
export const BULK_THRESHOLD = 64 * 1024;

/** A call as the catalog names it: `tool_call` of `POST /v1/authorize`, sent unfolded. */
export interface ToolCall {
  /** System, e.g. `github`. */
  readonly tool: string;
  /** Catalog name, e.g. `merge_pull_request`. */
  readonly action: string;
  /** What is acted on, e.g. `octo/payments#482`; `null` where there is no resource. */
  readonly resource: string | null;
  /** Whether the effect outlives the call. */
  readonly mutates_state: boolean;
  /** Everything else that the effect depends on. */
  readonly parameters: JsonObject;
}

/** A tool call is not one for another reason than its parameters. */
export class ToolCallError extends Error {
  override readonly name = "ToolCallError";
  readonly reason: "bad_name" | "bad_resource" | "bad_shape";

  constructor(reason: "bad_name" | "bad_resource" | "bad_shape", message: string) {
    super(message);
    this.reason = reason;
  }
}

/** The action hash of a call. Throws {@link CanonError} or {@link ToolCallError}. */
export function hashToolCall(call: ToolCall): string {
  return sha256Hex(canonicalToolCall(call));
}

/** The canonical text whose SHA-256 is the action hash. */
export function canonicalToolCall(call: ToolCall): string {
  const shape = Object.keys(call).sort().join() === "action,mutates_state,parameters,resource,tool";
  if (!shape || typeof call.mutates_state !== "boolean" || !isPlainObject(call.parameters)) {
    throw new ToolCallError("bad_shape", "a tool call has `tool`, `action`, `resource`, `mutates_state` and `parameters`");
  }
  return sealed({ ...call, parameters: snapshot(call.parameters, 1) as JsonObject });
}

/** As {@link canonicalToolCall}, for parameters that are a snapshot already. */
export function sealed(call: ToolCall): string {
  const parameters = foldedMembers(call.parameters);
  checkName("tool", call.tool);
  checkName("action", call.action);
  checkResource(call.resource);
  const { action, mutates_state, resource, tool } = call;
  return canonicalText({ action, mutates_state, parameters, resource, tool });
}

/**
 * A copy of a value that nobody else can change, read once. Members that are `undefined` are left out;
 * whatever JSON does not have (dates, class instances, functions, bigint…) is an error.
 */
export function snapshot(value: unknown, depth: number): JsonValue {
  switch (typeof value) {
    case "string":
      if (!value.isWellFormed()) throw loneSurrogate();
      return value;
    case "number":
      return checkedNumber(value);
    case "boolean":
      return value;
    case "object": {
      if (value === null) return null;
      if (Array.isArray(value)) {
        const inner = deeper(depth);
        return Array.from(value, (item) => snapshot(item, inner));
      }
      if (isPlainObject(value)) return snapshotMembers(value, deeper(depth));
      throw new CanonError("syntax", `${named(value)} has no canonical form; pass plain JSON values`);
    }
    default:
      throw new CanonError("syntax", `${typeof value} has no canonical form; pass plain JSON values`);
  }
}

/** An object literal, of whichever realm. */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** Throws for the keys that stand for folded content, so that nobody writes one by hand. */
export function checkKey(key: string): void {
  if (key === "$bulk" || key === "$stream") throw reservedKey(key);
}

function snapshotMembers(object: Record<string, unknown>, depth: number): JsonObject {
  const copy: JsonObject = {};
  for (const key of Object.keys(object)) {
    const member = object[key];
    if (member === undefined) continue;
    if (!key.isWellFormed()) throw loneSurrogate();
    setMember(copy, key, snapshot(member, depth));
  }
  sortedKeys(copy);
  return copy;
}

function folded(value: JsonValue): JsonValue {
  if (typeof value === "string") return foldedString(value);
  if (typeof value !== "object" || value === null) return value;
  return Array.isArray(value) ? value.map(folded) : foldedMembers(value);
}

function foldedMembers(object: JsonObject): JsonObject {
  const copy: JsonObject = {};
  for (const key of Object.keys(object)) {
    checkKey(key);
    setMember(copy, key, folded(object[key]!));
  }
  return copy;
}

function foldedString(text: string): JsonValue {
  // A UTF-16 unit is one to three bytes of UTF-8.
  if (text.length * 3 <= BULK_THRESHOLD) return text;
  const bytes = Buffer.byteLength(text);
  return bytes > BULK_THRESHOLD ? { $bulk: { bytes, sha256: sha256Hex(text) } } : text;
}

function checkName(field: string, name: unknown): void {
  if (typeof name !== "string" || !/^[A-Za-z0-9_.-]{1,128}$/.test(name)) {
    throw new ToolCallError("bad_name", `\`${field}\` must be 1 to 128 ASCII letters, digits, \`_\`, \`-\` or \`.\``);
  }
}

function checkResource(resource: unknown): void {
  if (resource === null) return;
  const good =
    typeof resource === "string" &&
    resource !== "" &&
    !/[\u0000-\u001f\u007f-\u009f]/.test(resource) &&
    (resource.length <= 2048 || Array.from(resource).length <= 2048);
  if (!good) throw new ToolCallError("bad_resource", "`resource` must be 1 to 2048 characters without controls");
  if (!resource.isWellFormed()) throw loneSurrogate();
}

function named(value: object): string {
  const name: unknown = value.constructor?.name;
  return typeof name === "string" && name !== "" ? `an instance of ${name}` : "an object that is no plain one";
}

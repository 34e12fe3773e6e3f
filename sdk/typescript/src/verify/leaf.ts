/** One leaf after the other: what the verifier demands of leaf bytes. */

import { createHash } from "node:crypto";
import { isUtf8 } from "node:buffer";

import { isPlainObject } from "../action.js";
import { CanonError, canonicalText, type JsonObject, type JsonValue } from "../canon.js";
import { parseStrict } from "../json.js";

/** Why a leaf does not hold. */
export class LeafFault extends Error {}

/** The members of a leaf that link it. Texts are raw: escapes stay, so equal text is equal value. */
export interface LeafView {
  readonly type: string;
  readonly node: string;
  readonly seq: number;
  readonly ts: number;
  readonly prev: string;
  readonly decisionId: string | undefined;
  readonly decision: string | undefined;
  readonly door: string | undefined;
  readonly dryRun: boolean;
  readonly intentSeq: number | undefined;
  readonly entries: JsonValue | undefined;
}

/** Checks that the bytes are canonical JSON with the members every leaf has. */
export function readLeaf(bytes: Buffer): LeafView {
  const leaf = canonicalObject(bytes);
  const seq = unsigned(leaf["seq"]);
  const ts = integer(leaf["ts"]);
  if (seq === undefined) throw new LeafFault("`seq` is missing or no number");
  if (ts === undefined) throw new LeafFault("`ts` is missing or no number");
  const type = raw(leaf["type"]) ?? "";
  if (!TYPES.has(type)) throw new LeafFault(`unknown type \`${type}\``);
  const node = raw(leaf["node"]) ?? "";
  const prev = raw(leaf["prev_receipt_hash"]) ?? "";
  if (node === "" || Buffer.byteLength(prev) !== 64) throw new LeafFault("`node` or `prev_receipt_hash` is missing");
  return {
    type,
    node,
    seq,
    ts,
    prev,
    decisionId: raw(leaf["decision_id"]),
    decision: raw(leaf["decision"]),
    door: raw(leaf["door"]),
    dryRun: leaf["dry_run"] === true,
    intentSeq: unsigned(leaf["intent_seq"]),
    entries: leaf["entries"],
  };
}

/** `intent_seq` and `decision_id` of one entry of an `outcomes.v1`. */
export function entryLink(entry: JsonValue): { seq: number; decisionId: string } | undefined {
  if (!isPlainObject(entry)) return undefined;
  const seq = unsigned(entry["intent_seq"]);
  const decisionId = raw(entry["decision_id"]);
  return seq === undefined || decisionId === undefined ? undefined : { seq, decisionId };
}

/** The end of a chain. */
export class Chain {
  node: string | null = null;
  nextSeq = 0;
  lastHash = "0".repeat(64);
  lastTs = 0;

  /** Whether a leaf is the next one. */
  check(view: LeafView): void {
    if (view.seq !== this.nextSeq) throw new LeafFault(`its \`seq\` is ${view.seq}, expected ${this.nextSeq}`);
    if (view.prev !== this.lastHash) {
      throw new LeafFault("its `prev_receipt_hash` is not the hash of the leaf before it");
    }
    if (this.node !== null && this.node !== view.node) {
      throw new LeafFault(`its \`node\` is \`${view.node}\`, expected \`${this.node}\``);
    }
  }

  /** Goes on behind a checked leaf. */
  advance(bytes: Buffer, view: LeafView): void {
    this.node ??= view.node;
    this.nextSeq += 1;
    this.lastHash = createHash("sha256").update(bytes).digest("hex");
    this.lastTs = view.ts;
  }
}

/** The object that bytes are the canonical bytes of. */
function canonicalObject(bytes: Buffer): JsonObject {
  if (!isUtf8(bytes)) throw new LeafFault("not UTF-8");
  if (bytes[0] !== 0x7b) throw new LeafFault("not a JSON object");
  const text = bytes.toString("utf8");
  const quick = quickly(text);
  if (quick !== undefined) return quick;
  try {
    const value = parseStrict(bytes);
    if (canonicalText(value) !== text) throw new LeafFault("not in canonical form");
    return value as JsonObject;
  } catch (e) {
    throw e instanceof CanonError ? new LeafFault(e.message) : e;
  }
}

/** The platform's own parser is fast and lenient; what prints as the very same text lost nothing in it. */
function quickly(text: string): JsonObject | undefined {
  try {
    const value = JSON.parse(text) as JsonObject;
    return canonicalText(value) === text ? value : undefined;
  } catch {
    return undefined;
  }
}

function raw(value: JsonValue | undefined): string | undefined {
  return typeof value === "string" ? JSON.stringify(value).slice(1, -1) : undefined;
}

function integer(value: JsonValue | undefined): number | undefined {
  return typeof value === "number" && Number.isInteger(value) ? value : undefined;
}

function unsigned(value: JsonValue | undefined): number | undefined {
  const n = integer(value);
  return n !== undefined && n >= 0 ? n : undefined;
}

const TYPES = new Set(["intent.v1", "outcome.v1", "outcomes.v1", "refused.v1", "event.v1", "recovered.v1"]);

/** An exported bundle: a few leaves, byte for byte, with what opens their commitments. */

import { createHash } from "node:crypto";

import { CanonError, canonicalText, sha256Hex, type JsonObject, type JsonValue } from "../canon.js";
import { parseStrict } from "../json.js";
import { SyntaxFault } from "../scanner.js";
import { LeafFault, readLeaf } from "./leaf.js";
import { Report } from "./report.js";
import { leafOfItsType } from "./shape.js";
import { TypeFault, listOf, optional, readTyped, record, text, textAs, unsigned64 } from "./typed.js";

/**
 * Verifies the bytes of a bundle file. It shows that the leaves are what the log said, as far as their
 * hashes are known from elsewhere, and what their commitments stand for.
 */
export function verifyBundle(bytes: Buffer): Report {
  let bundle: Bundle;
  try {
    bundle = readTyped(bytes, BUNDLE) as unknown as Bundle;
  } catch (e) {
    if (!(e instanceof SyntaxFault)) throw e;
    return Report.unreadable(`not a bundle: ${e.fault}`);
  }
  if (bundle.format !== FORMAT) return Report.unreadable(`unknown bundle format \`${bundle.format}\``);
  const report = new Report();
  report.node = bundle.node;
  let before: Entry | undefined;
  for (const entry of bundle.leaves) {
    try {
      check(entry, before, bundle.node, report);
    } catch (e) {
      if (!(e instanceof LeafFault)) throw e;
      report.verdict = { verdict: "tampered", seq: entry.seq, file: "bundle", why: e.message };
      return report;
    }
    before = entry;
  }
  return report;
}

function check(entry: Entry, before: Entry | undefined, node: string, report: Report): void {
  const bytes = Buffer.from(entry.leaf);
  const view = readLeaf(bytes);
  if (sha256Hex(bytes) !== entry.receipt_hash) throw new LeafFault("its bytes do not have its `receipt_hash`");
  if (BigInt(view.seq) !== entry.seq) throw new LeafFault(`its \`seq\` is ${view.seq}`);
  if (view.node !== node) throw new LeafFault(`its \`node\` is \`${view.node}\``);
  if (before !== undefined) {
    if (before.seq >= entry.seq) throw new LeafFault("it is not behind the leaf before it");
    if (before.seq + 1n < entry.seq) {
      report.find(`leaves ${before.seq} and ${entry.seq} are not neighbours: nothing here links them`);
    } else if (view.prev !== before.receipt_hash) {
      throw new LeafFault("its `prev_receipt_hash` is not the hash of the leaf before it");
    }
  }
  if (entry.opening !== undefined) {
    const leaf = leafOfItsType(entry.leaf);
    if (leaf["type"] !== "intent.v1") throw new LeafFault("it has an opening and no commitments");
    open(entry.opening, leaf);
    report.openings += 1;
  }
  report.count(view.type, view.ts);
  report.bytes += bytes.length;
  report.lastHash = entry.receipt_hash;
}

/** Whether an action is the one the leaf committed to, and the one it names. */
function open(opening: Opening, intent: JsonObject): void {
  if (sha256Hex(opening.action) !== opening.action_hash) {
    throw new LeafFault("the opened action does not have its `action_hash`");
  }
  const action = canonicalAction(opening.action);
  const parameters = action?.["parameters"];
  if (action === undefined || parameters === undefined) throw new LeafFault("the opened action is not canonical");
  if (commitment(opening.salt, opening.action) !== intent["action_commitment"]) {
    throw new LeafFault("`action_commitment` is not a commitment to the opened action");
  }
  if (commitment(opening.salt, canonicalText(parameters)) !== intent["parameters_commitment"]) {
    throw new LeafFault("`parameters_commitment` is not a commitment to the opened parameters");
  }
  const resource = typeof action["resource"] === "string" ? action["resource"] : null;
  const named =
    action["tool"] === intent["tool"] &&
    action["action"] === intent["action"] &&
    resource === (intent["resource"] ?? null) &&
    action["mutates_state"] === intent["mutates_state"];
  if (!named) throw new LeafFault("the leaf names another action than the opened one");
}

function canonicalAction(text: string): JsonObject | undefined {
  let value: JsonValue;
  try {
    value = parseStrict(text);
    if (canonicalText(value) !== text) return undefined;
  } catch (e) {
    if (e instanceof CanonError) return undefined;
    throw e;
  }
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : undefined;
}

/** `SHA-256("aegis-commitment-1\0" || salt || SHA-256(text))`. */
function commitment(salt: Buffer, text: string): string {
  const digest = createHash("sha256").update(text).digest();
  return createHash("sha256").update("aegis-commitment-1\0").update(salt).update(digest).digest("hex");
}

interface Bundle {
  readonly format: string;
  readonly node: string;
  readonly leaves: readonly Entry[];
}

interface Entry {
  readonly seq: bigint;
  readonly receipt_hash: string;
  /** The leaf's bytes; they are UTF-8. */
  readonly leaf: string;
  readonly opening: Opening | undefined;
}

/** What stands behind an intent's commitments. */
interface Opening {
  /** The canonical bytes of the action; they are UTF-8. */
  readonly action: string;
  readonly action_hash: string;
  readonly salt: Buffer;
}

const digest = textAs((hex) => {
  if (!/^[0-9a-f]{64}$/.test(hex)) throw new TypeFault("expected 64 lowercase hex digits");
  return hex;
});

const salt = textAs((hex) => {
  const bytes = Buffer.from(hex);
  if (bytes.length % 2 !== 0) throw new TypeFault("Odd number of digits");
  if (bytes.length !== 64) throw new TypeFault("Invalid string length");
  const at = bytes.findIndex((byte) => !/[0-9a-fA-F]/.test(String.fromCharCode(byte)));
  if (at >= 0) {
    const shown = String.fromCharCode(bytes[at]!);
    throw new TypeFault(`Invalid character '${shown}' at position ${at}`);
  }
  return Buffer.from(hex, "hex");
});

const OPENING = record("Opening", [
  { name: "action", read: text },
  { name: "action_hash", read: digest },
  { name: "salt", read: salt },
]);
const ENTRY = record("BundleLeaf", [
  { name: "seq", read: unsigned64 },
  { name: "receipt_hash", read: digest },
  { name: "leaf", read: text },
  { name: "opening", read: optional(OPENING), otherwise: () => undefined },
]);
const BUNDLE = record("Bundle", [
  { name: "format", read: text },
  { name: "node", read: text },
  { name: "leaves", read: listOf(ENTRY) },
]);
const FORMAT = "aegis-receipt-bundle-1";

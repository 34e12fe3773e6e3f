/** `aegis-jcs-1`: RFC 8785, refusing what RFC 8785 implementations disagree on. */

import { createHash } from "node:crypto";

/** Names the definition; answers that name another one do not count. */
export const CANON_VERSION = "aegis-jcs-1";
/** Nesting of arrays and objects; the outermost container is depth 1. */
export const MAX_DEPTH = 64;
/** Size of the canonical bytes, and of the text that a strict parse accepts. */
export const MAX_BYTES = 1024 * 1024;

/** What JSON can say. */
export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
/** A JSON object. `__proto__` is a key like any other. */
export type JsonObject = { [key: string]: JsonValue };

/** Why something has no canonical form. */
export type CanonReason =
  | "syntax"
  | "duplicate_key"
  | "number_range"
  | "ambiguous_order"
  | "too_deep"
  | "too_large"
  | "reserved_key";

/** A value or text has no canonical form. There is never a best effort. */
export class CanonError extends Error {
  override readonly name = "CanonError";
  readonly reason: CanonReason;

  constructor(reason: CanonReason, message: string) {
    super(message);
    this.reason = reason;
  }
}

/** The canonical text of a value. Its UTF-8 bytes are what is hashed. */
export function canonicalText(value: JsonValue): string {
  const text = written(value, 0);
  if (Buffer.byteLength(text) > MAX_BYTES) throw tooLarge(MAX_BYTES);
  return text;
}

/** The canonical bytes of a value. */
export function canonicalize(value: JsonValue): Uint8Array {
  return Buffer.from(canonicalText(value));
}

/** Lowercase hex SHA-256. */
export function sha256Hex(bytes: string | Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** The keys of an object in canonical order. */
export function sortedKeys(value: object): string[] {
  const keys = Object.keys(value).sort();
  for (let i = 1; i < keys.length; i++) {
    // Distinct keys: neighbours decide whether the order by code point is the same.
    if (codePointOrderDiffers(keys[i - 1]!, keys[i]!)) throw ambiguousOrder();
  }
  return keys;
}

/** One level deeper, or an error. */
export function deeper(depth: number): number {
  if (depth >= MAX_DEPTH) throw tooDeep();
  return depth + 1;
}

/** A number that every language tells from its neighbours. By value, not by spelling. */
export function checkedNumber(n: number): number {
  if (!(Math.abs(n) <= Number.MAX_SAFE_INTEGER)) throw numberRange();
  return n;
}

/** Sets a member, also one called `__proto__`. */
export function setMember<T>(object: Record<string, T>, key: string, value: T): void {
  if (key === "__proto__") {
    Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
  } else {
    object[key] = value;
  }
}

export const numberRange = () => new CanonError("number_range", "number beyond ±(2^53-1)");
export const tooDeep = () => new CanonError("too_deep", `nested deeper than ${MAX_DEPTH} levels`);
export const tooLarge = (bytes: number) => new CanonError("too_large", `larger than ${bytes} bytes`);
export const duplicateKey = (key: string) => new CanonError("duplicate_key", `duplicate key \`${key}\``);
export const reservedKey = (key: string) => new CanonError("reserved_key", `reserved key \`${key}\``);
export const loneSurrogate = () => new CanonError("syntax", "a string with a lone surrogate");
const ambiguousOrder = () =>
  new CanonError("ambiguous_order", "keys of one object sort differently by UTF-16 unit and by code point");

function written(value: JsonValue, depth: number): string {
  switch (typeof value) {
    case "string":
      return quoted(value);
    case "number":
      // ECMAScript's own spelling is the one RFC 8785 asks for; it prints -0 as 0.
      return String(checkedNumber(value));
    case "boolean":
      return value ? "true" : "false";
    case "object":
      if (value === null) return "null";
      return Array.isArray(value) ? writtenArray(value, depth) : writtenObject(value, depth);
    default:
      throw new CanonError("syntax", `a ${typeof value} has no canonical form`);
  }
}

function writtenArray(items: JsonValue[], depth: number): string {
  const inner = deeper(depth);
  let out = "[";
  for (let i = 0; i < items.length; i++) {
    if (i > 0) out += ",";
    out += written(items[i]!, inner);
    if (out.length > MAX_BYTES) throw tooLarge(MAX_BYTES);
  }
  return out + "]";
}

function writtenObject(object: JsonObject, depth: number): string {
  const inner = deeper(depth);
  let out = "{";
  for (const key of sortedKeys(object)) {
    if (out.length > 1) out += ",";
    out += `${quoted(key)}:${written(object[key]!, inner)}`;
    if (out.length > MAX_BYTES) throw tooLarge(MAX_BYTES);
  }
  return out + "}";
}

/** `JSON.stringify` escapes exactly as RFC 8785 says, lone surrogates apart. */
function quoted(text: string): string {
  if (!text.isWellFormed()) throw loneSurrogate();
  return JSON.stringify(text);
}

/** For `a < b` by UTF-16 unit: whether `a > b` by code point. */
function codePointOrderDiffers(a: string, b: string): boolean {
  const end = Math.min(a.length, b.length);
  for (let i = 0; i < end; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    // Units from U+E000 sort above surrogates, and their code points below.
    if (x !== y) return x >= 0xd800 && x <= 0xdfff && y > 0xdfff;
  }
  return false;
}

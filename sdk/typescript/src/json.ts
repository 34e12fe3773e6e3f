/** A strict parse: whatever has no canonical form is refused, and for the reason that every implementation gives. */

import {
  MAX_BYTES,
  checkedNumber,
  deeper,
  duplicateKey,
  setMember,
  sortedKeys,
  tooLarge,
  type JsonObject,
  type JsonValue,
} from "./canon.js";
import { MINUS, OPEN_LIST, OPEN_OBJECT, QUOTE, Scanner, isDigit } from "./scanner.js";

/** Parses one JSON value; a string is read as its UTF-8 bytes. */
export function parseStrict(text: string | Uint8Array, maxBytes = MAX_BYTES): JsonValue {
  const bytes = typeof text === "string" ? Buffer.from(text) : text;
  if (bytes.length > maxBytes) throw tooLarge(maxBytes);
  const scanner = new Scanner(bytes);
  const parsed = value(scanner, 0);
  scanner.end();
  return parsed;
}

function value(scanner: Scanner, depth: number): JsonValue {
  const byte = scanner.startOfValue();
  switch (byte) {
    case QUOTE:
      return scanner.string();
    case OPEN_OBJECT:
      return object(scanner, deeper(depth));
    case OPEN_LIST:
      return list(scanner, deeper(depth));
    case 0x74:
      scanner.word("true");
      return true;
    case 0x66:
      scanner.word("false");
      return false;
    case 0x6e:
      scanner.word("null");
      return null;
    default:
      if (byte !== MINUS && !isDigit(byte)) throw scanner.peekError("expected value");
      return checkedNumber(Number(scanner.number()));
  }
}

function list(scanner: Scanner, depth: number): JsonValue[] {
  scanner.at++;
  const items: JsonValue[] = [];
  while (scanner.moreItems(items.length === 0)) items.push(value(scanner, depth));
  scanner.at++;
  return items;
}

function object(scanner: Scanner, depth: number): JsonObject {
  scanner.at++;
  const members: JsonObject = {};
  let first = true;
  while (scanner.moreMembers(first)) {
    first = false;
    const key = scanner.string();
    if (Object.hasOwn(members, key)) throw duplicateKey(key);
    scanner.colon();
    setMember(members, key, value(scanner, depth));
  }
  // Refused here too, so that what parses always has canonical bytes.
  sortedKeys(members);
  scanner.at++;
  return members;
}


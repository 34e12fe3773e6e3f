/** Values of a JSON text read as declared types, without a value in between, and with numbers of any size. */

import { QUOTE, MINUS, OPEN_LIST, OPEN_OBJECT, Scanner, isDigit } from "../scanner.js";

/** A text is not of its type; the place is found further out. */
export class TypeFault extends Error {}

/** Reads one member or value. */
export type Read<T> = (scanner: Scanner) => T;

/** One member of a declared type. */
export interface Member {
  readonly name: string;
  readonly read: Read<unknown>;
  /** What stands for it where it is left out. */
  readonly otherwise?: () => unknown;
}

/** Reads a whole text; the fault's text names the place. */
export function readTyped<T>(bytes: Buffer, read: Read<T>): T {
  const scanner = new Scanner(bytes);
  const value = read(scanner);
  scanner.end();
  return value;
}

/** An object with exactly these members; as an array, they stand in order. */
export function record(type: string, members: readonly Member[]): Read<Record<string, unknown>> {
  const expected = `struct ${type}`;
  return (scanner) => {
    const open = scanner.startOfValue();
    if (open === OPEN_LIST) return placed(scanner, closeList, () => inOrder(scanner, expected, members));
    if (open === OPEN_OBJECT) return placed(scanner, closeObject, () => byName(scanner, members));
    throw wrongType(scanner, expected);
  };
}

/** An array of values of one type. */
export function listOf<T>(read: Read<T>): Read<T[]> {
  return (scanner) => {
    if (scanner.startOfValue() !== OPEN_LIST) throw wrongType(scanner, "a sequence");
    return placed(scanner, closeList, () => {
      scanner.at++;
      const items: T[] = [];
      while (scanner.moreItems(items.length === 0)) items.push(read(scanner));
      return items;
    });
  };
}

/** `null`, or a value. */
export function optional<T>(read: Read<T>): Read<T | undefined> {
  return (scanner) => {
    if (scanner.startOfValue() !== 0x6e) return read(scanner);
    scanner.word("null");
    return undefined;
  };
}

/** A string. */
export const text: Read<string> = (scanner) => {
  if (scanner.startOfValue() !== QUOTE) throw wrongType(scanner, "a string");
  return scanner.string();
};

/** A string that `check` turns into a value; it may throw a {@link TypeFault}. */
export function textAs<T>(check: (text: string) => T): Read<T> {
  return (scanner) => check(text(scanner));
}

/** An unsigned integer of 64 bits. */
export const unsigned64: Read<bigint> = (scanner) => {
  const byte = scanner.startOfValue();
  if (byte !== MINUS && !isDigit(byte)) throw wrongType(scanner, "u64");
  const number = scanner.number();
  const fault = numberFault(number);
  if (fault !== undefined) throw scanner.error(`${fault}, expected u64`);
  return BigInt(number);
};

function byName(scanner: Scanner, members: readonly Member[]): Record<string, unknown> {
  scanner.at++;
  const values: Record<string, unknown> = {};
  for (let first = true; scanner.moreMembers(first); first = false) {
    const name = scanner.string();
    const member = members.find((member) => member.name === name);
    if (member === undefined) {
      throw new TypeFault(`unknown field \`${name}\`, expected one of ${members.map((m) => `\`${m.name}\``).join(", ")}`);
    }
    if (Object.hasOwn(values, name)) throw new TypeFault(`duplicate field \`${name}\``);
    scanner.colon();
    values[name] = member.read(scanner);
  }
  for (const { name, otherwise } of members) {
    if (Object.hasOwn(values, name)) continue;
    if (otherwise === undefined) throw new TypeFault(`missing field \`${name}\``);
    values[name] = otherwise();
  }
  return values;
}

function inOrder(scanner: Scanner, expected: string, members: readonly Member[]): Record<string, unknown> {
  scanner.at++;
  const values: Record<string, unknown> = {};
  members.forEach(({ name, read, otherwise }, at) => {
    if (scanner.moreItems(at === 0)) values[name] = read(scanner);
    else if (otherwise !== undefined) values[name] = otherwise();
    else throw new TypeFault(`invalid length ${at}, expected ${expected} with ${members.length} elements`);
  });
  return values;
}

/** Reads what stands between brackets. A fault without a place gets that behind the closing bracket, if it is there. */
function placed<T>(scanner: Scanner, close: (scanner: Scanner) => void, read: () => T): T {
  let value: T;
  try {
    value = read();
  } catch (e) {
    if (!(e instanceof TypeFault)) throw e;
    try {
      close(scanner);
    } catch {
      // The first fault counts.
    }
    throw scanner.error(e.message);
  }
  close(scanner);
  return value;
}

function closeList(scanner: Scanner): void {
  const byte = scanner.skipBlanks();
  if (byte < 0) throw scanner.peekError("EOF while parsing a list");
  if (byte === 0x2c) {
    scanner.at++;
    throw scanner.peekError(scanner.skipBlanks() === 0x5d ? "trailing comma" : "trailing characters");
  }
  if (byte !== 0x5d) throw scanner.peekError("trailing characters");
  scanner.at++;
}

function closeObject(scanner: Scanner): void {
  const byte = scanner.skipBlanks();
  if (byte < 0) throw scanner.peekError("EOF while parsing an object");
  if (byte !== 0x7d) throw scanner.peekError(byte === 0x2c ? "trailing comma" : "trailing characters");
  scanner.at++;
}

function wrongType(scanner: Scanner, expected: string): Error {
  return scanner.error(`invalid type: ${found(scanner)}, expected ${expected}`);
}

/** Takes a value, as far as it has to be read to be named. */
function found(scanner: Scanner): string {
  const byte = scanner.startOfValue();
  switch (byte) {
    case QUOTE:
      return `string ${JSON.stringify(scanner.string())}`;
    case OPEN_LIST:
      return "sequence";
    case OPEN_OBJECT:
      return "map";
    case 0x74:
      scanner.word("true");
      return "boolean `true`";
    case 0x66:
      scanner.word("false");
      return "boolean `false`";
    case 0x6e:
      scanner.word("null");
      return "null";
    default: {
      if (byte !== MINUS && !isDigit(byte)) throw scanner.peekError("expected value");
      const number = scanner.number();
      return /^-?\d+$/.test(number) ? `integer \`${number}\`` : floatingPoint(number);
    }
  }
}

/** Why a number is no unsigned integer of 64 bits. */
function numberFault(number: string): string | undefined {
  if (!/^-?\d+$/.test(number) || number === "-0") return `invalid type: ${floatingPoint(number)}`;
  const value = BigInt(number);
  if (value >= 2n ** 64n || value < -(2n ** 63n)) return `invalid type: ${floatingPoint(number)}`;
  return value < 0n ? `invalid value: integer \`${number}\`` : undefined;
}

function floatingPoint(number: string): string {
  const value = Number(number);
  const shown = Object.is(value, -0) ? "-0" : String(value);
  return `floating point \`${/^-?\d+$/.test(shown) ? `${shown}.0` : shown}\``;
}

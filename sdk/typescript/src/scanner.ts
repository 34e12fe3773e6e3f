/** JSON text, byte by byte, with faults worded and placed as the gateway words and places them. */

import { isUtf8 } from "node:buffer";

import { CanonError } from "./canon.js";

/** A fault in the text, with its place. */
export class SyntaxFault extends CanonError {
  /** What and where, without a prefix. */
  readonly fault: string;

  constructor(what: string, line: number, column: number) {
    const fault = `${what} at line ${line} column ${column}`;
    super("syntax", `not valid JSON: ${fault}`);
    this.fault = fault;
  }
}

/** Reads tokens; what they make is up to the caller. */
export class Scanner {
  readonly bytes: Buffer;
  at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** A fault of what was read. */
  error(what: string): SyntaxFault {
    return this.fault(what, this.at);
  }

  /** A fault of what is read next. */
  peekError(what: string): SyntaxFault {
    return this.fault(what, Math.min(this.bytes.length, this.at + 1));
  }

  /** The next byte that is no blank, not taken; -1 at the end. */
  skipBlanks(): number {
    for (; this.at < this.bytes.length; this.at++) {
      const byte = this.bytes[this.at]!;
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x09 && byte !== 0x0d) return byte;
    }
    return -1;
  }

  /** The next byte that is no blank where a value has to start. */
  startOfValue(): number {
    const byte = this.skipBlanks();
    if (byte < 0) throw this.peekError("EOF while parsing a value");
    return byte;
  }

  /** Nothing but blanks may follow. */
  end(): void {
    if (this.skipBlanks() >= 0) throw this.peekError("trailing characters");
  }

  /** Takes `true`, `false` or `null`; the first letter is known. */
  word(word: string): void {
    this.at++;
    for (let i = 1; i < word.length; i++) {
      if (this.at >= this.bytes.length) throw this.error("EOF while parsing a value");
      if (this.bytes[this.at++] !== word.charCodeAt(i)) throw this.error("expected ident");
    }
  }

  /** Whether another item of an array follows; takes the comma before it. */
  moreItems(first: boolean): boolean {
    const byte = this.skipBlanks();
    if (byte < 0) throw this.peekError("EOF while parsing a list");
    if (byte === CLOSE_LIST) return false;
    if (first) return true;
    if (byte !== COMMA) throw this.peekError("expected `,` or `]`");
    this.at++;
    const next = this.skipBlanks();
    if (next < 0) throw this.peekError("EOF while parsing a value");
    if (next === CLOSE_LIST) throw this.peekError("trailing comma");
    return true;
  }

  /** Whether another member of an object follows; takes the comma before it. */
  moreMembers(first: boolean): boolean {
    const byte = this.skipBlanks();
    if (byte < 0) throw this.peekError("EOF while parsing an object");
    if (byte === CLOSE_OBJECT) return false;
    if (first) {
      if (byte !== QUOTE) throw this.peekError("key must be a string");
      return true;
    }
    if (byte !== COMMA) throw this.peekError("expected `,` or `}`");
    this.at++;
    const next = this.skipBlanks();
    if (next < 0) throw this.peekError("EOF while parsing a value");
    if (next === CLOSE_OBJECT) throw this.peekError("trailing comma");
    if (next !== QUOTE) throw this.peekError("key must be a string");
    return true;
  }

  /** Takes the colon behind a key. */
  colon(): void {
    const byte = this.skipBlanks();
    if (byte < 0) throw this.peekError("EOF while parsing an object");
    if (byte !== COLON) throw this.peekError("expected `:`");
    this.at++;
  }

  /** Takes a number and returns its text. */
  number(): string {
    const start = this.at;
    if (this.bytes[this.at] === MINUS) this.at++;
    if (this.at >= this.bytes.length) throw this.error("EOF while parsing a value");
    const lead = this.bytes[this.at++]!;
    if (!isDigit(lead)) throw this.error("invalid number");
    if (lead === ZERO && isDigit(this.bytes[this.at])) throw this.peekError("invalid number");
    this.digits();
    if (this.bytes[this.at] === POINT) {
      this.at++;
      if (this.digits() === 0) {
        throw this.peekError(this.at < this.bytes.length ? "invalid number" : "EOF while parsing a value");
      }
    }
    if (this.bytes[this.at] === 0x65 || this.bytes[this.at] === 0x45) {
      this.at++;
      if (this.bytes[this.at] === 0x2b || this.bytes[this.at] === MINUS) this.at++;
      if (this.at >= this.bytes.length) throw this.error("EOF while parsing a value");
      if (!isDigit(this.bytes[this.at++])) throw this.error("invalid number");
      this.digits();
    }
    return this.bytes.toString("latin1", start, this.at);
  }

  /** Takes a string; the opening quote is known. */
  string(): string {
    const pieces: string[] = [];
    const raw: [piece: number, start: number, end: number][] = [];
    let start = ++this.at;
    let plain = true;
    for (;;) {
      if (this.at >= this.bytes.length) throw this.error("EOF while parsing a string");
      const byte = this.bytes[this.at++]!;
      if (byte === QUOTE) break;
      if (byte === BACKSLASH) {
        raw.push([pieces.push("") - 1, start, this.at - 1]);
        pieces.push(this.escape());
        start = this.at;
      } else if (byte < 0x20) {
        throw this.error("control character (\\u0000-\\u001F) found while parsing a string");
      } else if (byte >= 0x80) {
        plain = false;
      }
    }
    const end = this.at - 1;
    if (pieces.length === 0) {
      return plain ? this.bytes.toString("latin1", start, end) : this.decoded([this.bytes.subarray(start, end)]);
    }
    raw.push([pieces.push("") - 1, start, end]);
    if (!plain) {
      const parts: Buffer[] = pieces.map((piece) => Buffer.from(piece));
      for (const [piece, from, to] of raw) parts[piece] = this.bytes.subarray(from, to);
      return this.decoded(parts);
    }
    for (const [piece, from, to] of raw) pieces[piece] = this.bytes.toString("latin1", from, to);
    return pieces.join("");
  }

  private digits(): number {
    const start = this.at;
    while (isDigit(this.bytes[this.at])) this.at++;
    return this.at - start;
  }

  /** UTF-8 is judged where the string ends; the place told is that of the first wrong byte, escapes not counted. */
  private decoded(parts: Buffer[]): string {
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    if (isUtf8(bytes)) return bytes.toString("utf8");
    throw this.fault("invalid unicode code point", this.at, bytes.length - validUpTo(bytes));
  }

  private escape(): string {
    if (this.at >= this.bytes.length) throw this.error("EOF while parsing a string");
    const letter = this.bytes[this.at++]!;
    if (letter === 0x75) return this.unicodeEscape();
    const short = SHORT.get(letter);
    if (short === undefined) throw this.error("invalid escape");
    return short;
  }

  private unicodeEscape(): string {
    const first = this.hex();
    if (first >= 0xdc00 && first <= 0xdfff) throw this.error("lone leading surrogate in hex escape");
    if (first < 0xd800 || first > 0xdbff) return String.fromCharCode(first);
    for (const expected of [BACKSLASH, 0x75]) {
      if (this.at >= this.bytes.length) throw this.error("EOF while parsing a string");
      if (this.bytes[this.at++] !== expected) throw this.error("unexpected end of hex escape");
    }
    const second = this.hex();
    if (second < 0xdc00 || second > 0xdfff) throw this.error("lone leading surrogate in hex escape");
    return String.fromCharCode(first, second);
  }

  private hex(): number {
    if (this.bytes.length - this.at < 4) {
      this.at = this.bytes.length;
      throw this.error("EOF while parsing a string");
    }
    const digits = this.bytes.toString("latin1", this.at, this.at + 4);
    this.at += 4;
    if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw this.error("invalid escape");
    return Number.parseInt(digits, 16);
  }

  private fault(what: string, at: number, before = 0): SyntaxFault {
    let line = 1;
    let start = 0;
    for (let i = 0; i < at; i++) {
      if (this.bytes[i] === 0x0a) {
        line++;
        start = i + 1;
      }
    }
    return new SyntaxFault(what, line, Math.max(0, at - start - before));
  }
}

export const QUOTE = 0x22;
export const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
export const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const COMMA = 0x2c;
const COLON = 0x3a;
export const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
const BACKSLASH = 0x5c;
const SHORT = new Map(
  Object.entries({ '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" }).map(
    ([letter, meaning]) => [letter.charCodeAt(0), meaning],
  ),
);

/** How many of the bytes are whole characters, from the start. */
function validUpTo(bytes: Buffer): number {
  let at = 0;
  for (;;) {
    const length = [1, 2, 3, 4].find((n) => at + n <= bytes.length && isUtf8(bytes.subarray(at, at + n)));
    if (length === undefined) return at;
    at += length;
  }
}

export function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}

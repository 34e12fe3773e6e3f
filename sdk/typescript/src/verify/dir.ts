/** A log directory, read once from front to back, in memory that does not grow with the log. */

import { closeSync, fstatSync, openSync, readSync, readdirSync } from "node:fs";
import { join } from "node:path";

import { sha256Hex } from "../canon.js";
import { osError } from "./errno.js";
import { Chain, LeafFault, readLeaf } from "./leaf.js";
import { Links } from "./links.js";
import { Ended, Report, tampered, unreadable } from "./report.js";

/** How far a verification is. */
export interface Progress {
  readonly leaves: number;
  readonly bytes: number;
  readonly totalBytes: number;
}

/** Verifies a log directory. The log may be in use: what is written meanwhile may or may not be covered. */
export function verifyDirectory(directory: string, progress: (at: Progress) => void = () => {}): Report {
  const run = new Run(directory, progress);
  try {
    run.verify();
  } catch (e) {
    if (!(e instanceof Ended)) throw e;
    run.report.verdict = e.verdict;
  }
  return run.finished();
}

interface Head {
  readonly nextSeq: bigint;
  readonly lastHash: string;
}

class Run {
  readonly report = new Report();
  readonly #chain = new Chain();
  readonly #links = new Links();
  readonly #directory: string;
  readonly #progress: (at: Progress) => void;
  #head: Head = { nextSeq: 0n, lastHash: "" };
  #totalBytes = 0;

  constructor(directory: string, progress: (at: Progress) => void) {
    this.#directory = directory;
    this.#progress = progress;
  }

  verify(): void {
    // The head comes first: in a log that is in use, the leaves are then never behind it.
    this.#head = this.#readHead();
    const firsts = this.#segments();
    for (const first of firsts) {
      this.#totalBytes += reading("a segment", () => withFile(this.#path(first), (file) => fstatSync(file).size));
    }
    firsts.forEach((first, at) => this.#segment(first, at + 1 === firsts.length));
    const { nextSeq } = this.#head;
    if (BigInt(this.#chain.nextSeq) < nextSeq) {
      const why = `the head file says that ${nextSeq} leaves are durable, and they are gone`;
      throw tampered(this.#chain.nextSeq, "head", why);
    }
    this.report.beyondHead = Number(BigInt(this.#chain.nextSeq) - nextSeq);
  }

  finished(): Report {
    const { report } = this;
    report.node = this.#chain.node;
    report.withoutOutcome = this.#links.withoutOutcome();
    report.lastHash = report.leaves > 0 ? this.#chain.lastHash : null;
    return report;
  }

  /** Without it nothing vouches for the last leaf. Read again where it is just being rewritten. */
  #readHead(): Head {
    return reading("the head file", () =>
      withFile(join(this.#directory, "head"), (file) => {
        for (let tries = HEAD_TRIES; tries > 0; tries--) {
          const line = Buffer.alloc(HEAD_BYTES + 1);
          const head = parseHead(line.subarray(0, readFully(file, line, 0)));
          if (head !== undefined) return head;
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, HEAD_PAUSE_MS);
        }
        throw unreadable("the head file is damaged");
      }),
    );
  }

  #segments(): bigint[] {
    const names = reading("the segments", () => readdirSync(join(this.#directory, "segments")));
    names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    const firsts: bigint[] = [];
    for (const name of names) {
      const first = /^\d{20}\.log$/.test(name) ? BigInt(name.slice(0, 20)) : MAX_U64 + 1n;
      if (first <= MAX_U64) firsts.push(first);
      else this.report.find(`\`segments/${name}\` is no segment`);
    }
    return firsts;
  }

  #path(first: bigint): string {
    return join(this.#directory, segmentName(first));
  }

  #segment(first: bigint, last: boolean): void {
    withFile(this.#path(first), (file) => this.#records(file, first, last), (e) => {
      throw unreadable(`cannot read a segment: ${osError(e)}`);
    });
  }

  #records(file: number, first: bigint, last: boolean): void {
    const name = segmentName(first);
    const length = reading("a segment", () => fstatSync(file).size);
    // Made in advance, for when the one before it is full.
    if (length === 0 && last) return;
    const expected = this.#chain.nextSeq;
    if (first !== BigInt(expected) || length === 0) {
      throw tampered(expected, name, `it starts at leaf ${first} with ${length} bytes, expected leaf ${expected}`);
    }
    this.report.segments += 1;
    const before = this.report.bytes;
    const records = new Records(file, length);
    for (;;) {
      const { at } = records;
      this.report.bytes = before + at;
      const seq = this.#chain.nextSeq;
      const torn = last && BigInt(seq) >= this.#head.nextSeq;
      const bytes = reading("a segment", () => records.next());
      if (bytes === "end") return;
      // A hole that a power cut left reads as zeros, which no leaf has.
      if (torn && (bytes === "torn" || bytes.includes(0))) {
        const what = `${length - at} bytes behind the last leaf are torn`;
        this.report.find(`${what} (leaf ${seq} was never acknowledged): a crash, or a write under way`);
        return;
      }
      if (bytes === "torn") throw tampered(seq, name, "no whole record");
      try {
        this.#leaf(bytes);
      } catch (e) {
        throw e instanceof LeafFault ? tampered(seq, name, e.message) : e;
      }
      if (this.report.leaves % TELL_EVERY === 0) {
        this.#progress({ leaves: this.report.leaves, bytes: this.report.bytes, totalBytes: this.#totalBytes });
      }
    }
  }

  #leaf(bytes: Buffer): void {
    const chain = this.#chain;
    const view = readLeaf(bytes);
    chain.check(view);
    const odd = this.#links.follow(view);
    if (odd !== undefined) this.report.find(odd);
    const back = chain.lastTs - view.ts;
    if (chain.nextSeq > 0 && back > 0) {
      if (back <= CLOCK_STEP_MS) {
        throw new LeafFault(`its time is ${back} ms before that of the leaf before it, which the log does not write`);
      }
      this.report.find(`the clock was set back by ${back} ms at leaf ${view.seq}`);
    }
    chain.advance(bytes, view);
    if (BigInt(chain.nextSeq) === this.#head.nextSeq && chain.lastHash !== this.#head.lastHash) {
      this.report.types.set(view.type, (this.report.types.get(view.type) ?? 0) + 1);
      throw new LeafFault("it does not have the hash in the head file");
    }
    this.report.count(view.type, view.ts);
  }
}

/** Reads records one after the other in constant memory. */
class Records {
  /** Offset of the next record. */
  at = 0;
  readonly #file: number;
  readonly #limit: number;
  #chunk = Buffer.alloc(0);
  #chunkAt = 0;

  constructor(file: number, limit: number) {
    this.#file = file;
    this.#limit = limit;
  }

  /** The next leaf's bytes; `torn` where bytes are no whole record. */
  next(): Buffer | "end" | "torn" {
    const left = this.#limit - this.at;
    if (left === 0) return "end";
    const prefix = left < 2 ? undefined : this.#window(2);
    if (prefix === undefined) return "torn";
    const whole = 2 + prefix.readUInt16BE(0);
    if (whole === 2 || left < whole) return "torn";
    const record = this.#window(whole);
    if (record === undefined) return "torn";
    this.at += whole;
    return record.subarray(2);
  }

  /** `undefined` when the file is shorter than it was when the limit was taken. */
  #window(need: number): Buffer | undefined {
    let start = this.at - this.#chunkAt;
    if (this.#chunk.length - start < need) {
      // Once per chunk; the few bytes of a split record are read again.
      const chunk = Buffer.allocUnsafe(Math.max(need, Math.min(CHUNK, this.#limit - this.at)));
      this.#chunk = chunk.subarray(0, readFully(this.#file, chunk, this.at));
      this.#chunkAt = this.at;
      start = 0;
      if (this.#chunk.length < need) return undefined;
    }
    return this.#chunk.subarray(start, start + need);
  }
}

function parseHead(line: Buffer): Head | undefined {
  const parts = /^(aegis-receipts-head-1 (\d{20}) ([0-9a-f]{64})) ([0-9a-f]{16})\n$/.exec(line.toString("latin1"));
  if (parts === null) return undefined;
  const [, text, seq, lastHash, check] = parts;
  const nextSeq = BigInt(seq!);
  if (nextSeq > MAX_U64 || sha256Hex(text!).slice(0, 16) !== check) return undefined;
  return { nextSeq, lastHash: lastHash! };
}

function segmentName(first: bigint): string {
  return `segments/${first.toString().padStart(20, "0")}.log`;
}

function reading<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (e) {
    throw e instanceof Ended ? e : unreadable(`cannot read ${what}: ${osError(e)}`);
  }
}

function withFile<T>(path: string, use: (file: number) => T, notOpened?: (e: unknown) => never): T {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (e) {
    if (notOpened !== undefined) return notOpened(e);
    throw e;
  }
  try {
    return use(file);
  } finally {
    closeSync(file);
  }
}

/** Reads until the buffer is full or the file ends. */
function readFully(file: number, into: Buffer, position: number): number {
  let filled = 0;
  while (filled < into.length) {
    const got = readSync(file, into, filled, into.length - filled, position + filled);
    if (got === 0) break;
    filled += got;
  }
  return filled;
}

const MAX_U64 = 2n ** 64n - 1n;
const HEAD_BYTES = 125;
const HEAD_TRIES = 5;
const HEAD_PAUSE_MS = 5;
const CLOCK_STEP_MS = 5000;
const CHUNK = 1024 * 1024;
const TELL_EVERY = 16_384;

/** What verification found, for people and for programs; the same as the Rust program prints. */

/** What a verification comes to. */
export type Verdict =
  | { readonly verdict: "verified" }
  /** Something was changed, removed or added: the first leaf that does not hold, in which file, and why. */
  | { readonly verdict: "tampered"; readonly seq: bigint; readonly file: string; readonly why: string }
  /** It cannot be told. */
  | { readonly verdict: "unreadable"; readonly why: string };

/** Thrown where a verification ends before its end. */
export class Ended extends Error {
  readonly verdict: Verdict;

  constructor(verdict: Verdict) {
    super(verdict.verdict);
    this.verdict = verdict;
  }
}

/** The result of a verification. */
export class Report {
  verdict: Verdict = { verdict: "verified" };
  /** Node of the log; `null` where there is no leaf. */
  node: string | null = null;
  /** Leaves that hold. */
  leaves = 0;
  /** Segment files read. */
  segments = 0;
  /** Bytes read. */
  bytes = 0;
  /** Time of the first leaf, milliseconds since the epoch. */
  firstTs: number | null = null;
  lastTs: number | null = null;
  /** Hash of the last leaf that holds: keep it, and a later verification can be held against it. */
  lastHash: string | null = null;
  /** Leaves by type. */
  readonly types = new Map<string, number>();
  /** Allowed intents of the gateway's own doors without an outcome: their outcome is unknown. */
  withoutOutcome = 0;
  /** Leaves behind the head file's: written, not known to be synced. */
  beyondHead = 0;
  /** Openings in a bundle that open their commitments. */
  openings = 0;
  /** What is odd and no tampering, at most 100 of them. */
  readonly findings: string[] = [];
  /** How many findings there were beyond those. */
  moreFindings = 0;

  static unreadable(why: string): Report {
    const report = new Report();
    report.verdict = { verdict: "unreadable", why };
    return report;
  }

  /** 0 verified, 1 tampered, 2 unreadable. */
  get exitCode(): 0 | 1 | 2 {
    return this.verdict.verdict === "verified" ? 0 : this.verdict.verdict === "tampered" ? 1 : 2;
  }

  /** Counts a leaf that holds. */
  count(type: string, ts: number): void {
    this.types.set(type, (this.types.get(type) ?? 0) + 1);
    this.leaves += 1;
    this.firstTs ??= ts;
    this.lastTs = ts;
  }

  find(finding: string): void {
    if (this.findings.length < MAX_FINDINGS) this.findings.push(finding);
    else this.moreFindings += 1;
  }

  /** The report as pretty JSON. */
  toJson(): string {
    const members: [string, string][] = [["verdict", JSON.stringify(this.verdict.verdict)]];
    if (this.verdict.verdict === "tampered") {
      // As it is: a bundle may name a number that no double holds.
      members.push(["seq", this.verdict.seq.toString()], ["file", JSON.stringify(this.verdict.file)]);
    }
    if (this.verdict.verdict !== "verified") members.push(["why", JSON.stringify(this.verdict.why)]);
    const rest = {
      node: this.node,
      leaves: this.leaves,
      segments: this.segments,
      bytes: this.bytes,
      first_ts: this.firstTs,
      last_ts: this.lastTs,
      last_hash: this.lastHash,
      types: Object.fromEntries(this.#sortedTypes()),
      without_outcome: this.withoutOutcome,
      beyond_head: this.beyondHead,
      openings: this.openings,
      findings: this.findings,
      more_findings: this.moreFindings,
    };
    for (const [name, value] of Object.entries(rest)) {
      members.push([name, JSON.stringify(value, null, 2).replaceAll("\n", "\n  ")]);
    }
    return `{\n${members.map(([name, value]) => `  "${name}": ${value}`).join(",\n")}\n}`;
  }

  /** The report in words. */
  toString(): string {
    const { verdict } = this;
    if (verdict.verdict === "unreadable") return `unreadable: ${verdict.why}\n`;
    const lines: string[] = [];
    if (verdict.verdict === "verified") {
      lines.push(`verified: ${this.leaves} leaves of node \`${this.node ?? "-"}\`, ${this.bytes} bytes`);
    } else {
      lines.push(`TAMPERED at leaf ${verdict.seq} (${verdict.file}): ${verdict.why}`, `  ${this.leaves} leaves before it hold`);
    }
    if (this.leaves > 0) {
      lines.push(`  from ${instant(this.firstTs)} to ${instant(this.lastTs)}`);
      lines.push(`  ${this.#sortedTypes().map(([name, count]) => `${name} ${count}`).join(", ")}`);
    }
    if (this.lastHash !== null) lines.push(`  last receipt hash ${this.lastHash}`);
    const counts: [number, string][] = [
      [this.withoutOutcome, "allowed intents without an outcome (outcome unknown)"],
      [this.beyondHead, "leaves behind the last sync, which the head file does not cover"],
      [this.openings, "commitments opened"],
    ];
    for (const [count, what] of counts) if (count > 0) lines.push(`  ${count} ${what}`);
    for (const finding of this.findings) lines.push(`  note: ${finding}`);
    if (this.moreFindings > 0) lines.push(`  note: and ${this.moreFindings} more`);
    return lines.join("\n") + "\n";
  }

  #sortedTypes(): [string, number][] {
    return [...this.types].sort(([a], [b]) => (a < b ? -1 : 1));
  }
}

/** A tampering, thrown. */
export function tampered(seq: bigint | number, file: string, why: string): Ended {
  return new Ended({ verdict: "tampered", seq: BigInt(seq), file, why });
}

/** Something that cannot be read, thrown. */
export function unreadable(why: string): Ended {
  return new Ended({ verdict: "unreadable", why });
}

/** RFC 3339 with as many digits of a second as there are. */
function instant(ts: number | null): string {
  const date = ts === null ? undefined : new Date(ts);
  if (date === undefined || Number.isNaN(date.getTime())) return "-";
  const year = date.getUTCFullYear();
  if (year < 0 || year > 9999) return "-";
  return date.toISOString().replace(/\.?0*Z$/, "Z");
}

const MAX_FINDINGS = 100;

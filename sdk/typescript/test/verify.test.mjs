import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

import { canonicalText, sha256Hex } from "../dist/index.js";
import { verifyBundle, verifyReceipts } from "../dist/verify/index.js";

const BIN = fileURLToPath(new URL("../dist/bin/aegis-verify-receipts.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "aegis-verify-"));
after(() => rmSync(folder, { recursive: true }));

const ACTION = canonicalText({ tool: "github", action: "create_issue", resource: "octo/hello", mutates_state: true, parameters: { title: "é" } });
const SALT = "5a".repeat(32);

const commitment = (text) =>
  createHash("sha256")
    .update("aegis-commitment-1\0")
    .update(Buffer.from(SALT, "hex"))
    .update(createHash("sha256").update(text).digest())
    .digest("hex");

const INTENT = {
  type: "intent.v1", tool: "github", action: "create_issue", resource: "octo/hello", mutates_state: true,
  action_commitment: commitment(ACTION), parameters_commitment: commitment(canonicalText({ title: "é" })),
  agent_binding: "bearer", class: "write", risk: "medium", decision: "allow", decision_id: "dec_1", door: "route",
  reason: "allowed", route: "github", snapshot: "0".repeat(64), source_trust: "unknown", tenant: "t",
};
const OUTCOME = { type: "outcome.v1", decision_id: "dec_1", intent_seq: 0, state: "completed", started_at: 1, ended_at: 2 };
const EVENT = { type: "event.v1", at: 1, body: { x: 1.5 }, event_id: "evt_1", kind: "agent_frozen" };

/** Leaves chained from bodies. */
function chained(bodies) {
  let prev = "0".repeat(64);
  return bodies.map((body, seq) => {
    const leaf = canonicalText({ node: "n1", seq, ts: 1_700_000_000_000 + seq * 10, prev_receipt_hash: prev, ...body });
    prev = sha256Hex(leaf);
    return leaf;
  });
}

function record(leaf) {
  const bytes = Buffer.from(leaf);
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes]);
}

function headLine(count, hash) {
  const text = `aegis-receipts-head-1 ${String(count).padStart(20, "0")} ${hash}`;
  return `${text} ${sha256Hex(text).slice(0, 16)}\n`;
}

let made = 0;
/** A log directory; `more` is what stands behind the last record. */
function log(leaves, { more = "", head, first = 0 } = {}) {
  const directory = join(folder, `log-${(made += 1)}`);
  mkdirSync(join(directory, "segments"), { recursive: true });
  writeFileSync(join(directory, "segments", `${String(first).padStart(20, "0")}.log`), Buffer.concat([...leaves.map(record), Buffer.from(more)]));
  writeFileSync(join(directory, "head"), head ?? headLine(leaves.length, sha256Hex(leaves.at(-1))));
  return directory;
}

const GOOD = chained([INTENT, OUTCOME, EVENT, { ...INTENT, decision_id: "dec_2" }]);

test("a log that holds is verified, with everything that is known of it", () => {
  const report = JSON.parse(verifyReceipts(log(GOOD)).toJson());
  assert.deepEqual(report, {
    verdict: "verified", node: "n1", leaves: 4, segments: 1, bytes: GOOD.reduce((sum, leaf) => sum + 2 + Buffer.byteLength(leaf), 0),
    first_ts: 1_700_000_000_000, last_ts: 1_700_000_000_030, last_hash: sha256Hex(GOOD[3]),
    types: { "event.v1": 1, "intent.v1": 2, "outcome.v1": 1 }, without_outcome: 1, beyond_head: 0, openings: 0,
    findings: [], more_findings: 0,
  });
});

for (const [name, directory, seq, why] of [
  ["a changed byte", () => log(GOOD.with(1, GOOD[1].replace("completed", "failed"))), 2n, /prev_receipt_hash/],
  ["a leaf less", () => log(GOOD.toSpliced(1, 1), { head: headLine(4, sha256Hex(GOOD[3])) }), 1n, /its `seq` is 2, expected 1/],
  ["a tail less", () => log(GOOD.slice(0, 2), { head: headLine(4, sha256Hex(GOOD[3])) }), 2n, /4 leaves are durable/],
  ["another last leaf", () => log(chained([INTENT, OUTCOME, EVENT, INTENT]), { head: headLine(4, sha256Hex(GOOD[3])) }), 3n, /head file/],
  ["an outcome of another decision", () => log(chained([INTENT, { ...OUTCOME, decision_id: "dec_x" }])), 1n, /decision_id/],
  ["an outcome of a later leaf", () => log(chained([INTENT, { ...OUTCOME, intent_seq: 1 }])), 1n, /not before it/],
  ["another node", () => log(chained([INTENT, { ...EVENT, node: "n2" }])), 1n, /its `node`/],
  ["an unknown type", () => log(chained([{ ...EVENT, type: "intent.v9" }])), 0n, /unknown type/],
  ["a time that goes back a little", () => log(chained([{ ...EVENT, ts: 5000 }, { ...EVENT, ts: 1000 }])), 1n, /4000 ms before/],
  ["a leaf with blanks", () => log([GOOD[0].replace(",", ", ")]), 0n, /not in canonical form/],
  ["a leaf that says a thing twice", () => log([`${GOOD[0].slice(0, -1)},"type":"intent.v1"}`]), 0n, /duplicate key/],
  ["a record torn before the head", () => log(GOOD.slice(0, 3), { more: "\0P{half", head: headLine(4, sha256Hex(GOOD[3])) }), 3n, /no whole record/],
  ["a segment of another number", () => log(GOOD, { first: 7 }), 0n, /starts at leaf 7/],
]) {
  test(`${name} is tampering`, () => {
    const { verdict, exitCode } = verifyReceipts(directory());
    assert.equal(verdict.verdict, "tampered");
    assert.equal(verdict.seq, seq);
    assert.match(verdict.why, why);
    assert.equal(exitCode, 1);
  });
}

test("what a crash leaves behind the head is a note", () => {
  const report = verifyReceipts(log(GOOD, { more: "\0P{half" }));
  assert.equal(report.exitCode, 0);
  assert.match(report.findings[0], /^7 bytes behind the last leaf are torn/);
  assert.equal(verifyReceipts(log(GOOD, { head: headLine(2, sha256Hex(GOOD[1])) })).beyondHead, 2);
});

test("without a head, or with a damaged one, nothing can be told", () => {
  const directory = log(GOOD, { head: headLine(4, "0".repeat(64)).replace("1", "2") });
  assert.deepEqual(verifyReceipts(directory).verdict, { verdict: "unreadable", why: "the head file is damaged" });
  rmSync(join(directory, "head"));
  const { verdict, exitCode } = verifyReceipts(directory);
  assert.equal(verdict.why, "cannot read the head file: No such file or directory (os error 2)");
  assert.equal(exitCode, 2);
});

const OPENING = { action: ACTION, action_hash: sha256Hex(ACTION), salt: SALT };
const bundle = (change = (x) => x) =>
  Buffer.from(JSON.stringify(change({
    format: "aegis-receipt-bundle-1",
    node: "n1",
    leaves: GOOD.map((leaf, seq) => ({ seq, receipt_hash: sha256Hex(leaf), leaf, ...(seq === 0 ? { opening: { ...OPENING } } : {}) })),
  })));

test("a bundle that holds is verified, its openings opened", () => {
  const report = verifyBundle(bundle());
  assert.deepEqual([report.verdict.verdict, report.openings, report.leaves], ["verified", 1, 4]);
});

for (const [name, change, verdict, why] of [
  ["another action", (b) => { b.leaves[0].opening.action = ACTION.replace("é", "e"); return b; }, "tampered", /action_hash/],
  ["another salt", (b) => { b.leaves[0].opening.salt = "5b".repeat(32); return b; }, "tampered", /action_commitment/],
  ["a changed leaf", (b) => { b.leaves[1].leaf = b.leaves[1].leaf.replace("n1", "n2"); return b; }, "tampered", /receipt_hash/],
  ["an opening of nothing", (b) => { b.leaves[1].opening = OPENING; return b; }, "tampered", /no commitments/],
  ["a leaf made up", (b) => { b.leaves[0].leaf = "{}"; b.leaves[0].receipt_hash = sha256Hex("{}"); return b; }, "tampered", /`seq` is missing/],
  ["another format", (b) => ({ ...b, format: "aegis-receipt-bundle-2" }), "unreadable", /unknown bundle format/],
  ["an unknown member", (b) => ({ ...b, more: 1 }), "unreadable", /unknown field `more`, expected one of `format`, `node`, `leaves` at line 1 column/],
  ["a missing member", ({ node: _, ...rest }) => rest, "unreadable", /missing field `node`/],
  ["a list", () => [], "unreadable", /invalid length 0, expected struct Bundle with 3 elements at line 1 column 2/],
]) {
  test(`a bundle with ${name} is ${verdict}`, () => {
    const report = verifyBundle(bundle(change));
    assert.equal(report.verdict.verdict, verdict);
    assert.match(report.verdict.why, why);
  });
}

test("a number that no double holds is told as it is", () => {
  const text = bundle().toString().replace('"seq":0', '"seq":9007199254740993');
  assert.match(verifyBundle(Buffer.from(text)).toJson(), /"seq": 9007199254740993,/);
});

test("the program tells by its exit status, in words or JSON", () => {
  const run = (...args) => spawnSync(process.execPath, [BIN, ...args], { encoding: "utf8" });
  const good = log(GOOD);
  assert.equal(run(good).status, 0);
  assert.match(run(good).stdout, /^verified: 4 leaves of node `n1`, \d+ bytes\n {2}from 2023-11-14T22:13:20Z to 2023-11-14T22:13:20.03Z\n/);
  assert.equal(JSON.parse(run("--json", good).stdout).verdict, "verified");
  assert.equal(run(log(GOOD.with(1, GOOD[1].replace("completed", "failed")))).status, 1);
  assert.equal(run(join(folder, "nothing")).status, 2);
  assert.equal(run().status, 2);
  assert.equal(run("--nonsense", good).status, 2);
  assert.match(execFileSync(process.execPath, [BIN, "--version"], { encoding: "utf8" }), /^aegis-verify-receipts \d/);
  assert.ok(readFileSync(BIN, "utf8").startsWith("#!/usr/bin/env node\n"));
});

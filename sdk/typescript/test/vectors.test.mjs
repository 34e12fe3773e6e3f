import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import {
  CanonError,
  ToolCallError,
  canonicalText,
  canonicalize,
  hashToolCall,
  parseStrict,
  sha256Hex,
} from "../dist/index.js";

const load = (name) => JSON.parse(readFileSync(new URL(`../../../tests/vectors/${name}`, import.meta.url), "utf8"));

/** An input is text, hex for what is no text, or prefix, repetition and suffix for what is long. */
function inputOf({ input, hex, make }) {
  if (make !== undefined) return Buffer.from(make.prefix + make.repeat.repeat(make.count) + make.suffix);
  return hex === undefined ? Buffer.from(input) : Buffer.from(hex, "hex");
}

function reasonOf(work) {
  try {
    work();
  } catch (e) {
    if (e instanceof CanonError || e instanceof ToolCallError) return e.reason;
    throw e;
  }
  return "accepted";
}

test("accepted vectors give their bytes and hash", () => {
  const vectors = load("accepted.json");
  assert.ok(vectors.length >= 50);
  for (const vector of vectors) {
    const text = canonicalText(parseStrict(inputOf(vector)));
    if (vector.canonical !== undefined) assert.equal(text, vector.canonical, vector.name);
    assert.equal(sha256Hex(text), vector.sha256, vector.name);
    assert.equal(canonicalText(parseStrict(text)), text, `${vector.name}: not a fixed point`);
  }
});

test("refused vectors are refused for their reason", () => {
  const vectors = load("refused.json");
  assert.ok(vectors.length >= 50);
  for (const vector of vectors) assert.equal(reasonOf(() => parseStrict(inputOf(vector))), vector.reason, vector.name);
});

test("the first fault in the text counts, whatever follows", () => {
  for (const [text, reason] of [
    [Buffer.from('[9007199254740992,"\xff"]', "latin1"), "number_range"],
    [Buffer.from('["\xff",9007199254740992]', "latin1"), "syntax"],
    ['{"a":1,"a":nonsense', "duplicate_key"],
    ['{"\uffff":1,"😀":2}nonsense', "ambiguous_order"],
    [`${"[".repeat(65)}nonsense`, "too_deep"],
  ]) {
    assert.equal(reasonOf(() => parseStrict(text)), reason);
  }
});

test("the place of a fault is told", () => {
  for (const [text, message] of [
    ["", "not valid JSON: EOF while parsing a value at line 1 column 0"],
    ['{"a":1,}', "not valid JSON: trailing comma at line 1 column 8"],
    ['{"a"\n1}', "not valid JSON: expected `:` at line 2 column 1"],
    ["[1 2]", "not valid JSON: expected `,` or `]` at line 1 column 4"],
    ["nil", "not valid JSON: expected ident at line 1 column 2"],
    ["01", "not valid JSON: invalid number at line 1 column 2"],
    ['"\\x"', "not valid JSON: invalid escape at line 1 column 3"],
    ['"\\ud800"', "not valid JSON: unexpected end of hex escape at line 1 column 8"],
  ]) {
    assert.throws(() => parseStrict(text), { message });
  }
});

const call = (parameters, more = {}) => ({
  tool: "github",
  action: "merge_pull_request",
  resource: "payments-service#482",
  mutates_state: true,
  parameters,
  ...more,
});

test("known answer", () => {
  const hash = "6e729c788f908c95e564d246353ceeee0895630175d19ee34b06fdec32f2cc60";
  assert.equal(hashToolCall(call({ base_branch: "main" })), hash);
});

test("long strings are folded, by their UTF-8 bytes", () => {
  const folded = (text) => {
    const bulk = { bytes: Buffer.byteLength(text), sha256: sha256Hex(text) };
    return sha256Hex(canonicalize({ ...call({ body: [{ $bulk: bulk }] }) }));
  };
  for (const text of ["x".repeat(65_537), "é".repeat(32_769), "x".repeat(2 * 1024 * 1024)]) {
    assert.equal(hashToolCall(call({ body: [text] })), folded(text));
  }
  const short = "é".repeat(32_768);
  assert.equal(hashToolCall(call({ body: [short] })), sha256Hex(canonicalize(call({ body: [short] }))));
});

test("what is no action is refused for its reason", () => {
  const nested = (depth) => JSON.parse(`${"[".repeat(depth)}${"]".repeat(depth)}`);
  for (const [value, reason] of [
    [call({ a: [{ $bulk: 1 }] }), "reserved_key"],
    [call({ $stream: 1 }), "reserved_key"],
    [call({ a: 2 ** 53 }), "number_range"],
    [call({ a: Number.NaN }), "number_range"],
    [call({ a: "\ud800" }), "syntax"],
    [call({ a: 1n }), "syntax"],
    [call({ a: new Date() }), "syntax"],
    [call({ a: [undefined] }), "syntax"],
    [call({ "\uffff": 1, "😀": 2 }), "ambiguous_order"],
    [call({ a: nested(62) }), "accepted"],
    [call({ a: nested(63) }), "too_deep"],
    [call({ a: "x".repeat(60_000), ...Object.fromEntries(Array.from({ length: 20 }, (_, i) => [i, "x".repeat(60_000)])) }), "too_large"],
    [call({}, { action: "a b" }), "bad_name"],
    [call({}, { resource: "" }), "bad_resource"],
    [call({}, { resource: "a\u0085" }), "bad_resource"],
    [call({}, { resource: null }), "accepted"],
    [call({}, { extra: 1 }), "bad_shape"],
  ]) {
    assert.equal(reasonOf(() => hashToolCall(value)), reason, JSON.stringify(value, (_, v) => (typeof v === "bigint" ? "bigint" : v)).slice(0, 100));
  }
});

test("a key called __proto__ is a key", () => {
  const value = parseStrict('{"__proto__":{"a":1}}');
  assert.equal(Object.getPrototypeOf(value), Object.prototype);
  assert.equal(canonicalText(value), '{"__proto__":{"a":1}}');
});

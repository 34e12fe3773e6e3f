import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, test } from "node:test";

import { AegisClient, hashToolCall, lowerSourceTrust, protectTool, sha256Hex, withSourceTrust } from "../dist/index.js";
import { approving, decision, gateway } from "./gateway.mjs";

const TOKEN = "aegis_agt_test_token";
const open = [];
after(() => Promise.all(open.map((gateway) => gateway.close())));

async function setup(answers, options = {}) {
  const served = await gateway(answers);
  open.push(served);
  const warnings = [];
  const onWarning = (message) => warnings.push(message);
  const client = new AegisClient({ gatewayUrl: served.url, agentToken: TOKEN, timeout: 2, onWarning, ...options });
  const protect = (fn, more = {}) => protectTool({ client, tool: "github", action: "merge_pull_request", ...more }, fn);
  return { ...served, client, protect, warnings };
}

const ARGS = { owner: "octo", repo: "payments", pull_number: 482 };

test("an allowed function runs once and its outcome is reported", async () => {
  const { protect, of } = await setup();
  let ran = 0;
  const merge = protect(({ repo, pr_number: number }) => {
    ran += 1;
    return { merged: `${repo}#${number}` };
  });
  assert.deepEqual(await merge({ repo: "octo/payments", pr_number: 482, branch: "main", method: "squash" }), {
    merged: "octo/payments#482",
  });
  assert.equal(ran, 1);
  const [{ body, headers }] = of("authorize");
  assert.deepEqual(body.tool_call, {
    tool: "github",
    action: "merge_pull_request",
    resource: "octo/payments#482",
    mutates_state: true,
    parameters: { branch: "main", merge_method: "squash" },
  });
  assert.equal(headers.authorization, `Bearer ${TOKEN}`);
  assert.equal(body.dry_run, false);
  assert.equal(body.context, undefined);
  const result = '{"merged":"octo/payments#482"}';
  const [outcome] = of("outcome");
  assert.equal(outcome.path, "/v1/decisions/dec_1/outcome");
  assert.deepEqual(outcome.body, { status: "completed", result_digest: sha256Hex(result), result_bytes: result.length });
});

test("names are the catalog's, by alias, in snake case, or kept", async () => {
  const { protect, of } = await setup();
  const merge = protect(() => null);
  await merge({ owner: "octo", repo: "payments", prNumber: 7, commitTitle: "t", Method: "rebase", own: 1, gone: null, no: undefined });
  assert.deepEqual(of("authorize")[0].body.tool_call.parameters, { commit_title: "t", merge_method: "rebase", own: 1 });
  assert.equal(of("authorize")[0].body.tool_call.resource, "octo/payments#7");
});

test("the wrapper's own resource is over the function's own names", async () => {
  const { protect, of } = await setup();
  await protect(() => null, { resource: "{repo}#{n}" })({ repo: "octo/payments", n: 5, owner: "x" });
  const { resource, parameters } = of("authorize")[0].body.tool_call;
  assert.deepEqual({ resource, parameters }, { resource: "octo/payments#5", parameters: { owner: "x" } });
});

test("an action without a resource has null", async () => {
  const { client, of } = await setup();
  await protectTool({ client, tool: "shop", action: "refund" }, () => null)({ amount: 1.5 });
  assert.equal(of("authorize")[0].body.tool_call.resource, null);
});

test("what is excluded is not sent and reaches the function as it is", async () => {
  const { protect, of } = await setup();
  const session = new Map();
  const got = await protect((args) => args.session, { exclude: ["session"] })({ ...ARGS, session });
  assert.equal(got, session);
  assert.equal(of("authorize")[0].text.includes("session"), false);
});

test("defaults are bound by the hash and reach the function", async () => {
  const { protect, of } = await setup();
  const merge = protect(({ method }) => method, { defaults: { method: "squash" } });
  assert.equal(await merge({ ...ARGS }), "squash");
  assert.equal(await merge({ ...ARGS, method: "rebase" }), "rebase");
  assert.deepEqual(of("authorize").map(({ body }) => body.tool_call.parameters.merge_method), ["squash", "rebase"]);
});

test("the function runs on copies, so a change behind its back changes nothing", async () => {
  const { protect } = await setup({
    authorize: ({ body, reply }) => reply(decision(body)),
  });
  const labels = ["a"];
  const merge = protect(async (args) => {
    labels[0] = "b";
    await null;
    return args.labels[0];
  });
  assert.equal(await merge({ ...ARGS, labels }), "a");
});

test("arguments that change while the gateway thinks do not run", async () => {
  const labels = ["a"];
  const { protect } = await setup({
    authorize: ({ body, reply }) => {
      labels[0] = "b";
      reply(decision(body));
    },
  });
  let ran = 0;
  await assert.rejects(protect(() => (ran += 1))({ ...ARGS, labels }), { code: "action_hash_mismatch", decisionId: "dec_1" });
  assert.equal(ran, 0);
});

test("a getter that tells two stories does not run", async () => {
  const { protect } = await setup();
  let reads = 0;
  const args = { ...ARGS, get path() { return `p${(reads += 1)}`; } };
  await assert.rejects(protect(() => assert.fail("it ran"))(args), { code: "action_hash_mismatch" });
});

test("a failing function is reported as failed and throws its own error", async () => {
  const { protect, of } = await setup();
  const boom = new Error("boom");
  await assert.rejects(protect(async () => { throw boom; })(ARGS), boom);
  assert.deepEqual(of("outcome")[0].body, { status: "failed" });
});

test("a result without a canonical form is reported without a digest, none is null", async () => {
  const { protect, of } = await setup();
  await protect(() => new Map())(ARGS);
  await protect(() => {})(ARGS);
  assert.deepEqual(of("outcome").map(({ body }) => body), [
    { status: "completed" },
    { status: "completed", result_digest: sha256Hex("null"), result_bytes: 4 },
  ]);
});

test("generators of both kinds become asynchronous ones", async () => {
  const { protect, of } = await setup();
  const digest = createHash("sha256").update('{"n":1}\n"x"\n').digest("hex");
  for (const fn of [
    function* () { yield { n: 1 }; yield "x"; return "end"; },
    async function* () { yield { n: 1 }; yield "x"; return "end"; },
  ]) {
    const stream = protect(fn)(ARGS);
    assert.deepEqual(await stream.next(), { value: { n: 1 }, done: false });
    assert.deepEqual(await stream.next(), { value: "x", done: false });
    assert.deepEqual(await stream.next(), { value: "end", done: true });
  }
  for (const { body } of of("outcome")) assert.deepEqual(body, { status: "completed", result_digest: digest, result_bytes: 12 });
  assert.equal(of("outcome").length, 2);
});

test("a stream is asked about when it is read, hears its reader, and cleans up when the reader stops", async () => {
  const { protect, of } = await setup();
  const log = [];
  const stream = protect(function* () {
    try {
      log.push(yield 1);
      yield 2;
    } finally {
      log.push("closed");
    }
  })(ARGS);
  assert.equal(of("authorize").length, 0);
  await stream.next();
  await stream.next("said");
  await stream.return();
  assert.deepEqual(log, ["said", "closed"]);
  assert.deepEqual(of("outcome")[0].body, { status: "completed" });
});

test("a stream that fails is reported as failed", async () => {
  const { protect, of } = await setup();
  const stream = protect(async function* () { yield 1; throw new Error("boom"); })(ARGS);
  await stream.next();
  await assert.rejects(stream.next(), /boom/);
  assert.deepEqual(of("outcome")[0].body, { status: "failed" });
});

test("what a compiler made of a generator is a stream when the wrapper says so", async () => {
  const { protect } = await setup();
  const items = [];
  for await (const item of protect(() => [1, 2][Symbol.iterator](), { stream: true })(ARGS)) items.push(item);
  assert.deepEqual(items, [1, 2]);
});

test("this reaches the function", async () => {
  const { protect } = await setup();
  const object = { name: "me", merge: protect(function () { return this.name; }) };
  assert.equal(await object.merge(ARGS), "me");
});

test("dryRun returns the decision and runs nothing, deny included", async () => {
  const { protect, of } = await setup({ authorize: ({ body, reply }) => reply(decision(body, { decision: "deny", reason: "no_permit" })) });
  const answer = await protect(() => assert.fail("it ran")).dryRun(ARGS);
  assert.equal(answer.decision, "deny");
  assert.equal(answer.dryRun, true);
  assert.equal(of("authorize")[0].body.dry_run, true);
  assert.equal(of("outcome").length, 0);
});

test("of several labels the least trusted is sent, and a context never raises one", async () => {
  const { protect, of } = await setup();
  const merge = protect(() => null, { sourceTrust: "trusted_internal_signed" });
  await merge(ARGS);
  await withSourceTrust("untrusted_external", () => merge(ARGS, { sourceTrust: "semi_trusted_customer" }));
  await withSourceTrust("untrusted_external", () => withSourceTrust("trusted_internal_signed", () => merge(ARGS)));
  await withSourceTrust("trusted_internal_signed", async () => {
    await null;
    lowerSourceTrust("malicious_suspected");
    await merge(ARGS);
  });
  await merge(ARGS);
  const sent = of("authorize").map(({ body }) => body.context.source_trust);
  assert.deepEqual(sent, [
    "trusted_internal_signed",
    "untrusted_external",
    "untrusted_external",
    "malicious_suspected",
    "trusted_internal_signed",
  ]);
  assert.throws(() => protect(() => null, { sourceTrust: "high" }), { code: "configuration" });
});

test("a stream keeps the label of the place where it was made", async () => {
  const { protect, of } = await setup();
  const read = protect(function* () { yield 1; });
  const stream = withSourceTrust("untrusted_external", () => read(ARGS));
  await stream.next();
  assert.equal(of("authorize")[0].body.context.source_trust, "untrusted_external");
});

test("an approved call is consumed with its call and runs once", async () => {
  const { protect, of } = await setup(approving());
  const waited = [];
  const merge = protect(() => "done", { onPending: ({ approvalId, approverGroup }) => waited.push([approvalId, approverGroup]) });
  assert.equal(await merge(ARGS), "done");
  assert.deepEqual(waited, [["apr_1", "leads"]]);
  assert.equal(of("approval").length, 2);
  const { tool_call: call, action_hash: hash } = of("consume")[0].body;
  assert.equal(hashToolCall(call), hash);
  assert.equal(of("outcome")[0].path, "/v1/decisions/dec_2/outcome");
});

test("people are waited for while onPending is at work, and what it throws ends the call", async () => {
  const { protect, of } = await setup(approving());
  const merge = protect(() => "done");
  assert.equal(await merge(ARGS, { onPending: () => new Promise(() => {}) }), "done");
  const boom = new Error("boom");
  await assert.rejects(merge(ARGS, { onPending: () => { throw boom; } }), boom);
  await assert.rejects(merge(ARGS, { onPending: () => Promise.reject(boom) }), boom);
  assert.equal(of("consume").length, 1);
});

test("the catalog entry is kept and connections are reused", async () => {
  const { protect, of, seen } = await setup();
  const merge = protect(() => null);
  await merge(ARGS);
  await merge(ARGS);
  assert.equal(of("action").length, 1);
  assert.equal(seen.connections, 1);
});

test("an outcome that cannot be reported changes nothing and is warned of", async () => {
  const { protect, warnings } = await setup({ outcome: ({ response }) => response.writeHead(500).end() });
  assert.equal(await protect(() => 7)(ARGS), 7);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /dec_1/);
});

test("an aborted call does not run", async () => {
  const { protect } = await setup(approving({ approval: ({ response }) => setTimeout(() => response.destroy(), 5000) }));
  const abort = new AbortController();
  setTimeout(() => abort.abort(new Error("enough")), 400);
  await assert.rejects(protect(() => assert.fail("it ran"))(ARGS, { signal: abort.signal }), /enough/);
});

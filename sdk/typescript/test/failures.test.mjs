import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { inspect } from "node:util";

import { AegisClient, AegisError, hashToolCall, protectTool } from "../dist/index.js";
import { approval, approving, decision, gateway, pending, problem } from "./gateway.mjs";

const TOKEN = "aegis_agt_CANARY_token";
const ARGS = { owner: "octo", repo: "payments", pull_number: 482, labels: ["a"] };
const open = [];
after(() => Promise.all(open.map((gateway) => gateway.close())));

/** Asks a gateway of these answers; the error, checked to carry no token and to have run nothing. */
async function failure(answers, { args = ARGS, client: options = {}, tls, ...wrapper } = {}) {
  const served = await gateway(answers, tls);
  open.push(served);
  const client = new AegisClient({ gatewayUrl: served.url, agentToken: TOKEN, timeout: 1, approvalTimeout: 2, ...options });
  let ran = 0;
  const tool = protectTool({ client, tool: "github", action: "merge_pull_request", ...wrapper }, () => (ran += 1));
  const error = await tool(args).then(
    () => assert.fail("it ran"),
    (e) => e,
  );
  assert.ok(error instanceof AegisError, inspect(error));
  assert.equal(ran, 0);
  assert.equal(inspect([error, client, tool], { depth: 9, showHidden: true }).includes(TOKEN), false);
  assert.equal(served.of("outcome").length, 0);
  return { error, ...served };
}

const with200 = (change) => ({ authorize: ({ body, reply }) => reply(change(decision(body), body)) });
const raw = (text, headers = { "content-type": "application/json" }, status = 200) => ({
  authorize: ({ response }) => response.writeHead(status, headers).end(text),
});

for (const [name, answers, code, more = {}] of [
  ["deny", with200((good) => ({ ...good, decision: "deny", reason: "no_permit", message: "no" })), "denied", { reason: "no_permit", decisionId: "dec_1", receiptId: "rcp_t_1", message: "no" }],
  ["another hash", with200((good) => ({ ...good, action_hash: "0".repeat(64) })), "action_hash_mismatch"],
  ["an unknown decision", with200((good) => ({ ...good, decision: "maybe" })), "unexpected_answer"],
  ["another canon_version", with200((good) => ({ ...good, canon_version: "aegis-jcs-2" })), "unexpected_answer"],
  ["an answer to a dry run", with200((good) => ({ ...good, dry_run: true })), "unexpected_answer"],
  ["no receipt", with200(({ receipt: _, ...rest }) => rest), "unexpected_answer"],
  ["an approval without a name", with200((good) => ({ ...good, decision: "require_approval" })), "unexpected_answer"],
  ["a repeated member", { authorize: ({ body, response }) => response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(decision(body)).replace("{", '{"decision":"allow",')) }, "unexpected_answer"],
  ["HTML", raw("<p>hello", { "content-type": "text/html" }), "unexpected_answer"],
  ["a sound answer that says it is HTML", { authorize: ({ body, response }) => response.writeHead(200, { "content-type": "text/html" }).end(JSON.stringify(decision(body))) }, "unexpected_answer"],
  ["an answer without end", { authorize: ({ response }) => response.writeHead(200, { "content-type": "application/json" }).write(" ".repeat(1024 * 1024 + 1)) }, "unexpected_answer"],
  ["a redirect", raw("", { location: "http://127.0.0.1:9/" }, 307), "unexpected_answer", { status: 307 }],
  ["a list", raw("[]"), "unexpected_answer"],
  ["more than 1 MiB", raw(`"${"x".repeat(1024 * 1024)}"`), "unexpected_answer"],
  ["half an answer", { authorize: ({ response }) => { response.writeHead(200, { "content-type": "application/json", "content-length": 99 }).write("{"); setTimeout(() => response.destroy(), 20); } }, "unexpected_answer"],
  ["no answer", { authorize: () => {} }, "gateway_timeout"],
  ["a lost connection", { authorize: ({ response }) => response.destroy() }, "gateway_unavailable"],
  ["400", { authorize: ({ response }) => problem(response, 400, "bad_field", "`resource` is bad") }, "request_refused", { status: 400, reason: "bad_field", message: "`resource` is bad" }],
  ["401", { authorize: ({ response }) => problem(response, 401, "unknown_token", "no") }, "unauthenticated"],
  ["403", { authorize: ({ response }) => problem(response, 403, "agent_frozen", "no", { receipt: "rcp_t_9" }) }, "agent_stopped", { receiptId: "rcp_t_9" }],
  ["409", { authorize: ({ response }) => problem(response, 409, "request_id_reused", "no") }, "request_conflict"],
  ["429 for an hour", { authorize: ({ response }) => problem(response, 429, "too_many_failures", "no", {}, { "retry-after": "3600" }) }, "rate_limited"],
  ["500", { authorize: ({ response }) => problem(response, 500, "internal", "no") }, "gateway_unavailable"],
  ["an unknown action", { action: ({ response }) => problem(response, 404, "not_found", "no such action") }, "request_refused"],
  ["an entry of another action", { action: ({ reply }) => reply({ name: "github.other" }) }, "unexpected_answer"],
  ["an error that quotes the token", { authorize: ({ response, request }) => problem(response, 400, "x", request.headers.authorization) }, "request_refused"],
]) {
  test(`${name} is ${code}`, async () => {
    const { error } = await failure(answers);
    assert.equal(error.code, code);
    for (const [member, value] of Object.entries(more)) assert.equal(error[member], value, member);
  });
}

for (const [name, wrapper, code, message] of [
  ["a value beyond 2^53-1", { args: { ...ARGS, amount: 2 ** 53 } }, "not_canonical", /amount/],
  ["a date", { args: { ...ARGS, at: { deep: [new Date()] } } }, "not_canonical", /at.*Date/],
  ["a reserved key", { args: { ...ARGS, body: { $bulk: 1 } } }, "not_canonical", /body/],
  ["two arguments under one name", { args: { ...ARGS, pr_number: 1 } }, "configuration", /pull_number/],
  ["a resource without its argument", { args: { repo: "octo/payments" } }, "configuration", /pull_number/],
  ["a resource of a fraction", { args: { ...ARGS, pull_number: 1.5 } }, "configuration", /pull_number/],
  ["a resource with a line end", { args: { ...ARGS, repo: "a\nb" } }, "not_canonical", /resource/],
  ["more risk than the catalog's", { risk: "critical" }, "configuration", /risk/],
  ["a list of arguments", { args: ["octo"] }, "configuration", /one plain object/],
  ["a misspelt exclude", { exclude: ["sesion"] }, "configuration", /sesion/],
]) {
  test(`${name} is ${code}, before a decision is asked for`, async () => {
    const { error, of } = await failure({}, wrapper);
    assert.equal(error.code, code);
    assert.match(error.message, message);
    assert.equal(of("authorize").length, 0);
  });
}

test("what is sent again is the same, and at most twice", async () => {
  const { error, of } = await failure({ authorize: ({ response }) => problem(response, 503, "not_recorded", "no") });
  assert.equal(error.code, "gateway_unavailable");
  assert.equal(of("authorize").length, 3);
  assert.equal(new Set(of("authorize").map(({ text }) => text)).size, 1);
});

test("409 with Retry-After is waited for", async () => {
  const served = await gateway({
    authorize: ({ body, count, response, reply }) =>
      count === 1 ? problem(response, 409, "request_in_flight", "wait", {}, { "retry-after": "0" }) : reply(decision(body)),
  });
  open.push(served);
  const client = new AegisClient({ gatewayUrl: served.url, agentToken: TOKEN });
  assert.equal(await protectTool({ client, tool: "github", action: "merge_pull_request" }, () => 1)(ARGS), 1);
});

for (const [name, answers, code, times = {}] of [
  ["rejected", approving({ approval: ({ reply }) => reply(approval(hashOf(), "rejected")) }), "approval_rejected"],
  ["expired", approving({ approval: ({ reply }) => reply(approval(hashOf(), "expired")) }), "approval_expired"],
  ["cancelled", approving({ approval: ({ reply }) => reply(approval(hashOf(), "cancelled")) }), "approval_cancelled"],
  ["consumed already", approving({ approval: ({ reply }) => reply(approval(hashOf(), "consumed")) }), "approval_replayed"],
  ["pending for ever", approving({ approval: ({ reply }) => reply(approval(hashOf(), "pending")) }), "approval_timeout"],
  ["pending until its own end", { authorize: ({ body, reply }) => reply(pending(body, { expires_at: new Date(Date.now() + 600).toISOString() })), approval: ({ reply }) => reply(approval(hashOf(), "pending", { expires_at: new Date(Date.now() - 1).toISOString() })) }, "approval_expired"],
  ["of another hash", approving({ approval: ({ reply }) => reply(approval("0".repeat(64), "approved")) }), "action_hash_mismatch", { consume: 0 }],
  ["of another hash when used", approving({ consume: ({ body, reply }) => reply(decision(body, { action_hash: "0".repeat(64) })) }), "action_hash_mismatch"],
  ["used before", approving({ consume: ({ response }) => problem(response, 409, "approval_settled", "the approval is consumed") }), "approval_replayed"],
  ["stale", approving({ consume: ({ body, response }) => problem(response, 409, "not_allowed_any_more", "no", { decision: decision(body, { decision: "deny" }) }) }), "approval_stale"],
  ["lost when used", approving({ consume: ({ response }) => response.destroy() }), "consume_unknown", { consume: 1 }],
  ["used without an answer", approving({ consume: () => {} }), "consume_unknown", { consume: 1 }],
  ["used with half an answer", approving({ consume: ({ response }) => { response.writeHead(200, { "content-length": 99 }).write("{"); setTimeout(() => response.destroy(), 20); } }), "consume_unknown", { consume: 1 }],
  ["refused with 503 when used", approving({ consume: ({ response }) => problem(response, 503, "not_recorded", "no") }), "gateway_unavailable", { consume: 1 }],
]) {
  test(`an approval that is ${name} is ${code}`, async () => {
    const { error, of } = await failure(answers);
    assert.equal(error.code, code);
    assert.equal(error.approvalId, "apr_1");
    assert.equal(error.actionHash, hashOf());
    for (const [kind, count] of Object.entries(times)) assert.equal(of(kind).length, count);
  });
}

test("arguments swapped after the yes are not consumed", async () => {
  const labels = ["a"];
  const onPending = () => (labels[0] = "swapped");
  const { error, of } = await failure(approving(), { args: { ...ARGS, labels }, onPending });
  assert.equal(error.code, "action_hash_mismatch");
  assert.equal(of("consume").length, 0);
});

test("arguments swapped while the approval is used do not run", async () => {
  const labels = ["a"];
  const consume = ({ body, reply }) => {
    labels[0] = "swapped";
    reply(decision(body));
  };
  const { error } = await failure(approving({ consume }), { args: { ...ARGS, labels } });
  assert.equal(error.code, "action_hash_mismatch");
});

test("a gateway that is not there is gateway_unavailable", async () => {
  const served = await gateway();
  await served.close();
  const client = new AegisClient({ gatewayUrl: served.url, agentToken: TOKEN, timeout: 1 });
  await assert.rejects(protectTool({ client, tool: "a", action: "b" }, () => 1)(), { code: "gateway_unavailable" });
});

let folder;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "aegis-sdk-"));
  const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
  const files = ["-keyout", join(folder, "key.pem"), "-out", join(folder, "cert.pem")];
  execFileSync("openssl", [...request, ...files, "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"], { stdio: "ignore" });
});
after(() => rmSync(folder, { recursive: true }));
const certificate = () => ({ key: readFileSync(join(folder, "key.pem")), cert: readFileSync(join(folder, "cert.pem")) });

test("a certificate counts by caFile, whatever the environment says", async () => {
  const served = await gateway({}, certificate());
  open.push(served);
  const client = new AegisClient({ gatewayUrl: served.url, agentToken: TOKEN, caFile: join(folder, "cert.pem") });
  assert.equal(await protectTool({ client, tool: "github", action: "merge_pull_request" }, () => 1)(ARGS), 1);
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
  try {
    assert.equal((await failure({}, { tls: certificate() })).error.code, "tls_error");
  } finally {
    delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
  }
});

test("a peer that does not speak TLS is tls_error", async () => {
  const server = createServer((socket) => socket.on("error", () => {}).once("data", () => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n")));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const client = new AegisClient({ gatewayUrl: `https://127.0.0.1:${server.address().port}`, agentToken: TOKEN, timeout: 1 });
  await assert.rejects(protectTool({ client, tool: "a", action: "b" }, () => 1)(), { code: "tls_error" });
  await new Promise((resolve) => server.close(resolve));
});

test("what a client cannot work with is configuration", () => {
  const good = { gatewayUrl: "http://127.0.0.1:1", agentToken: TOKEN };
  for (const change of [
    { gatewayUrl: "http://gateway.example" },
    { gatewayUrl: "http://127.0.0.1.example" },
    { gatewayUrl: "https://user:secret@gateway.example" },
    { gatewayUrl: "ftp://127.0.0.1" },
    { gatewayUrl: "" },
    { agentToken: "" },
    { agentToken: "a\r\nb" },
    { caFile: "/nonexistent" },
    { timeout: 0 },
  ]) {
    assert.throws(() => new AegisClient({ ...good, ...change }), { code: "configuration" }, JSON.stringify(change));
  }
  new AegisClient({ ...good, gatewayUrl: "http://gateway.example", dangerPlaintext: true }).close();
});

test("the environment stands in for what is not given", async () => {
  const served = await gateway();
  open.push(served);
  Object.assign(process.env, { AEGIS_GATEWAY_URL: served.url, AEGIS_AGENT_TOKEN: TOKEN, HTTP_PROXY: "http://127.0.0.1:9", http_proxy: "http://127.0.0.1:9" });
  try {
    const client = new AegisClient();
    assert.equal(await protectTool({ client, tool: "github", action: "merge_pull_request" }, () => 1)(ARGS), 1);
  } finally {
    for (const name of ["AEGIS_GATEWAY_URL", "AEGIS_AGENT_TOKEN", "HTTP_PROXY", "http_proxy"]) delete process.env[name];
  }
});

function hashOf() {
  const { labels } = ARGS;
  return hashToolCall({ tool: "github", action: "merge_pull_request", resource: "octo/payments#482", mutates_state: true, parameters: { labels } });
}

// A small gateway for the tests: good answers by default, and any other where a test says so.
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";

import { hashToolCall } from "../dist/index.js";

export const MERGE = {
  name: "github.merge_pull_request",
  tool: "github",
  summary: "Merge a pull request",
  operation: "pulls/merge",
  wire: "PUT /repos/{owner}/{repo}/pulls/{pull_number}/merge",
  class: "write",
  risk: "high",
  mutates_state: true,
  resource: "{owner}/{repo}#{pull_number}",
  parameters: { commit_title: { type: "string", required: false }, merge_method: { type: "string", required: false } },
  aliases: { pr_number: "pull_number", method: "merge_method" },
  facts: {},
};

export const ENTRIES = {
  "github.merge_pull_request": MERGE,
  "shop.refund": { ...MERGE, name: "shop.refund", tool: "shop", resource: null, parameters: { amount: {} }, aliases: {} },
};

/** Starts a gateway; `answers` maps `authorize`, `approval`, `consume`, `outcome` and `action` to functions. */
export async function gateway(answers = {}, tls = undefined) {
  const seen = { requests: [], connections: 0 };
  const handler = (request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString();
      const kind = kindOf(request);
      const body = text === "" ? undefined : JSON.parse(text);
      seen.requests.push({ kind, text, body, path: request.url, headers: request.headers });
      const count = seen.requests.filter((other) => other.kind === kind).length;
      const answer = answers[kind] ?? defaults[kind];
      answer({ body, count, request, response, reply: (value, more) => reply(response, value, more) });
    });
  };
  const server = tls === undefined ? createServer(handler) : createTlsServer(tls, handler);
  server.on(tls === undefined ? "connection" : "secureConnection", () => (seen.connections += 1));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    seen,
    server,
    of: (kind) => seen.requests.filter((request) => request.kind === kind),
    url: `${tls === undefined ? "http" : "https"}://127.0.0.1:${server.address().port}`,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A decision as the gateway makes one. */
export function decision(body, more = {}) {
  return {
    decision_id: "dec_1",
    decision: "allow",
    reason: "allowed",
    message: "allowed by policy",
    action_hash: hashToolCall(body.tool_call),
    canon_version: "aegis-jcs-1",
    matched_policies: ["p1"],
    risk: { level: "high", class: "write" },
    effective_trust: "unknown",
    receipt: { receipt_id: "rcp_t_1", receipt_hash: "a".repeat(64), prev_receipt_hash: "b".repeat(64) },
    dry_run: body.dry_run ?? false,
    ...more,
  };
}

/** A decision that asks for an approval. */
export function pending(body, more = {}) {
  const approval = {
    approval_id: "apr_1",
    status: "pending",
    approver_group: "leads",
    expires_at: new Date(Date.now() + 60_000).toISOString(),
    action_hash: hashToolCall(body.tool_call),
    ...more,
  };
  return decision(body, { decision: "require_approval", reason: "approval", message: "needs a yes", approval });
}

/** An approval's state. */
export function approval(actionHash, status, more = {}) {
  return { approval_id: "apr_1", action_hash: actionHash, status, expires_at: new Date(Date.now() + 60_000).toISOString(), ...more };
}

/** An error answer. */
export function problem(response, status, reason, detail, more = {}, headers = {}) {
  const body = { type: `urn:aegis:problem:${reason}`, title: reason, status, detail, ...more };
  reply(response, body, { status, headers: { "content-type": "application/problem+json", "aegis-reason": reason, ...headers } });
}

/** Answers of a gateway that waits for one poll and then has a yes. */
export function approving(more = {}) {
  let actionHash;
  return {
    authorize: ({ body, reply }) => {
      actionHash = hashToolCall(body.tool_call);
      reply(pending(body));
    },
    approval: ({ count, reply }) => reply(approval(actionHash, count === 1 ? "pending" : "approved")),
    consume: ({ body, reply }) => reply(decision(body, { decision_id: "dec_2", reason: "approved" })),
    ...more,
  };
}

const defaults = {
  action: ({ request, response, reply }) => {
    const entry = ENTRIES[decodeURIComponent(request.url.split("/").at(-1))];
    if (entry === undefined) problem(response, 404, "not_found", "no such action");
    else reply(entry);
  },
  authorize: ({ body, reply }) => reply(decision(body)),
  approval: ({ response }) => problem(response, 404, "not_found", "no such approval"),
  consume: ({ response }) => problem(response, 404, "not_found", "no such approval"),
  outcome: ({ response }) => response.writeHead(204).end(),
  other: ({ response }) => response.writeHead(404).end(),
};

function kindOf({ method, url }) {
  if (method === "POST" && url === "/v1/authorize") return "authorize";
  if (method === "GET" && url.startsWith("/v1/actions/")) return "action";
  if (method === "POST" && url.endsWith("/outcome")) return "outcome";
  if (method === "POST" && url.endsWith("/consume")) return "consume";
  return method === "GET" && url.startsWith("/v1/approvals/") ? "approval" : "other";
}

function reply(response, value, { status = 200, headers = {} } = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));
}

// Drives the built TypeScript SDK: one JSON object a line on stdin, one a line on stdout, in order.
import { createInterface } from "node:readline";

import {
  AegisClient,
  AegisError,
  canonicalText,
  hashToolCall,
  parseStrict,
  protectTool,
  sha256Hex,
  withSourceTrust,
} from "../../../sdk/typescript/dist/index.js";
import { verifyReceipts } from "../../../sdk/typescript/dist/verify/index.js";

class BodyError extends Error {}

const clients = new Map();
const OPERATIONS = {
  call,
  canon: ({ text_b64: text }) => hashed(() => sha256Hex(canonicalText(parseStrict(Buffer.from(text, "base64"))))),
  hash_call: ({ tool_call: call }) => hashed(() => hashToolCall(call)),
  verify: ({ path }) => {
    const report = verifyReceipts(path);
    return { exit: report.exitCode, verdict: JSON.parse(report.toJson()) };
  },
};

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  if (line.trim() === "") continue;
  const request = JSON.parse(line);
  const answer = await OPERATIONS[request.op](request);
  process.stdout.write(`${JSON.stringify({ id: request.id, ...answer })}\n`);
}

function hashed(make) {
  try {
    return { ok: true, sha256: make() };
  } catch (e) {
    if (e.reason === undefined) throw e;
    return { ok: false, reason: e.reason };
  }
}

async function call(request) {
  const started = performance.now();
  const seen = { ran: 0, actionHash: null, decision: null };
  const answer = { ran: 0, result: null, error: null, action_hash: null, decision: null };
  try {
    const run = () => attempt(request, seen);
    const trust = request.context_trust ?? undefined;
    answer.result = (await (trust === undefined ? run() : withSourceTrust(trust, run))) ?? null;
  } catch (e) {
    answer.error = described(e, seen);
  }
  answer.ran = seen.ran;
  answer.action_hash = seen.actionHash;
  answer.decision = seen.decision;
  answer.elapsed_ms = Math.round(performance.now() - started);
  return answer;
}

async function attempt(request, seen) {
  const args = request.args;
  const tool = protectTool(
    {
      client: clientOf(request),
      tool: request.tool,
      action: request.action,
      risk: request.risk ?? undefined,
      resource: request.resource ?? undefined,
      exclude: request.exclude ?? [],
      sourceTrust: request.source_trust ?? undefined,
      onPending: () => {
        if (request.on_pending?.set) change(args, request.on_pending.set);
      },
      onDecision: ({ actionHash }) => (seen.actionHash = actionHash),
    },
    body(request, seen),
  );
  if (request.dry_run) {
    seen.decision = (await tool.dryRun(args)).decision;
    return null;
  }
  if (request.mode !== "stream" && request.mode !== "async_stream") return tool(args);
  const items = [];
  for await (const item of tool(args)) items.push(item);
  return items;
}

function body({ mode, returns, fails }, seen) {
  const run = () => {
    seen.ran += 1;
    if (fails) throw new BodyError("the body failed");
    return returns;
  };
  switch (mode) {
    case "async":
      return async () => run();
    case "stream":
      return function* () {
        yield* run() ?? [];
      };
    case "async_stream":
      return async function* () {
        yield* run() ?? [];
      };
    default:
      return () => run();
  }
}

function described(e, seen) {
  if (e instanceof BodyError) return { code: "body" };
  if (!(e instanceof AegisError)) throw e;
  seen.actionHash ??= e.actionHash ?? null;
  return {
    code: e.code,
    reason: e.reason ?? null,
    message: e.message,
    status: e.status ?? null,
    decision_id: e.decisionId ?? null,
    receipt_id: e.receiptId ?? null,
    approval_id: e.approvalId ?? null,
    type: e.name,
  };
}

function clientOf(request) {
  const { gateway_url: url, agent_token: token, ca_file: ca, danger_plaintext: plain, timeout_s, approval_timeout_s } = request;
  const key = JSON.stringify([url, token, ca, plain, timeout_s, approval_timeout_s]);
  if (!clients.has(key)) {
    const client = new AegisClient({
      gatewayUrl: url ?? undefined,
      agentToken: token ?? undefined,
      caFile: ca ?? undefined,
      dangerPlaintext: plain ?? undefined,
      timeout: timeout_s ?? undefined,
      approvalTimeout: approval_timeout_s ?? undefined,
    });
    clients.set(key, client);
  }
  return clients.get(key);
}

/** Sets a member in place; the last element of the path is the value. */
function change(target, path) {
  const value = path.at(-1);
  const steps = path.slice(0, -1);
  for (const step of steps.slice(0, -1)) target = target[step];
  target[steps.at(-1)] = value;
}

/** One agent's connection to one gateway. */

import { randomUUID, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";

import { hashToolCall, type ToolCall } from "./action.js";
import { readApproval, readDecision, type ApprovalState, type Decision } from "./answers.js";
import { catalogEntry, type CatalogEntry } from "./catalog.js";
import {
  ActionHashMismatchError,
  ApprovalCancelledError,
  ApprovalExpiredError,
  ApprovalRejectedError,
  ApprovalReplayedError,
  ApprovalStaleError,
  ConfigurationError,
  UnexpectedAnswerError,
  type AegisError,
  type ErrorDetails,
} from "./errors.js";
import { Gateway, now } from "./gateway.js";
import { Transport, type Answer } from "./transport.js";
import type { SourceTrust } from "./trust.js";

/** What a client needs. `AEGIS_GATEWAY_URL`, `AEGIS_AGENT_TOKEN` and `AEGIS_CA_FILE` stand in for what is not given. */
export interface ClientOptions {
  /** `https://…`; `http://` for loopback only. */
  gatewayUrl?: string | undefined;
  /** `aegis_agt_…` */
  agentToken?: string | undefined;
  /** PEM file of roots that are trusted beside the usual ones. */
  caFile?: string | undefined;
  /** Lets `http://` leave this machine. Whoever is on the way can then read the token and forge answers. */
  dangerPlaintext?: boolean | undefined;
  /** Seconds for one question to the gateway, repetitions included; default 10. */
  timeout?: number | undefined;
  /** Seconds to wait for people; default 900. */
  approvalTimeout?: number | undefined;
  /** Gets what is worth knowing and changes nothing, e.g. an outcome that could not be reported; default `console.warn`. */
  onWarning?: ((message: string) => void) | undefined;
}

/** What a question may say beside the call. */
export interface AuthorizeOptions {
  sourceTrust?: SourceTrust | undefined;
  dryRun?: boolean | undefined;
  signal?: AbortSignal | undefined;
  /** {@link now} by which there has to be an answer; default `timeout` from now. */
  deadline?: number | undefined;
  /** Of the call, where it is known already. */
  actionHash?: string | undefined;
}

/** How a function ended; the result itself is never sent. */
export interface Outcome {
  status: "completed" | "failed";
  /** SHA-256 of the result's canonical bytes, lowercase hex. */
  resultDigest?: string | undefined;
  resultBytes?: number | undefined;
}

/** Asks the gateway for one agent. Keeps connections open; make one and use it everywhere. */
export class AegisClient {
  /** Milliseconds. */
  readonly timeout: number;
  /** Milliseconds. */
  readonly approvalTimeout: number;
  readonly #gateway: Gateway;
  readonly #transport: Transport;
  readonly #warn: (message: string) => void;
  readonly #entries = new Map<string, { until: number; entry: Promise<CatalogEntry> }>();

  constructor(options: ClientOptions = {}) {
    const url = gatewayUrl(given(options.gatewayUrl, "AEGIS_GATEWAY_URL"), options.dangerPlaintext === true);
    const token = given(options.agentToken, "AEGIS_AGENT_TOKEN");
    if (token === undefined) throw new ConfigurationError("no agent token: give `agentToken` or set AEGIS_AGENT_TOKEN");
    if (!/^[\x21-\x7e]+$/.test(token)) throw new ConfigurationError("the agent token has characters that no token has");
    this.timeout = milliseconds("timeout", options.timeout ?? 10);
    this.approvalTimeout = milliseconds("approvalTimeout", options.approvalTimeout ?? 900);
    this.#warn = options.onWarning ?? ((message) => console.warn(`aegis: ${message}`));
    this.#transport = new Transport(url, token, roots(given(options.caFile, "AEGIS_CA_FILE")));
    this.#gateway = new Gateway(this.#transport, token);
  }

  /** The catalog entry of an action, kept for five minutes. */
  action(tool: string, action: string, options: { deadline?: number } = {}): Promise<CatalogEntry> {
    const name = `${tool}.${action}`;
    const kept = this.#entries.get(name);
    if (kept !== undefined && kept.until > now()) return kept.entry;
    const entry = this.#fetchEntry(name, options.deadline ?? now() + this.timeout);
    this.#entries.set(name, { until: now() + KEPT_MS, entry });
    // What failed is not kept.
    entry.catch(() => this.#entries.get(name)?.entry === entry && this.#entries.delete(name));
    return entry;
  }

  /** Asks for a decision. A `deny` is an answer, not an error. */
  async authorize(call: ToolCall, options: AuthorizeOptions = {}): Promise<Decision> {
    const actionHash = options.actionHash ?? hashToolCall(call);
    const dryRun = options.dryRun === true;
    const body = jsonBytes({
      tool_call: call,
      ...(options.sourceTrust === undefined ? {} : { context: { source_trust: options.sourceTrust } }),
      request_id: randomUUID(),
      dry_run: dryRun,
    });
    const deadline = options.deadline ?? now() + this.timeout;
    const known = { actionHash };
    const { signal } = options;
    const answer = await this.#gateway.askObject({ method: "POST", path: "/v1/authorize", body, deadline, known, signal });
    return readDecision(answer, actionHash, dryRun);
  }

  /** The present state of an approval, which has to be for `actionHash`. */
  async approval(approvalId: string, actionHash: string, options: ApprovalOptions = {}): Promise<ApprovalState> {
    const known = { ...options.known, approvalId, actionHash };
    const path = `/v1/approvals/${encodeURIComponent(approvalId)}`;
    const deadline = options.deadline ?? now() + this.timeout;
    const answer = await this.#gateway.askObject({ method: "GET", path, deadline, known, signal: options.signal });
    return readApproval(answer, approvalId, actionHash, known);
  }

  /** Uses an approval up for exactly this call. Never sent twice once it may have arrived. */
  async consume(approvalId: string, call: ToolCall, options: ApprovalOptions = {}): Promise<Decision> {
    const actionHash = options.actionHash ?? hashToolCall(call);
    const known = { ...options.known, approvalId, actionHash };
    const path = `/v1/approvals/${encodeURIComponent(approvalId)}/consume`;
    const body = jsonBytes({ action_hash: actionHash, tool_call: call });
    const deadline = options.deadline ?? now() + this.timeout;
    const question = { method: "POST", path, body, deadline, known, once: true } as const;
    const answer = await this.#gateway.ask(question);
    if (answer.status === 409) throw this.#notConsumed(answer, known);
    return readDecision(this.#gateway.readObject(answer, known), actionHash, false, known);
  }

  /** Says how an allowed call ended. Never throws: the function has run, and nothing can change that. */
  async reportOutcome(decisionId: string, outcome: Outcome): Promise<void> {
    const { status, resultDigest, resultBytes } = outcome;
    const result = resultDigest === undefined ? {} : { result_digest: resultDigest, result_bytes: resultBytes };
    const body = jsonBytes({ status, ...result });
    const path = `/v1/decisions/${encodeURIComponent(decisionId)}/outcome`;
    const known = { decisionId };
    try {
      const answer = await this.#gateway.ask({ method: "POST", path, body, deadline: now() + this.timeout, known });
      if (answer.status !== 204 && answer.status !== 200) throw this.#gateway.errorOf(answer, known);
    } catch (e) {
      this.warn(`the outcome of decision \`${decisionId}\` could not be reported: ${e instanceof Error ? e.message : e}`);
    }
  }

  /** Milliseconds until an instant of the gateway's clock. */
  millisecondsUntil(instant: number): number {
    return instant - this.#gateway.clock();
  }

  /** Passes a warning on. */
  warn(message: string): void {
    try {
      this.#warn(message);
    } catch {
      // A logger that fails changes nothing for the caller.
    }
  }

  /** Closes idle connections. The client can still be used. */
  close(): void {
    this.#transport.close();
  }

  async #fetchEntry(name: string, deadline: number): Promise<CatalogEntry> {
    const path = `/v1/actions/${encodeURIComponent(name)}`;
    const entry = catalogEntry(await this.#gateway.askObject({ method: "GET", path, deadline, known: {} }), name);
    if (entry === undefined) throw new UnexpectedAnswerError(`the answer is not the catalog entry of \`${name}\``);
    return entry;
  }

  /** Why an approval could not be used. */
  #notConsumed(answer: Answer, known: ErrorDetails): AegisError {
    const problem = this.#gateway.problemOf(answer);
    const details: ErrorDetails = { ...known, status: answer.status, reason: problem.reason };
    if (problem.receipt !== undefined) details.receiptId = problem.receipt;
    const said = problem.detail ?? "the approval cannot be used";
    if (problem.reason === "approval_hash_mismatch") return new ActionHashMismatchError(said, details);
    if (problem.reason === "not_allowed_any_more" || problem.decision !== undefined) {
      const decisionId = problem.decision?.["decision_id"];
      if (typeof decisionId === "string") details.decisionId = decisionId;
      return new ApprovalStaleError(said, details);
    }
    if (problem.reason !== "approval_settled") return this.#gateway.errorOf(answer, known);
    if (/\bexpired\b/.test(said)) return new ApprovalExpiredError(said, details);
    if (/\brejected\b/.test(said)) return new ApprovalRejectedError(said, details);
    if (/\bcancelled\b/.test(said)) return new ApprovalCancelledError(said, details);
    return new ApprovalReplayedError(said, details);
  }
}

/** What a question about an approval may carry. */
export interface ApprovalOptions {
  /** What errors should carry. */
  known?: ErrorDetails | undefined;
  signal?: AbortSignal | undefined;
  deadline?: number | undefined;
  /** Of the call, where it is known already. */
  actionHash?: string | undefined;
}

function given(value: string | undefined, variable: string): string | undefined {
  const chosen = value ?? process.env[variable];
  return chosen === "" ? undefined : chosen;
}

function gatewayUrl(text: string | undefined, dangerPlaintext: boolean): URL {
  if (text === undefined) throw new ConfigurationError("no gateway: give `gatewayUrl` or set AEGIS_GATEWAY_URL");
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== "https:" && url.protocol !== "http:")) {
    throw new ConfigurationError("`gatewayUrl` must be an `https://` URL");
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new ConfigurationError("`gatewayUrl` must have no user, query or fragment");
  }
  if (url.protocol === "http:" && !dangerPlaintext && !LOOPBACK.test(url.hostname)) {
    throw new ConfigurationError("`http://` is for loopback; use `https://`, or `dangerPlaintext` if the network is trusted");
  }
  return url;
}

function roots(file: string | undefined): string | undefined {
  if (file === undefined) return undefined;
  let pem: string;
  try {
    pem = readFileSync(file, "utf8");
  } catch (e) {
    throw new ConfigurationError("the file of `caFile` cannot be read", { cause: e });
  }
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0 || !blocks.every(isCertificate)) {
    throw new ConfigurationError("the file of `caFile` has no PEM certificate, or one that is none");
  }
  return pem;
}

function isCertificate(pem: string): boolean {
  try {
    new X509Certificate(pem);
    return true;
  } catch {
    return false;
  }
}

function milliseconds(name: string, seconds: number): number {
  // Longer than a timer can be set is as good as for ever.
  if (!(seconds > 0 && seconds <= 2_000_000)) throw new ConfigurationError(`\`${name}\` must be a number of seconds above 0`);
  return seconds * 1000;
}

function jsonBytes(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;
const KEPT_MS = 5 * 60 * 1000;

/** Questions to the gateway: what is sent again, what counts as an answer, and which error the rest is. */

import { isPlainObject } from "./action.js";
import { CanonError, setMember, type JsonObject, type JsonValue } from "./canon.js";
import {
  AgentStoppedError,
  ConsumeUnknownError,
  GatewayTimeoutError,
  GatewayUnavailableError,
  RateLimitedError,
  RequestConflictError,
  RequestRefusedError,
  TlsError,
  UnauthenticatedError,
  UnexpectedAnswerError,
  type AegisError,
  type ErrorDetails,
} from "./errors.js";
import { parseStrict } from "./json.js";
import { TransportFailure, type Answer, type Transport } from "./transport.js";

/** One question. */
export interface Question {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly body?: Buffer | undefined;
  /** Milliseconds of {@link now} by which there has to be an answer. */
  readonly deadline: number;
  /**
   * Never sent twice once it may have arrived, and on a fresh connection: one that was kept may be gone, and then
   * nobody knows whether it arrived.
   */
  readonly once?: boolean | undefined;
  /** What errors should carry. */
  readonly known: ErrorDetails;
  readonly signal?: AbortSignal | undefined;
}

/** Asks one gateway. */
export class Gateway {
  readonly #transport: Transport;
  readonly #token: string;
  /** How far the gateway's clock is ahead of ours, in milliseconds. */
  #ahead = 0;

  constructor(transport: Transport, token: string) {
    this.#transport = transport;
    this.#token = token;
  }

  /** Now, by the gateway's clock, in milliseconds since the epoch. */
  clock(): number {
    return Date.now() + this.#ahead;
  }

  /** The object that a 200 answers with. */
  async askObject(question: Question): Promise<JsonObject> {
    return this.readObject(await this.ask(question), question.known);
  }

  /** The object that an answer is, where it is a 200 that counts. */
  readObject(answer: Answer, known: ErrorDetails): JsonObject {
    if (answer.status !== 200) throw this.errorOf(answer, known);
    const type = (answer.headers["content-type"] ?? "").split(";")[0]!.trim().toLowerCase();
    const unexpected = (what: string, cause?: unknown) =>
      new UnexpectedAnswerError(`the answer does not count: ${what}`, { ...known, status: 200, cause });
    if (type !== "application/json") throw unexpected(`it is \`${type || "of no type"}\` and not \`application/json\``);
    if ((answer.headers["content-encoding"] ?? "identity") !== "identity") throw unexpected("it is encoded");
    let body: unknown;
    try {
      body = without(parseStrict(this.#redacted(answer.body)), this.#token);
    } catch (e) {
      if (!(e instanceof CanonError)) throw e;
      throw unexpected(e.message, e);
    }
    if (!isPlainObject(body)) throw unexpected("it is no JSON object");
    return body as JsonObject;
  }

  /** The first answer that is not to be asked for again. */
  async ask(question: Question): Promise<Answer> {
    for (let again = 2; ; again--) {
      const { method, path, body, signal, known } = question;
      const left = question.deadline - now();
      // One that another may follow gets half of the time that is left.
      const timeout = question.once === true || again === 0 ? left : left / 2;
      let pause = pauseBefore(again);
      let error: AegisError;
      try {
        if (timeout <= 0) throw new TransportFailure("timeout", "no answer in time", false);
        const answer = await this.#transport.send({
          ...{ method, path, body, timeout, connectTimeout: left / 2, signal },
          fresh: question.once,
        });
        this.#readClock(answer);
        const retryAfter = secondsOf(answer.headers["retry-after"], this.clock());
        const busy = RETRIED.has(answer.status) || (answer.status === 409 && retryAfter !== undefined);
        if (!busy || question.once === true || again === 0) return answer;
        if (retryAfter !== undefined) pause = retryAfter * 1000;
        if (now() + pause >= question.deadline) return answer;
        error = this.errorOf(answer, known);
      } catch (e) {
        if (!(e instanceof TransportFailure)) throw e;
        error = failureError(e, question);
        const final = e.kind === "tls" || e.kind === "garbled";
        if (final || (question.once === true && e.mayHaveArrived) || again === 0) throw error;
        if (now() + pause >= question.deadline) throw error;
      }
      await sleep(pause, signal);
    }
  }

  /** What an answer that is no success means. */
  errorOf(answer: Answer, known: ErrorDetails): AegisError {
    const { status } = answer;
    const problem = this.problemOf(answer);
    const details: ErrorDetails = { ...known, status, reason: problem.reason };
    if (problem.receipt !== undefined) details.receiptId = problem.receipt;
    const said = problem.detail ?? `the gateway answered with status ${status}`;
    switch (status) {
      case 401:
        return new UnauthenticatedError(said, details);
      case 403:
        return new AgentStoppedError(said, details);
      case 400:
      case 404:
      case 413:
      case 422:
        return new RequestRefusedError(said, details);
      case 409:
        return new RequestConflictError(said, details);
      case 429:
        return new RateLimitedError(said, details);
      default:
        if (status >= 500 && status <= 599) return new GatewayUnavailableError(said, details);
        return new UnexpectedAnswerError(`the gateway answered with status ${status}`, details);
    }
  }

  /** What an error answer says of itself, as far as it is `application/problem+json`. */
  problemOf(answer: Answer): Problem {
    const header = answer.headers["aegis-reason"];
    const reason = typeof header === "string" && /^[a-z0-9_.-]{1,64}$/.test(header) ? header : undefined;
    let body: unknown;
    try {
      body = without(parseStrict(this.#redacted(answer.body)), this.#token);
    } catch {
      return { reason };
    }
    if (!isPlainObject(body)) return { reason };
    const { type, detail, receipt, decision } = body;
    const code = typeof type === "string" ? /^urn:aegis:problem:([a-z0-9_.-]{1,64})$/.exec(type)?.[1] : undefined;
    return {
      reason: reason ?? code,
      detail: typeof detail === "string" && detail !== "" ? detail : undefined,
      receipt: typeof receipt === "string" ? receipt : undefined,
      decision: isPlainObject(decision) ? decision : undefined,
    };
  }

  /** Whatever an answer says, the token is not passed on. */
  #redacted(body: Buffer): Buffer {
    if (!body.includes(this.#token)) return body;
    return Buffer.from(body.toString("latin1").replaceAll(this.#token, "<agent token>"), "latin1");
  }

  #readClock(answer: Answer): void {
    const theirs = Date.parse(answer.headers.date ?? "");
    if (Number.isNaN(theirs)) return;
    const ahead = theirs - Date.now();
    // The header has whole seconds; clocks that agree that far are taken to agree.
    this.#ahead = Math.abs(ahead) > 2000 ? ahead : 0;
  }
}

/** The value without the token: JSON escapes hide it from whoever looks at the bytes. */
function without(value: unknown, token: string): unknown {
  if (typeof value === "string") return value.replaceAll(token, "<agent token>");
  if (Array.isArray(value)) return value.map((item) => without(item, token));
  if (!isPlainObject(value)) return value;
  const members: JsonObject = {};
  for (const [key, item] of Object.entries(value)) setMember(members, key.replaceAll(token, "<agent token>"), without(item, token) as JsonValue);
  return members;
}

/** What an error answer says. */
export interface Problem {
  readonly reason: string | undefined;
  readonly detail?: string | undefined;
  readonly receipt?: string | undefined;
  readonly decision?: Record<string, unknown> | undefined;
}

/** Milliseconds that only go forward. */
export function now(): number {
  return performance.now();
}

/** Waits; an abort ends it with the signal's reason. */
export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    if (signal?.aborted === true) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });
}

function failureError(failure: TransportFailure, question: Question): AegisError {
  const details: ErrorDetails = { ...question.known, cause: failure.cause };
  const arrived = question.once === true && failure.mayHaveArrived;
  if (arrived && failure.kind !== "garbled") {
    const what = `${failure.message}: the approval may be used up, and the function did not run`;
    return new ConsumeUnknownError(what, details);
  }
  switch (failure.kind) {
    case "connect":
    case "lost":
      return new GatewayUnavailableError(failure.message, details);
    case "tls":
      return new TlsError(failure.message, details);
    case "timeout":
      return new GatewayTimeoutError(failure.message, details);
    case "half":
    case "garbled":
      return new UnexpectedAnswerError(failure.message, details);
  }
}

/** With some chance in it, so that many callers do not come back at once. */
function pauseBefore(again: number): number {
  const base = again === 2 ? 50 : 200;
  return base + Math.random() * base;
}

/** Seconds that `Retry-After` asks for, in either of its forms. */
function secondsOf(header: string | undefined, clock: number): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d{1,9}$/.test(header)) return Number(header);
  if (!HTTP_DATE.test(header)) return undefined;
  const at = Date.parse(header);
  return Number.isNaN(at) ? undefined : Math.max(0, (at - clock) / 1000);
}

const HTTP_DATE = /^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/;
const RETRIED = new Set([429, 502, 503, 504]);

/** HTTP to one gateway: one request, one answer, and what exactly went wrong where there is none. */

import http from "node:http";
import https from "node:https";
import type { Socket } from "node:net";
import tls from "node:tls";

/** An answer, whole. */
export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

/** What became of a request that has no answer. */
export type FailureKind =
  /** No connection could be made. */
  | "connect"
  /** The certificate does not hold, or the handshake failed. */
  | "tls"
  /** The time was over. */
  | "timeout"
  /** The connection was lost before an answer began. */
  | "lost"
  /** An answer began and did not get to its end. */
  | "half"
  /** What came is no HTTP answer, or too large. */
  | "garbled";

/** A request without an answer. */
export class TransportFailure extends Error {
  override readonly name = "TransportFailure";
  readonly kind: FailureKind;
  /** Whether the gateway may have got the request. */
  readonly mayHaveArrived: boolean;

  constructor(kind: FailureKind, message: string, mayHaveArrived: boolean, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.kind = kind;
    this.mayHaveArrived = mayHaveArrived;
  }
}

/** One request. */
export interface Exchange {
  readonly method: "GET" | "POST";
  /** Path below the gateway's URL. */
  readonly path: string;
  readonly body?: Buffer | undefined;
  /** Milliseconds for everything. */
  readonly timeout: number;
  /** Milliseconds for making a connection. */
  readonly connectTimeout: number;
  readonly signal?: AbortSignal | undefined;
  /** On a connection of its own. */
  readonly fresh?: boolean | undefined;
}

/** Keeps connections open. Follows no redirect, reads no proxy variables. */
export class Transport {
  readonly #url: URL;
  readonly #token: string;
  readonly #agent: http.Agent;
  /** Makes a connection for each request. */
  readonly #fresh: http.Agent;

  /** `roots` are PEM certificates that are trusted beside the usual ones. */
  constructor(url: URL, token: string, roots: string | undefined) {
    this.#url = url;
    this.#token = token;
    const options: https.AgentOptions = { keepAlive: true, scheduling: "lifo", maxFreeSockets: 16 };
    if (url.protocol === "https:") {
      // Said explicitly, so that no variable of the environment switches it off.
      options.rejectUnauthorized = true;
      options.minVersion = "TLSv1.2";
      if (roots !== undefined) options.ca = [...usualRoots(), roots];
      this.#agent = new https.Agent(options);
      this.#fresh = new https.Agent({ ...options, keepAlive: false });
    } else {
      this.#agent = new http.Agent(options);
      this.#fresh = new http.Agent({ ...options, keepAlive: false });
    }
  }

  /** Closes idle connections; those in use close when they are done. */
  close(): void {
    this.#agent.destroy();
  }

  send(exchange: Exchange): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const secure = this.#url.protocol === "https:";
      const request = (secure ? https : http).request(this.#options(exchange));
      let connected = false;
      let response: http.IncomingMessage | undefined;
      let settled = false;
      const timers: NodeJS.Timeout[] = [];
      const finish = (settle: () => void) => {
        if (settled) return;
        settled = true;
        timers.forEach(clearTimeout);
        exchange.signal?.removeEventListener("abort", onAbort);
        settle();
      };
      const fail = (kind: FailureKind, message: string, cause?: unknown) =>
        finish(() => {
          reject(new TransportFailure(kind, message, connected, cause));
          request.destroy();
        });
      const onAbort = () =>
        finish(() => {
          reject(exchange.signal?.reason);
          request.destroy();
        });
      const after = (milliseconds: number, message: string, moot: () => boolean) =>
        timers.push(setTimeout(() => moot() || fail("timeout", message), Math.max(0, milliseconds)));
      after(exchange.timeout, "no answer in time", () => false);
      if (exchange.connectTimeout < exchange.timeout) {
        after(exchange.connectTimeout, "no connection in time", () => connected);
      }
      if (exchange.signal?.aborted === true) onAbort();
      exchange.signal?.addEventListener("abort", onAbort, { once: true });

      let given = false;
      request.on("socket", (socket: Socket) => {
        // Deno sends a request again by itself when a kept connection is lost. What is sent again is decided elsewhere.
        if (given) return fail("lost", "the connection was lost");
        given = true;
        if (request.reusedSocket || !socket.connecting) connected = true;
        else socket.once(secure ? "secureConnect" : "connect", () => (connected = true));
      });
      request.on("upgrade", (_, socket) => {
        socket.destroy();
        fail("garbled", "the answer changes the protocol");
      });
      request.on("error", (error: NodeJS.ErrnoException) => {
        // Behind a whole answer nothing can be wrong with it; the connection is closed all the same.
        if (response?.complete === true) return;
        const [kind, message] = kindOf(error, connected, response !== undefined, secure);
        fail(kind, message, error);
      });
      request.on("response", (message) => {
        response = message;
        const chunks: Buffer[] = [];
        let size = 0;
        message.on("data", (chunk: Buffer) => {
          size += chunk.length;
          if (size > MAX_ANSWER) fail("garbled", `the answer is larger than ${MAX_ANSWER} bytes`);
          else chunks.push(chunk);
        });
        message.on("error", (error) => fail("half", "the connection was lost within the answer", error));
        message.on("close", () => fail("half", "the connection was lost within the answer"));
        message.on("end", () => {
          if (!message.complete) return;
          const { statusCode: status = 0, headers } = message;
          finish(() => resolve({ status, headers, body: Buffer.concat(chunks) }));
        });
      });
      request.end(exchange.body);
    });
  }

  #options(exchange: Exchange): https.RequestOptions {
    const { method, path, body } = exchange;
    const headers: http.OutgoingHttpHeaders = {
      Authorization: `Bearer ${this.#token}`,
      Accept: "application/json",
      "User-Agent": USER_AGENT,
    };
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      headers["Content-Length"] = body.length;
    }
    return {
      agent: exchange.fresh === true ? this.#fresh : this.#agent,
      hostname: this.#url.hostname.replace(/^\[|\]$/g, ""),
      port: this.#url.port,
      path: this.#url.pathname.replace(/\/+$/, "") + path,
      method,
      headers,
    };
  }
}

function kindOf(
  error: NodeJS.ErrnoException,
  connected: boolean,
  began: boolean,
  secure: boolean,
): [kind: FailureKind, message: string] {
  const code = error.code ?? "";
  if (began) return ["half", "the connection was lost within the answer"];
  if (code.startsWith("HPE_")) return ["garbled", "the answer is no HTTP"];
  if (connected) return ["lost", "the connection was lost"];
  if (secure && !NO_CONNECTION.has(code)) return ["tls", `the gateway's certificate does not hold (${code || error.message})`];
  return ["connect", `the gateway cannot be reached (${code || error.message})`];
}

/** The usual roots, those of `NODE_EXTRA_CA_CERTS` included where the platform tells them. */
function usualRoots(): readonly string[] {
  const platform = tls as typeof tls & { getCACertificates?: (type: "default") => string[] };
  return platform.getCACertificates?.("default") ?? tls.rootCertificates;
}

const MAX_ANSWER = 1024 * 1024;
const USER_AGENT = "aegis-sdk-typescript";
/** Everything else that ends a handshake is about TLS. */
const NO_CONNECTION = new Set([
  ...["ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "ENOTFOUND", "EAI_AGAIN", "EAI_FAIL", "EHOSTUNREACH"],
  ...["ENETUNREACH", "ENETDOWN", "EHOSTDOWN", "EADDRNOTAVAIL", "ETIMEDOUT", "EPIPE", "EMFILE", "ENFILE", "EACCES"],
]);

/** Wraps a function so that it runs only when the gateway says so. */

import type { Decision } from "./answers.js";
import { templateVariables, type Binding } from "./bind.js";
import { isRisk, type Risk } from "./catalog.js";
import { AegisClient, type Outcome } from "./client.js";
import { ConfigurationError } from "./errors.js";
import { StreamDigest, completed } from "./result.js";
import { ask, permit, type Call, type OnPending } from "./run.js";
import { currentSourceTrust, leastTrusted, type SourceTrust } from "./trust.js";

/** How a function is protected. */
export interface ProtectOptions<A extends object = Record<string, unknown>> {
  client: AegisClient;
  /** System, e.g. `github`. */
  tool: string;
  /** Catalog name, e.g. `merge_pull_request`. */
  action: string;
  /** The least risk that the author expects; a catalog that says less is an error. */
  risk?: Risk | undefined;
  /** Template of the resource over the names of the arguments, e.g. `{repo}#{pr_number}`. Default: the catalog's. */
  resource?: string | undefined;
  /**
   * Arguments that are neither sent nor bound by the hash: connections, loggers. They reach the function as they
   * are. Each has to be given, if only as `undefined`: a misspelt name would send what was meant to stay here.
   */
  exclude?: readonly (keyof NoInfer<A> & string)[] | undefined;
  /** Values for arguments that are not given. Defaults in a parameter pattern cannot be seen, and are not bound by the hash. */
  defaults?: Readonly<Partial<NoInfer<A>>> | undefined;
  /** How far the source of the arguments can be trusted. */
  sourceTrust?: SourceTrust | undefined;
  onPending?: OnPending | undefined;
  /** Gets every decision that counts: that of the question, and that of using an approval up. */
  onDecision?: ((decision: Decision) => void) | undefined;
  /** The function returns an iterator. Known by itself of generator functions, but not of what a compiler made of them. */
  stream?: boolean | undefined;
}

/** What can be said for a single call. */
export interface CallOptions {
  /** Of this, the wrapper's and the context's, the least trusted is sent. */
  sourceTrust?: SourceTrust | undefined;
  onPending?: OnPending | undefined;
  /** Ends the call as long as the function does not run. */
  signal?: AbortSignal | undefined;
}

/** What a protected function returns: a promise, or an asynchronous generator for either kind of generator. */
export type Protected<R> =
  R extends AsyncGenerator<infer T, infer TReturn, infer TNext>
    ? AsyncGenerator<T, TReturn, TNext>
    : R extends Generator<infer T, infer TReturn, infer TNext>
      ? AsyncGenerator<Awaited<T>, Awaited<TReturn>, TNext>
      : Promise<Awaited<R>>;

type Parameters<A> = Record<string, never> extends A ? [args?: A, options?: CallOptions] : [args: A, options?: CallOptions];

/** A function that asks first. */
export interface ProtectedTool<A, R, This = unknown> {
  (this: This, ...parameters: Parameters<A>): Protected<R>;
  /** Asks and returns the decision, without running anything. */
  dryRun(...parameters: Parameters<A>): Promise<Decision>;
}

/**
 * Protects a function of one object argument. Before its body runs the gateway is asked, and people where
 * it says so; whatever goes wrong is an {@link AegisError} and the body does not run. It runs on copies of
 * the arguments that were hashed, so a change behind its back changes nothing.
 */
export function protectTool<A extends object, R, This = unknown>(
  options: ProtectOptions<A>,
  fn: (this: This, args: A) => R,
): ProtectedTool<A, R, This> {
  const binding = bindingOf(options);
  if (typeof fn !== "function") throw new ConfigurationError("`protectTool` takes a function");
  const callOf = (args: unknown, own: CallOptions): Call => ({
    client: options.client,
    binding,
    args,
    // Taken when the function is called: a stream may be read in another context.
    sourceTrust: leastTrusted(options.sourceTrust, own.sourceTrust, currentSourceTrust()),
    onPending: own.onPending ?? options.onPending,
    onDecision: options.onDecision,
    signal: own.signal,
  });
  const streams = options.stream ?? /^\[object (Async)?GeneratorFunction\]$/.test(Object.prototype.toString.call(fn));
  const run = streams ? runStream : runOnce;
  const wrapped = function (this: This, args?: A, own: CallOptions = {}): unknown {
    return run(() => callOf(args, own), (given) => fn.call(this, given as A));
  };
  Object.defineProperty(wrapped, "name", { value: fn.name, configurable: true });
  const dryRun = async (args?: A, own: CallOptions = {}) => (await ask(callOf(args, own), true)).decision;
  return Object.assign(wrapped, { dryRun }) as ProtectedTool<A, R, This>;
}

type Body = (given: Record<string, unknown>) => unknown;

async function runOnce(callOf: () => Call, body: Body): Promise<unknown> {
  const call = callOf();
  const { decision, given } = await permit(call);
  const { client } = call;
  let result: unknown;
  try {
    result = await body(given);
  } catch (e) {
    await client.reportOutcome(decision.decisionId, { status: "failed" });
    throw e;
  }
  if (isIterator(result)) {
    client.warn(`a function protected as one that returns a value returned an iterator; give \`stream: true\``);
    await client.reportOutcome(decision.decisionId, { status: "completed" });
  } else {
    await client.reportOutcome(decision.decisionId, completed(result));
  }
  return result;
}

function runStream(callOf: () => Call, body: Body): AsyncGenerator<unknown, unknown, unknown> {
  const call = callOf();
  return (async function* () {
    const { decision, given } = await permit(call);
    const digest = new StreamDigest();
    // A reader that leaves early has not seen all that a digest would stand for.
    let outcome: Outcome = { status: "completed" };
    try {
      const result = yield* relay(await body(given), digest);
      outcome = digest.completed();
      return result;
    } catch (e) {
      outcome = { status: "failed" };
      throw e;
    } finally {
      await call.client.reportOutcome(decision.decisionId, outcome);
    }
  })();
}

/** Passes items on, and what the reader says back. */
async function* relay(source: unknown, digest: StreamDigest): AsyncGenerator<unknown, unknown, unknown> {
  const iterator = iteratorOf(source);
  // Also while it is at work: what it throws itself needs no cleaning up.
  let ended = true;
  const advance = async (step: ReturnType<AnyIterator["next"]>) => {
    const { done = false, value } = await step;
    ended = done;
    return (await value) as unknown;
  };
  try {
    let item = await advance(iterator.next());
    while (!ended) {
      digest.add(item);
      let resume: () => ReturnType<AnyIterator["next"]>;
      try {
        const said: unknown = yield item;
        resume = () => iterator.next(said);
      } catch (e) {
        if (iterator.throw === undefined) throw e;
        resume = () => iterator.throw!(e);
      }
      ended = true;
      item = await advance(resume());
    }
    return item;
  } finally {
    // The reader stopped: let the function clean up.
    if (!ended) await iterator.return?.();
  }
}

type AnyIterator = {
  next(said?: unknown): IteratorResult<unknown> | Promise<IteratorResult<unknown>>;
  return?(value?: unknown): unknown;
  throw?(e: unknown): IteratorResult<unknown> | Promise<IteratorResult<unknown>>;
};

function iteratorOf(source: unknown): AnyIterator {
  const iterable = source as { [Symbol.asyncIterator]?: () => AnyIterator; [Symbol.iterator]?: () => AnyIterator };
  const iterator = iterable?.[Symbol.asyncIterator]?.() ?? iterable?.[Symbol.iterator]?.();
  if (iterator === undefined) throw new TypeError("a function protected as a stream returned nothing to iterate over");
  return iterator;
}

function isIterator(value: unknown): boolean {
  if (typeof value !== "object" || value === null || !("next" in value)) return false;
  return typeof value.next === "function" && (Symbol.iterator in value || Symbol.asyncIterator in value);
}

function bindingOf<A extends object>(options: ProtectOptions<A>): Binding {
  const { client, tool, action, risk, resource, exclude = [], defaults = {}, sourceTrust } = options;
  if (!(client instanceof AegisClient)) throw new ConfigurationError("`client` must be an AegisClient");
  for (const [field, name] of Object.entries({ tool, action })) {
    if (typeof name !== "string" || !/^[A-Za-z0-9_.-]{1,128}$/.test(name)) {
      throw new ConfigurationError(`\`${field}\` must be 1 to 128 ASCII letters, digits, \`_\`, \`-\` or \`.\``);
    }
  }
  if (risk !== undefined && !isRisk(risk)) throw new ConfigurationError("`risk` must be low, medium, high or critical");
  leastTrusted(sourceTrust);
  const excluded = new Set<string>(exclude);
  const missing = resource === undefined ? undefined : templateVariables(resource).find((name) => excluded.has(name));
  if (missing !== undefined) throw new ConfigurationError(`\`${missing}\` is part of the resource and cannot be excluded`);
  return { tool, action, risk, resource, exclude: excluded, defaults: { ...defaults } };
}

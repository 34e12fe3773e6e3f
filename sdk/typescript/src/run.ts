/** One call: from arguments to the permission to run, or an error. */

import type { Decision } from "./answers.js";
import { prepare, readArguments, type Binding, type Bound, type Prepared } from "./bind.js";
import type { CatalogEntry } from "./catalog.js";
import type { AegisClient } from "./client.js";
import {
  ActionHashMismatchError,
  AegisError,
  ApprovalCancelledError,
  ApprovalExpiredError,
  ApprovalRejectedError,
  ApprovalReplayedError,
  ApprovalStaleError,
  ApprovalTimeoutError,
  DeniedError,
  GatewayTimeoutError,
  UnexpectedAnswerError,
  type ErrorDetails,
} from "./errors.js";
import { now, sleep } from "./gateway.js";
import type { SourceTrust } from "./trust.js";

/** An approval that is waited for. */
export interface PendingApproval {
  readonly approvalId: string;
  /** Groups that have to agree, joined by a comma. */
  readonly approverGroup: string | undefined;
  readonly expiresAt: Date | undefined;
  /** The decision that asks for it. */
  readonly decision: Decision;
}

/** Called when a call has to wait for people, who may answer before its promise is settled. What it throws ends the call. */
export type OnPending = (pending: PendingApproval) => void | Promise<void>;

/** A call that is about to be asked about. */
export interface Call {
  readonly client: AegisClient;
  readonly binding: Binding;
  readonly args: unknown;
  readonly sourceTrust: SourceTrust | undefined;
  readonly onPending: OnPending | undefined;
  readonly onDecision: ((decision: Decision) => void) | undefined;
  readonly signal: AbortSignal | undefined;
}

/** The function may run once, with exactly these arguments. */
export interface Permission {
  readonly decision: Decision;
  readonly given: Record<string, unknown>;
}

/** What was asked, and what the gateway said. */
export interface Asked {
  readonly decision: Decision;
  readonly prepared: Prepared;
  readonly entry: CatalogEntry;
}

/** Asks only. */
export async function ask(call: Call, dryRun: boolean): Promise<Asked> {
  const { client, binding, sourceTrust, signal } = call;
  signal?.throwIfAborted();
  const deadline = now() + client.timeout;
  const read = readNow(call);
  const entry = await abortable(client.action(binding.tool, binding.action, { deadline }), signal);
  const prepared = prepare(binding, entry, read());
  const options = { sourceTrust, dryRun, signal, deadline, actionHash: prepared.hash };
  const decision = await client.authorize(prepared.call, options);
  call.onDecision?.(decision);
  return { decision, prepared, entry };
}

/** Asks, waits for people where that is needed, and returns only if the function may run. */
export async function permit(call: Call): Promise<Permission> {
  const { decision, prepared, entry } = await ask(call, false);
  const known = knownOf(decision);
  switch (decision.decision) {
    case "deny":
      throw new DeniedError(decision.message, { ...known, reason: decision.reason, status: 200 });
    case "allow":
      return { decision, given: unchanged(call, entry, known).given };
    case "require_approval": {
      const approvalId = await approved(call, decision, known);
      const details = { ...known, approvalId };
      unchanged(call, entry, details);
      const used = await call.client.consume(approvalId, prepared.call, { known, actionHash: prepared.hash });
      call.onDecision?.(used);
      const usedDetails = { ...knownOf(used), approvalId, reason: used.reason, status: 200 };
      if (used.decision === "deny") throw new DeniedError(used.message, usedDetails);
      if (used.decision !== "allow") throw new ApprovalStaleError(used.message, usedDetails);
      return { decision: used, given: unchanged(call, entry, { ...knownOf(used), approvalId }).given };
    }
  }
}

/** Reads the arguments at once; what is wrong with them is said later, behind what is wrong with the catalog. */
function readNow({ binding, args }: Call): () => Bound {
  try {
    const bound = readArguments(binding, args);
    return () => bound;
  } catch (e) {
    return () => {
      throw e;
    };
  }
}

/** The arguments as they are now, if they still make the action that was decided on. */
function unchanged(call: Call, entry: CatalogEntry, known: ErrorDetails): Bound {
  let again: Prepared;
  try {
    again = prepare(call.binding, entry, readArguments(call.binding, call.args));
  } catch (e) {
    if (!(e instanceof AegisError)) throw e;
    throw new ActionHashMismatchError(`the arguments changed meanwhile: ${e.message}`, { ...known, cause: e });
  }
  if (again.hash !== known.actionHash) throw new ActionHashMismatchError("the arguments changed meanwhile", known);
  return again.bound;
}

/** Waits for people; the id of the approval that they gave. */
async function approved(call: Call, decision: Decision, base: ErrorDetails): Promise<string> {
  const { client, signal } = call;
  const { approval } = decision;
  if (approval === undefined) throw new UnexpectedAnswerError("the gateway asks for an approval and names none", base);
  const { approvalId, approverGroup } = approval;
  const known = { ...base, approvalId };
  const givenUp = now() + client.approvalTimeout;
  let expiresAt = approval.expiresAt;
  let failed: { cause: unknown } | undefined;
  if (call.onPending !== undefined) {
    const end = expiresAt === undefined ? undefined : new Date(expiresAt);
    Promise.resolve(call.onPending({ approvalId, approverGroup, expiresAt: end, decision })).catch((cause: unknown) => (failed = { cause }));
  }
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 1.5, LONGEST_PAUSE_MS)) {
    const expired = expiresAt === undefined ? Number.POSITIVE_INFINITY : now() + client.millisecondsUntil(expiresAt);
    const end = Math.min(givenUp, expired);
    const over = () =>
      expired <= givenUp
        ? new ApprovalExpiredError("the approval expired before anyone agreed", known)
        : new ApprovalTimeoutError("nobody has agreed in time; the approval is still pending", known);
    await sleep(Math.max(0, Math.min(pause, end - now())), signal);
    // The last question may be asked at the very end, and gets a moment for its answer.
    const deadline = Math.min(now() + client.timeout, Math.max(end, now() + LAST_ANSWER_MS));
    const state = await client.approval(approvalId, decision.actionHash, { known, signal, deadline }).catch((e: unknown) => {
      if (e instanceof GatewayTimeoutError && now() >= end) throw over();
      throw e;
    });
    if (failed !== undefined) throw failed.cause;
    switch (state.status) {
      case "approved":
        return approvalId;
      case "rejected":
        throw new ApprovalRejectedError("the approval was rejected", known);
      case "expired":
        throw new ApprovalExpiredError("the approval expired", known);
      case "cancelled":
        throw new ApprovalCancelledError("the approval was cancelled", known);
      case "consumed":
        throw new ApprovalReplayedError("the approval was used before", known);
      case "pending":
        if (now() >= end) throw over();
        expiresAt = state.expiresAt ?? expiresAt;
    }
  }
}

function knownOf(decision: Decision): ErrorDetails {
  const { decisionId, actionHash, receipt, approval } = decision;
  return { decisionId, actionHash, receiptId: receipt.receiptId, approvalId: approval?.approvalId };
}

/** A promise that an abort ends sooner, with the signal's reason. */
async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  signal.throwIfAborted();
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5000;
const LAST_ANSWER_MS = 1000;

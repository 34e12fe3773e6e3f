/** Answers of the gateway, taken only where they say all that they have to say. */

import { isPlainObject } from "./action.js";
import { CANON_VERSION, type JsonObject } from "./canon.js";
import { isRisk, type Risk } from "./catalog.js";
import { ActionHashMismatchError, UnexpectedAnswerError, type ErrorDetails } from "./errors.js";
import { SOURCE_TRUST, type SourceTrust } from "./trust.js";

/** What the gateway decided. */
export interface Decision {
  readonly decisionId: string;
  readonly decision: "allow" | "deny" | "require_approval";
  /** Stable code, e.g. `allowed`, `no_permit`. */
  readonly reason: string;
  /** One sentence for people. */
  readonly message: string;
  /** SHA-256 of the canonical action; the one that was computed here. */
  readonly actionHash: string;
  /** Ids of the policies that decided. */
  readonly matchedPolicies: readonly string[];
  readonly risk: { readonly level: Risk; readonly class: string } | undefined;
  readonly effectiveTrust: SourceTrust | undefined;
  /** The approval that is waited for, or that was used. */
  readonly approval: ApprovalSummary | undefined;
  readonly receipt: Receipt;
  /** Whether it was only asked. */
  readonly dryRun: boolean;
}

/** Where something is on record. */
export interface Receipt {
  readonly receiptId: string;
  readonly receiptHash: string;
  readonly prevReceiptHash: string;
}

/** An approval in a decision. */
export interface ApprovalSummary {
  readonly approvalId: string;
  readonly status: string;
  /** Groups that have to agree, joined by a comma. */
  readonly approverGroup: string | undefined;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number | undefined;
}

/** An approval's present state. */
export interface ApprovalState {
  readonly approvalId: string;
  readonly status: "pending" | "approved" | "rejected" | "expired" | "consumed" | "cancelled";
  readonly actionHash: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number | undefined;
}

/** Reads a decision about the action of `actionHash`. `before` is what errors say where the answer says nothing. */
export function readDecision(body: JsonObject, actionHash: string, dryRun: boolean, before: ErrorDetails = {}): Decision {
  const receipt = readReceipt(body["receipt"]);
  const decisionId = identifier(body["decision_id"]);
  const known: ErrorDetails = {
    reason: text(body["reason"]),
    status: 200,
    decisionId: decisionId ?? before.decisionId,
    receiptId: receipt?.receiptId ?? before.receiptId,
    approvalId: before.approvalId,
    actionHash,
  };
  const wrong = (what: string) => new UnexpectedAnswerError(`the gateway's decision does not count: ${what}`, known);
  const { decision, action_hash: hash } = body;
  if (decision !== "allow" && decision !== "deny" && decision !== "require_approval") throw wrong("unknown `decision`");
  if (body["canon_version"] !== CANON_VERSION) throw wrong(`\`canon_version\` is not \`${CANON_VERSION}\``);
  if (body["dry_run"] !== dryRun) throw wrong("`dry_run` is not what was asked for");
  if (decisionId === undefined) throw wrong("`decision_id` is missing");
  if (receipt === undefined) throw wrong("`receipt` is missing");
  if (typeof hash !== "string") throw wrong("`action_hash` is missing");
  if (hash !== actionHash) {
    throw new ActionHashMismatchError("the gateway decided about another action than the one that was asked about", known);
  }
  const { reason, message, matched_policies: policies, effective_trust: trust } = body;
  return {
    decisionId,
    decision,
    reason: text(reason) ?? "",
    message: text(message) ?? "",
    actionHash,
    matchedPolicies: Array.isArray(policies) ? policies.filter((policy) => typeof policy === "string") : [],
    risk: readRisk(body["risk"]),
    effectiveTrust: SOURCE_TRUST.find((label) => label === trust),
    approval: readSummary(body["approval"], actionHash, known),
    receipt,
    dryRun,
  };
}

/** Reads the state of the approval that was asked for. */
export function readApproval(body: JsonObject, approvalId: string, actionHash: string, known: ErrorDetails): ApprovalState {
  const { status, action_hash: hash } = body;
  if (typeof hash !== "string" || body["approval_id"] !== approvalId || !isStatus(status)) {
    throw new UnexpectedAnswerError("the gateway's answer is not the approval that was asked for", known);
  }
  if (hash !== actionHash) {
    throw new ActionHashMismatchError("the approval is for another action than the one that was asked about", known);
  }
  return { approvalId, status, actionHash, expiresAt: instant(body["expires_at"]) };
}

function readSummary(value: unknown, actionHash: string, known: ErrorDetails): ApprovalSummary | undefined {
  if (value === undefined || value === null) return undefined;
  const approvalId = isPlainObject(value) ? identifier(value["approval_id"]) : undefined;
  if (!isPlainObject(value) || approvalId === undefined || typeof value["action_hash"] !== "string") {
    throw new UnexpectedAnswerError("the gateway's decision does not count: `approval` is none", known);
  }
  if (value["action_hash"] !== actionHash) {
    const details = { ...known, approvalId };
    throw new ActionHashMismatchError("the approval is for another action than the one that was asked about", details);
  }
  const { status, approver_group: approverGroup, expires_at: expiresAt } = value;
  return { approvalId, status: text(status) ?? "", approverGroup: text(approverGroup), expiresAt: instant(expiresAt) };
}

function readReceipt(value: unknown): Receipt | undefined {
  if (!isPlainObject(value)) return undefined;
  const { receipt_hash: receiptHash, prev_receipt_hash: prevReceiptHash } = value;
  const receiptId = identifier(value["receipt_id"]);
  if (receiptId === undefined) return undefined;
  if (typeof receiptHash !== "string" || typeof prevReceiptHash !== "string") return undefined;
  return { receiptId, receiptHash, prevReceiptHash };
}

function readRisk(value: unknown): Decision["risk"] {
  if (!isPlainObject(value)) return undefined;
  const { level, class: accessClass } = value;
  return isRisk(level) && typeof accessClass === "string" ? { level, class: accessClass } : undefined;
}

function isStatus(value: unknown): value is ApprovalState["status"] {
  return (STATUSES as readonly unknown[]).includes(value);
}

/** An id that can stand in a path as it is. */
function identifier(value: unknown): string | undefined {
  return typeof value === "string" && /^[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,255}$/.test(value) ? value : undefined;
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function instant(value: unknown): number | undefined {
  const at = typeof value === "string" ? Date.parse(value) : Number.NaN;
  return Number.isNaN(at) ? undefined : at;
}

const STATUSES = ["pending", "approved", "rejected", "expired", "consumed", "cancelled"] as const;

/** Asks the Aegis gateway before a function of yours runs. See the README. */

export { BULK_THRESHOLD, ToolCallError, canonicalToolCall, hashToolCall, type ToolCall } from "./action.js";
export type { ApprovalState, ApprovalSummary, Decision, Receipt } from "./answers.js";
export {
  CANON_VERSION,
  CanonError,
  canonicalText,
  canonicalize,
  sha256Hex,
  type CanonReason,
  type JsonObject,
  type JsonValue,
} from "./canon.js";
export type { CatalogEntry, Risk } from "./catalog.js";
export { AegisClient, type AuthorizeOptions, type ClientOptions, type Outcome } from "./client.js";
export * from "./errors.js";
export { parseStrict } from "./json.js";
export {
  protectTool,
  type CallOptions,
  type ProtectOptions,
  type Protected,
  type ProtectedTool,
} from "./protect.js";
export type { OnPending, PendingApproval } from "./run.js";
export { SOURCE_TRUST, currentSourceTrust, lowerSourceTrust, withSourceTrust, type SourceTrust } from "./trust.js";

/** How far the content that drives an agent can be trusted: said by an argument or by the asynchronous context. */

import { AsyncLocalStorage } from "node:async_hooks";

import { ConfigurationError } from "./errors.js";

/** All labels, most trusted first. */
export const SOURCE_TRUST = [
  "trusted_internal_signed",
  "trusted_internal_unsigned",
  "semi_trusted_customer",
  "untrusted_external",
  "malicious_suspected",
  "unknown",
] as const;

/** Source trust, as it is written on the wire. */
export type SourceTrust = (typeof SOURCE_TRUST)[number];

/** The least trusted of what is said; nothing said contributes nothing. */
export function leastTrusted(...labels: (SourceTrust | undefined | null)[]): SourceTrust | undefined {
  let worst: SourceTrust | undefined;
  for (const label of labels) {
    if (label === undefined || label === null) continue;
    const known = checkedTrust(label);
    if (worst === undefined || SOURCE_TRUST.indexOf(known) > SOURCE_TRUST.indexOf(worst)) worst = known;
  }
  return worst;
}

/** Runs `fn`, and everything it starts, under a label. Within another label, the least trusted holds. */
export function withSourceTrust<R>(trust: SourceTrust, fn: () => R): R {
  return context.run(leastTrusted(context.getStore(), trust), fn);
}

/** Lowers trust for the rest of the present asynchronous context, e.g. once a foreign page was read. Never raises it. */
export function lowerSourceTrust(trust: SourceTrust): void {
  context.enterWith(leastTrusted(context.getStore(), trust));
}

/** The label of the present asynchronous context. */
export function currentSourceTrust(): SourceTrust | undefined {
  return context.getStore();
}

/** Throws for anything but a label. */
export function checkedTrust(label: string): SourceTrust {
  if (!(SOURCE_TRUST as readonly string[]).includes(label)) {
    throw new ConfigurationError(`unknown source trust \`${label}\`: one of ${SOURCE_TRUST.join(", ")}`);
  }
  return label as SourceTrust;
}

const context = new AsyncLocalStorage<SourceTrust | undefined>();

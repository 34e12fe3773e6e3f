/** Outcomes and the intents they name, in bounded memory. */

import { LeafFault, entryLink, type LeafView } from "./leaf.js";

interface Waiting {
  readonly decisionId: string;
  readonly forwarded: boolean;
}

/** What an outcome's reference is worth; `undefined` where it holds. */
type Flaw = { readonly odd: number } | { readonly broken: string };

/** Allowed intents that wait for an outcome. */
export class Links {
  /** By sequence number, in order. */
  readonly #open = new Map<number, Waiting>();
  /** Intents up to here may have been forgotten. */
  #forgotten = -1;
  #forgottenForwarded = 0;

  /** Follows a leaf; what is odd and no tampering is returned. */
  follow(view: LeafView): string | undefined {
    let worst: Flaw | undefined;
    switch (view.type) {
      case "intent.v1":
        this.#intent(view);
        break;
      case "outcome.v1":
        if (view.intentSeq === undefined || view.decisionId === undefined) {
          throw new LeafFault("its reference to an intent is missing");
        }
        worst = this.#outcome(view.seq, view.intentSeq, view.decisionId);
        break;
      case "outcomes.v1":
        worst = this.#outcomes(view);
        break;
      default:
    }
    if (worst === undefined) return undefined;
    if ("broken" in worst) throw new LeafFault(worst.broken);
    return `leaf ${view.seq} has an outcome for leaf ${worst.odd}, which does not wait for one`;
  }

  /** Allowed intents of the gateway's own doors that have no outcome. */
  withoutOutcome(): number {
    let count = this.#forgottenForwarded;
    for (const waiting of this.#open.values()) count += waiting.forwarded ? 1 : 0;
    return count;
  }

  #intent(view: LeafView): void {
    if (view.decision === undefined || view.decisionId === undefined) {
      throw new LeafFault("`decision` or `decision_id` is missing");
    }
    if (view.decision !== "allow" || view.dryRun) return;
    const forwarded = view.door === "route" || view.door === "connect" || view.door === "sql";
    this.#open.set(view.seq, { decisionId: view.decisionId, forwarded });
    if (this.#open.size <= MAX_WAITING) return;
    const [seq, waiting] = this.#open.entries().next().value!;
    this.#open.delete(seq);
    this.#forgotten = seq;
    this.#forgottenForwarded += waiting.forwarded ? 1 : 0;
  }

  #outcomes(view: LeafView): Flaw | undefined {
    if (view.entries === undefined) throw new LeafFault("`entries` is missing");
    if (!Array.isArray(view.entries)) throw new LeafFault("`entries` is no array");
    let worst: Flaw | undefined;
    for (const entry of view.entries) {
      const link = entryLink(entry);
      const flaw =
        link === undefined
          ? { broken: "an entry's reference to an intent is missing" }
          : this.#outcome(view.seq, link.seq, link.decisionId);
      if (flaw !== undefined && !(worst !== undefined && "broken" in worst)) worst = flaw;
    }
    return worst;
  }

  #outcome(ownSeq: number, intentSeq: number, decisionId: string): Flaw | undefined {
    if (intentSeq >= ownSeq) return { broken: `it is the outcome of leaf ${intentSeq}, which is not before it` };
    const waiting = this.#open.get(intentSeq);
    this.#open.delete(intentSeq);
    if (waiting === undefined) return intentSeq <= this.#forgotten ? undefined : { odd: intentSeq };
    return waiting.decisionId === decisionId
      ? undefined
      : { broken: `its \`decision_id\` is not that of leaf ${intentSeq}` };
  }
}

const MAX_WAITING = 1_000_000;

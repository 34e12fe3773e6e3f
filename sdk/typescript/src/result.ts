/** What is said of a result: its digest and size, where it has a canonical form. */

import { createHash, type Hash } from "node:crypto";

import { snapshot } from "./action.js";
import { canonicalText, sha256Hex } from "./canon.js";
import type { Outcome } from "./client.js";

/** The outcome of a function that returned. No result is `null`. */
export function completed(result: unknown): Outcome {
  const text = canonicalOf(result);
  if (text === undefined) return { status: "completed" };
  return { status: "completed", resultDigest: sha256Hex(text), resultBytes: Buffer.byteLength(text) };
}

/** The digest of a stream: each item's canonical bytes, followed by a line feed. */
export class StreamDigest {
  #hash: Hash | undefined = createHash("sha256");
  #bytes = 0;

  add(item: unknown): void {
    if (this.#hash === undefined) return;
    const text = canonicalOf(item);
    if (text === undefined) {
      this.#hash = undefined;
      return;
    }
    this.#hash.update(text).update("\n");
    this.#bytes += Buffer.byteLength(text) + 1;
  }

  /** The outcome of a stream that ended. */
  completed(): Outcome {
    if (this.#hash === undefined) return { status: "completed" };
    return { status: "completed", resultDigest: this.#hash.digest("hex"), resultBytes: this.#bytes };
  }
}

function canonicalOf(value: unknown): string | undefined {
  try {
    return canonicalText(snapshot(value ?? null, 0));
  } catch {
    return undefined;
  }
}

/**
 * Verifies a receipt log or an exported bundle, offline, from its bytes alone.
 *
 * The log is hash-chained, not signed: whoever can rewrite all of it can make another consistent one.
 */

import { readFileSync, statSync } from "node:fs";

import { verifyBundle } from "./bundle.js";
import { verifyDirectory, type Progress } from "./dir.js";
import { osError } from "./errno.js";
import { Report, type Verdict } from "./report.js";

export { verifyBundle, verifyDirectory, Report, type Progress, type Verdict };

/** Verifies a log directory or a bundle file, whichever is there. Reads synchronously. */
export function verifyReceipts(path: string, progress?: (at: Progress) => void): Report {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return verifyDirectory(path, progress);
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (e) {
    return Report.unreadable(`cannot read \`${path}\`: ${osError(e)}`);
  }
  return verifyBundle(bytes);
}

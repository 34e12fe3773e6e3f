#!/usr/bin/env node
/** Verifies a receipt log or an exported bundle, offline: no network, no database, no gateway. */

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { verifyReceipts } from "../verify/index.js";

const USAGE = `Verifies a receipt log directory or an exported bundle.

Exit status: 0 verified, 1 tampered (says which leaf and why), 2 unreadable.

Usage: aegis-verify-receipts [--json] <PATH>

Arguments:
  <PATH>  Directory of a log (with \`segments\` and \`head\` in it), or a bundle file

Options:
      --json     Print the report as JSON
  -h, --help     Print help
  -V, --version  Print version
`;

/** Bytes from which on waiting is worth a progress line. */
const LARGE = 32 * 1024 * 1024;

process.exitCode = main(process.argv.slice(2));

function main(args: string[]): number {
  let parsed;
  try {
    parsed = parseArgs({
      args,
      allowPositionals: true,
      options: {
        json: { type: "boolean" },
        help: { type: "boolean", short: "h" },
        version: { type: "boolean", short: "V" },
      },
    });
  } catch (e) {
    process.stderr.write(`error: ${e instanceof Error ? e.message : String(e)}\n\n${USAGE}`);
    return 2;
  }
  const { values, positionals } = parsed;
  if (values.help === true) {
    process.stdout.write(USAGE);
    return 0;
  }
  if (values.version === true) {
    const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
    process.stdout.write(`aegis-verify-receipts ${String(version)}\n`);
    return 0;
  }
  const [path, ...more] = positionals;
  if (path === undefined || more.length > 0) {
    process.stderr.write(`error: exactly one path is needed\n\n${USAGE}`);
    return 2;
  }
  return verify(path, values.json === true);
}

function verify(path: string, json: boolean): number {
  let shown = false;
  const report = verifyReceipts(path, ({ leaves, bytes, totalBytes }) => {
    if (process.stderr.isTTY !== true || totalBytes <= LARGE) return;
    shown = true;
    process.stderr.write(`\r${String(Math.floor((bytes * 100) / totalBytes)).padStart(3)}%  ${leaves} leaves`);
  });
  if (shown) process.stderr.write("\n");
  // The exit status is the answer, also where nobody reads the text.
  process.stdout.on("error", () => {});
  process.stdout.write(json ? `${report.toJson()}\n` : report.toString());
  return report.exitCode;
}

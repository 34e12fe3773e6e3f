// Compiled and never run: what the types promise.
import { AegisClient, protectTool, withSourceTrust, type Decision } from "../dist/index.js";
import { verifyReceipts, type Report } from "../dist/verify/index.js";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>) => undefined;

const client = new AegisClient({ gatewayUrl: "https://gateway.example", agentToken: "aegis_agt_x" });
const options = { client, tool: "github", action: "merge_pull_request" } as const;
interface Merge {
  repo: string;
  pr_number: number;
  session?: object;
}

const plain = protectTool(options, ({ repo }: Merge) => repo.length);
same<ReturnType<typeof plain>, Promise<number>>(true);
const asynchronous = protectTool(options, async ({ repo }: Merge) => repo);
same<ReturnType<typeof asynchronous>, Promise<string>>(true);
const stream = protectTool(options, function* ({ repo }: Merge) {
  yield repo;
  return 1;
});
same<ReturnType<typeof stream>, AsyncGenerator<string, number, unknown>>(true);
const events = protectTool(options, async function* (_: Merge) {
  yield 1;
});
same<ReturnType<typeof events>, AsyncGenerator<number, void, unknown>>(true);

export async function use(): Promise<void> {
  const merged: number = await plain({ repo: "octo/payments", pr_number: 1 }, { sourceTrust: "untrusted_external" });
  const decision: Decision = await plain.dryRun({ repo: "octo/payments", pr_number: merged });
  // @ts-expect-error: an argument is missing
  await plain({ repo: "octo/payments" });
  // @ts-expect-error: no such label
  await plain({ repo: "octo/payments", pr_number: 1 }, { sourceTrust: "high" });
  protectTool({ ...options, exclude: ["session"], defaults: { pr_number: 1 } }, (args: Merge) => args.session);
  // @ts-expect-error: no such argument
  protectTool({ ...options, exclude: ["sesion"] }, (args: Merge) => args.session);
  // @ts-expect-error: no such risk
  protectTool({ ...options, risk: "none" }, (args: Merge) => args.session);
  const without = protectTool(options, () => decision.receipt.receiptId);
  const id: string = await withSourceTrust("unknown", () => without());
  const report: Report = verifyReceipts(id);
  if (report.verdict.verdict === "tampered") throw new Error(report.verdict.why);
}

/** A catalog entry, as `GET /v1/actions/{tool}.{action}` answers it. */

import { isPlainObject } from "./action.js";

/** How much harm a wrong call does, lowest first. */
export const RISKS = ["low", "medium", "high", "critical"] as const;
/** How much harm a wrong call does. */
export type Risk = (typeof RISKS)[number];

/** What a call to one action looks like. */
export interface CatalogEntry {
  /** `tool.action` */
  readonly name: string;
  /** Template of the resource; `null` where it has to be null. */
  readonly resource: string | null;
  readonly mutatesState: boolean;
  readonly risk: Risk;
  /** Names of the parameters. */
  readonly parameters: ReadonlySet<string>;
  /** Other names that arguments may have, and what the catalog calls them. */
  readonly aliases: ReadonlyMap<string, string>;
}

/** Reads an entry; `undefined` when it is none. */
export function catalogEntry(value: unknown, name: string): CatalogEntry | undefined {
  if (!isPlainObject(value) || value["name"] !== name) return undefined;
  const { resource = null, mutates_state: mutatesState, risk, parameters, aliases = {} } = value;
  if (resource !== null && typeof resource !== "string") return undefined;
  if (typeof mutatesState !== "boolean" || !isRisk(risk) || !isPlainObject(parameters) || !isPlainObject(aliases)) {
    return undefined;
  }
  const renamed = new Map<string, string>();
  for (const [from, to] of Object.entries(aliases)) {
    if (typeof to !== "string") return undefined;
    renamed.set(from, to);
  }
  return { name, resource, mutatesState, risk, parameters: new Set(Object.keys(parameters)), aliases: renamed };
}

export function isRisk(value: unknown): value is Risk {
  return (RISKS as readonly unknown[]).includes(value);
}

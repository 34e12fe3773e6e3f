/** From a function's arguments to the action that the catalog knows. */

import { ToolCallError, checkKey, isPlainObject, sealed, snapshot, type ToolCall } from "./action.js";
import { CanonError, setMember, sha256Hex, type JsonObject, type JsonValue } from "./canon.js";
import { RISKS, type CatalogEntry, type Risk } from "./catalog.js";
import { ConfigurationError, NotCanonicalError } from "./errors.js";

/** What the author of a wrapper says of the function. */
export interface Binding {
  readonly tool: string;
  readonly action: string;
  readonly risk?: Risk | undefined;
  readonly resource?: string | undefined;
  readonly exclude: ReadonlySet<string>;
  readonly defaults: Readonly<Record<string, unknown>>;
}

/** Arguments read once: what is hashed, and what the function is given. */
export interface Bound {
  /** The arguments that are bound by the hash, under the function's own names. */
  readonly values: ReadonlyMap<string, JsonValue>;
  /** What the function is given: copies of these, and the rest as it is. */
  readonly given: Record<string, unknown>;
}

/** An action that was made of arguments. */
export interface Prepared {
  readonly call: ToolCall;
  readonly hash: string;
  readonly bound: Bound;
}

/** Reads the arguments. What has no canonical form is an error that names the argument. */
export function readArguments(binding: Binding, args: unknown): Bound {
  if (args !== undefined && !isPlainObject(args)) {
    throw new ConfigurationError("a protected function takes one plain object with its arguments");
  }
  const values = new Map<string, JsonValue>();
  const given: Record<string, unknown> = {};
  const take = (name: string, value: unknown) => {
    const bound = binding.exclude.has(name) || value === undefined || value === null;
    const read = bound ? value : readOne(name, value);
    if (!bound) values.set(name, read as JsonValue);
    setMember(given, name, read);
  };
  for (const name of Object.keys(args ?? {})) take(name, (args as Record<string, unknown>)[name]);
  for (const name of Object.keys(binding.defaults)) {
    if (!Object.hasOwn(given, name) || given[name] === undefined) take(name, binding.defaults[name]);
  }
  for (const name of binding.exclude) {
    // A misspelt name would send what was meant to stay here.
    if (!Object.hasOwn(given, name)) {
      const what = `\`exclude\` names \`${name}\`, and no argument is called so`;
      throw new ConfigurationError(`${what}; give it as undefined if there is none`);
    }
  }
  return { values, given };
}

/** Makes the action of arguments. */
export function prepare(binding: Binding, entry: CatalogEntry, bound: Bound): Prepared {
  if (binding.risk !== undefined && RISKS.indexOf(entry.risk) < RISKS.indexOf(binding.risk)) {
    throw new ConfigurationError(
      `the catalog gives \`${entry.name}\` the risk \`${entry.risk}\`, and the wrapper expects at least \`${binding.risk}\``,
    );
  }
  const mapped = rename(entry, bound.values);
  const own = binding.resource !== undefined;
  const template = binding.resource ?? entry.resource;
  const used = new Set<string>();
  const argument = (variable: string) => (own ? variable : mapped.from.get(variable));
  const resource = template === null ? null : fill(template, argument, bound.values, used);
  const parameters: JsonObject = {};
  for (const [name, from] of mapped.from) {
    if (!used.has(from)) setMember(parameters, name, bound.values.get(from)!);
  }
  const { tool, action } = binding;
  const call: ToolCall = { tool, action, resource, mutates_state: entry.mutatesState, parameters };
  return { call, hash: hashOf(call), bound };
}

/** `prNumber` and `PRNumber` are `pr_number`; letters beyond ASCII stay. */
export function snakeCase(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replace(/([A-Z])([A-Z][a-z])/g, "$1_$2")
    .replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** Names in `{}` of a template. */
export function templateVariables(template: string): string[] {
  return Array.from(template.matchAll(VARIABLE), (match) => match[1]!);
}

function readOne(name: string, value: unknown): JsonValue {
  try {
    checkKey(name);
    if (!name.isWellFormed()) throw new CanonError("syntax", "its name has a lone surrogate");
    // An argument stands in `parameters`, which stands in the action.
    return readReserved(snapshot(value, 2));
  } catch (e) {
    if (!(e instanceof CanonError)) throw e;
    throw new NotCanonicalError(`argument \`${name}\`: ${e.message}`, { reason: e.reason, cause: e });
  }
}

function readReserved(value: JsonValue): JsonValue {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) value.forEach(readReserved);
  else {
    for (const key of Object.keys(value)) {
      checkKey(key);
      readReserved(value[key]!);
    }
  }
  return value;
}

/** The catalog's names for the arguments, and which argument each of them is. */
function rename(entry: CatalogEntry, values: ReadonlyMap<string, JsonValue>): { from: Map<string, string> } {
  const variables = new Set(entry.resource === null ? [] : templateVariables(entry.resource));
  const known = (name: string) => entry.parameters.has(name) || variables.has(name);
  const from = new Map<string, string>();
  for (const argument of values.keys()) {
    const snake = snakeCase(argument);
    const name = known(argument)
      ? argument
      : (entry.aliases.get(argument) ?? (known(snake) ? snake : (entry.aliases.get(snake) ?? argument)));
    const other = from.get(name);
    if (other !== undefined) {
      const both = `the arguments \`${other}\` and \`${argument}\``;
      throw new ConfigurationError(`${both} are both \`${name}\` of \`${entry.name}\``);
    }
    from.set(name, argument);
  }
  return { from };
}

/** Fills a template in. `argument` says which argument stands for a variable. */
function fill(
  template: string,
  argument: (variable: string) => string | undefined,
  values: ReadonlyMap<string, JsonValue>,
  used: Set<string>,
): string {
  const value = (variable: string): string => {
    const from = argument(variable);
    const found = from === undefined ? undefined : values.get(from);
    if (from === undefined || found === undefined) {
      throw new ConfigurationError(`the resource \`${template}\` needs \`${variable}\`, and no argument is called so`);
    }
    if (typeof found !== "string" && !Number.isSafeInteger(found)) {
      throw new ConfigurationError(`argument \`${from}\` is part of the resource and must be a string or an integer`);
    }
    used.add(from);
    return String(found);
  };
  const split = ownerAndRepo(template, argument, values);
  return template.replaceAll(VARIABLE, (_, variable: string) => {
    const part = split?.parts.get(variable);
    if (split === undefined || part === undefined) return value(variable);
    used.add(split.from);
    return part;
  });
}

/** For `{owner}/{repo}` without an owner: the part of the repo before its only slash is the owner. */
function ownerAndRepo(
  template: string,
  argument: (variable: string) => string | undefined,
  values: ReadonlyMap<string, JsonValue>,
): { from: string; parts: Map<string, string> } | undefined {
  const [owner, from] = [argument("owner"), argument("repo")];
  const repo = from === undefined ? undefined : values.get(from);
  if (!template.includes("{owner}/{repo}") || (owner !== undefined && values.has(owner))) return undefined;
  const parts = typeof repo === "string" ? repo.split("/") : [];
  if (from === undefined || parts.length !== 2) return undefined;
  return { from, parts: new Map([["owner", parts[0]!], ["repo", parts[1]!]]) };
}

function hashOf(call: ToolCall): string {
  try {
    return sha256Hex(sealed(call));
  } catch (e) {
    if (e instanceof CanonError) {
      throw new NotCanonicalError(`the arguments together: ${e.message}`, { reason: e.reason, cause: e });
    }
    if (e instanceof ToolCallError && e.reason === "bad_resource") {
      throw new NotCanonicalError(e.message, { reason: e.reason, cause: e });
    }
    if (e instanceof ToolCallError) throw new ConfigurationError(e.message, { cause: e });
    throw e;
  }
}

const VARIABLE = /\{([^{}]*)\}/g;

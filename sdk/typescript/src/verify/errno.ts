/** The operating system's errors, in its own words. */

/** As the Rust program words it: text and number. */
export function osError(error: unknown): string {
  const { code, errno } = error as NodeJS.ErrnoException;
  const words = WORDS.get(code ?? "");
  if (words === undefined || errno === undefined) return error instanceof Error ? error.message : String(error);
  return `${words} (os error ${Math.abs(errno)})`;
}

const WORDS = new Map([
  ["EPERM", "Operation not permitted"],
  ["ENOENT", "No such file or directory"],
  ["EIO", "Input/output error"],
  ["EACCES", "Permission denied"],
  ["ENOTDIR", "Not a directory"],
  ["EISDIR", "Is a directory"],
  ["EMFILE", "Too many open files"],
  ["ENAMETOOLONG", "File name too long"],
  ["ELOOP", "Too many levels of symbolic links"],
]);

//! `cargo xtask catalog github`: generates the GitHub catalog from the vendor's pinned description.
//!
//! Writes `connectors/data/github.jsonl` (one operation a line), `github.lock` (names that
//! were ever published) and `github.uris` (where answers hold URLs). `--check` writes
//! nothing and fails if any of the three would change.

mod classes;
mod names;
mod overrides;
mod resources;
mod spec;
mod types;
mod uris;
mod write;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::Digest as _;

use self::{names::Lock, overrides::Overrides, spec::Spec};

/// Runs the command; the error is for people.
pub fn run(args: &[&str]) -> Result<(), String> {
    let check = match args {
        ["github"] => false,
        ["github", "--check"] => true,
        _ => return Err("usage: cargo xtask catalog github [--check]".into()),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the workspace has no root")?;
    let data = root.join("connectors/data");
    let spec = Spec::parse(&description(&root.join("target/catalog-cache"))?)?;
    let overrides = Overrides::parse(&read(&data.join("github.overrides.toml"))?)?;
    overrides.check(&spec)?;
    let lock_text = fs::read_to_string(data.join("github.lock")).unwrap_or_default();
    let lock = Lock::parse(&lock_text)?;

    let names = names::assign(&spec, &overrides, &lock)?;
    let operations = write::operations(&spec, &overrides, &names.by_operation)?;
    let lock_text = lock.append(&names.added);
    let uris = uris::graph(&spec)?;

    report(&spec, &names, &operations, &uris);
    let files = [("github.jsonl", operations.text), ("github.lock", lock_text), ("github.uris", uris.text)];
    for (name, text) in &files {
        let path = data.join(name);
        let same = fs::read_to_string(&path).is_ok_and(|old| old == *text);
        match (same, check) {
            (true, _) => println!("{name}: unchanged, {} bytes", text.len()),
            (false, true) => return Err(format!("`{name}` is stale: run `cargo xtask catalog github`")),
            (false, false) => {
                fs::write(&path, text).map_err(|e| format!("cannot write `{}`: {e}", path.display()))?;
                println!("{name}: written, {} bytes", text.len());
            }
        }
    }
    Ok(())
}

fn report(spec: &Spec, names: &names::Names, operations: &write::Operations, uris: &uris::Graph) {
    println!("{} operations, {} new names", spec.operations.len(), names.added.len());
    for (class, count) in &operations.classes {
        println!("  {class}: {count}");
    }
    for (operation, member) in &operations.collisions {
        println!("  body member `{member}` of `{operation}` is `body.{member}`: a path variable has its name");
    }
    for operation in &names.removed {
        println!("  removed or renamed upstream: `{operation}` (its name stays taken)");
    }
    println!("{} nodes with URLs below", uris.nodes);
}

/// The OpenAPI document of the pinned package, fetched once and checked every time.
fn description(cache: &Path) -> Result<Vec<u8>, String> {
    fs::create_dir_all(cache).map_err(|e| format!("cannot create `{}`: {e}", cache.display()))?;
    let tarball = cache.join(TARBALL);
    if !tarball.exists() {
        println!("fetching {PACKAGE}");
        output(Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(cache))?;
    }
    let bytes = fs::read(&tarball).map_err(|e| format!("cannot read `{}`: {e}", tarball.display()))?;
    let found = hex::encode(sha2::Sha256::digest(&bytes));
    if found != SHA256 {
        return Err(format!("`{TARBALL}` has SHA-256 `{found}`, pinned is `{SHA256}`"));
    }
    output(Command::new("tar").arg("-xzOf").arg(PathBuf::from(TARBALL)).arg(DOCUMENT).current_dir(cache))
}

fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().map_err(|e| format!("cannot run `{name}`: {e}"))?;
    if out.status.success() {
        Ok(out.stdout)
    } else {
        Err(format!("`{name}` failed: {}", String::from_utf8_lossy(&out.stderr)))
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read `{}`: {e}", path.display()))
}

const PACKAGE: &str = "@octokit/openapi@23.0.2";
const TARBALL: &str = "octokit-openapi-23.0.2.tgz";
const SHA256: &str = "71a18407dd5e8464f4e0525daf03deabbe65abd9287d6adc7b5d98f516cd0d0c";
const DOCUMENT: &str = "package/generated/api.github.com.json";

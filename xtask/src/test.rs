//! `cargo xtask test`: every check there is, on a machine that has only the compilers.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Builds, runs the Rust tests, installs what the Python tests need, runs those, and sums up.
///
/// Steps that do not need a failed one still run, so that one run shows everything.
pub fn run(args: &[&str]) -> Result<(), String> {
    let options = Options::read(args)?;
    let root = root();
    check_tools(&options)?;
    let mut summary = Summary::default();
    if options.rust {
        summary.step("format", || simple(&root, &["fmt", "--all", "--check"], "formatted", "run `cargo fmt --all`"));
        summary.step("rust tests", || rust_tests(&root));
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        summary.step("clippy", || simple(&root, &clippy, "no warnings", "see the warnings above"));
        summary.step("docs", || docs(&root));
        summary.step("layering, licences, sources", || deny(&root));
    }
    if options.python {
        let built = summary.step("build", || build(&root));
        let interpreter = summary.step("test environment", || install(&root));
        if let (Some(()), Some(interpreter)) = (built, interpreter) {
            if options.pytest.is_empty() {
                summary.step("contract of the SDKs", || python_tests(&root, &interpreter, SDK_TESTS));
                summary.step("end-to-end tests", || python_tests(&root, &interpreter, OTHER_TESTS));
            } else {
                let chosen: Vec<&str> = options.pytest.iter().map(String::as_str).collect();
                summary.step("chosen tests", || python_tests(&root, &interpreter, &chosen));
            }
        }
    }
    summary.finish()
}

struct Options {
    rust: bool,
    python: bool,
    /// Handed to pytest as it is.
    pytest: Vec<String>,
}

impl Options {
    fn read(args: &[&str]) -> Result<Self, String> {
        let (ours, pytest) = match args.iter().position(|a| *a == "--") {
            Some(at) => (args.get(..at).unwrap_or_default(), args.get(at + 1..).unwrap_or_default()),
            None => (args, &[][..]),
        };
        let pytest = pytest.iter().map(|a| (*a).to_owned()).collect();
        match ours {
            [] => Ok(Self { rust: true, python: true, pytest }),
            ["--rust"] => Ok(Self { rust: true, python: false, pytest }),
            ["--e2e"] => Ok(Self { rust: false, python: true, pytest }),
            _ => Err("usage: cargo xtask test [--rust | --e2e] [-- <pytest arguments>]".to_owned()),
        }
    }
}

/// What the steps cannot install by themselves, all at once.
fn check_tools(options: &Options) -> Result<(), String> {
    let mut needed = vec!["cmake", "cc"];
    if options.python {
        needed.extend(["python3", "curl", "git", "go", "prlimit"]);
    }
    let missing: Vec<&str> = needed.into_iter().filter(|tool| !on_path(tool)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("please install first: {}", missing.join(", "))) }
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

fn rust_tests(root: &Path) -> Result<Report<()>, String> {
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    let ok = stream(cargo(root).args(["test", "--workspace", "--no-fail-fast"]), |line| {
        if let Some(counts) = line.strip_prefix("test result: ") {
            passed += count(counts, "passed");
            failed += count(counts, "failed");
            ignored += count(counts, "ignored");
        }
    })?;
    let detail = format!("{passed} passed, {failed} failed, {ignored} ignored");
    if ok { Ok(Report { value: (), detail }) } else { Err(detail) }
}

fn simple(root: &Path, args: &[&str], good: &str, bad: &str) -> Result<Report<()>, String> {
    let ok = stream(cargo(root).args(args), |_| {})?;
    if ok { Ok(Report { value: (), detail: good.into() }) } else { Err(bad.into()) }
}

fn docs(root: &Path) -> Result<Report<()>, String> {
    let mut command = cargo(root);
    command.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    let ok = stream(&mut command, |_| {})?;
    if ok { Ok(Report { value: (), detail: "no warnings".into() }) } else { Err("see the warnings above".into()) }
}

/// `deny.toml`: who may import whom, licences, where crates come from. The tool is built once a machine.
fn deny(root: &Path) -> Result<Report<()>, String> {
    if !on_path("cargo-deny") {
        eprintln!("building cargo-deny {CARGO_DENY}, a few minutes once a machine");
        let install = ["install", "--locked", "--quiet", "cargo-deny", "--version", CARGO_DENY, "--debug"];
        if !stream(cargo(root).args(install), |_| {})? {
            return Err("cargo-deny could not be built".into());
        }
    }
    simple(root, &["deny", "check", "bans", "licenses", "sources"], "as deny.toml says", "see above")
}

/// The number in front of `word`, as in `12 passed; 0 failed`.
fn count(counts: &str, word: &str) -> u64 {
    let mut before = "";
    for each in counts.split([' ', ';', '.']).filter(|w| !w.is_empty()) {
        if each == word {
            return before.parse().unwrap_or(0);
        }
        before = each;
    }
    0
}

fn build(root: &Path) -> Result<Report<()>, String> {
    // The whole workspace: `-p` would change feature unification and compile everything again.
    let ok = stream(cargo(root).args(["build", "--workspace", "--bins", "--examples"]), |_| {})?;
    if ok { Ok(Report { value: (), detail: "dev profile".into() }) } else { Err("does not compile".into()) }
}

/// The interpreter of the test environment, which is installed where it is not.
pub fn install(root: &Path) -> Result<Report<PathBuf>, String> {
    let script = root.join("tests").join("install.py");
    let output = Command::new("python3")
        .arg(script)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("python3: {e}"))?;
    let interpreter = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if output.status.success() && interpreter.is_file() {
        Ok(Report { value: interpreter, detail: "installed".into() })
    } else {
        Err("could not be installed, see above".into())
    }
}

fn python_tests(root: &Path, interpreter: &Path, more: &[&str]) -> Result<Report<()>, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let (mut last, mut of_sdks) = (String::new(), String::new());
    let mut command = Command::new(interpreter);
    command.current_dir(root.join("tests")).args(["-m", "pytest", "-q", "--durations=10"]).args(more);
    // Named, so that a missing binary is an error and not forty skipped tests.
    command.env("AEGIS_BIN", target.join("debug").join("aegis"));
    let ok = stream(&mut command, |line| {
        // What tests/conftest.py counts for each SDK.
        if let Some(counts) = line.strip_prefix("sdk ") {
            of_sdks.push_str("; ");
            of_sdks.push_str(counts);
        }
        if !line.trim().is_empty() {
            last = line.trim_matches(['=', ' ']).to_owned();
        }
    })?;
    let detail = last + &of_sdks;
    if ok { Ok(Report { value: (), detail }) } else { Err(detail) }
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").as_deref().unwrap_or(OsStr::new("cargo")));
    command.current_dir(root);
    command
}

/// Runs a command, shows its output as it comes and lets `each` read along. Whether it succeeded.
fn stream(command: &mut Command, mut each: impl FnMut(&str)) -> Result<bool, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("{name}: {e}"))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|e| format!("{name}: {e}"))?;
            println!("{line}");
            each(&line);
        }
    }
    Ok(child.wait().map_err(|e| format!("{name}: {e}"))?.success())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// What a step gave, and a word about it.
pub struct Report<T> {
    /// What it gave.
    pub value: T,
    detail: String,
}

/// What is printed at the end.
#[derive(Default)]
struct Summary {
    lines: Vec<(bool, &'static str, Duration, String)>,
}

impl Summary {
    fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<Report<T>, String>) -> Option<T> {
        println!("\n== {name}");
        let started = Instant::now();
        let (ok, detail, value) = match work() {
            Ok(report) => (true, report.detail, Some(report.value)),
            Err(detail) => (false, detail, None),
        };
        self.lines.push((ok, name, started.elapsed(), detail));
        value
    }

    fn finish(&self) -> Result<(), String> {
        println!("\n== summary");
        for (ok, name, took, detail) in &self.lines {
            println!("{:<7} {name:<20} {:>6.1} s  {detail}", if *ok { "ok" } else { "FAILED" }, took.as_secs_f64());
        }
        if self.lines.iter().all(|(ok, ..)| *ok) { Ok(()) } else { Err("some tests failed".to_owned()) }
    }
}

const CARGO_DENY: &str = "0.20.2";
const SDK_TESTS: &[&str] = &["sdk-contract", "e2e/test_sdk.py"];
/// Named one by one: pytest does not leave out a folder that `testpaths` names.
const OTHER_TESTS: &[&str] = &[
    "upstreams",
    "harness",
    "vectors",
    "attacks",
    "conformance",
    "e2e",
    "console",
    "charts",
    "deploy",
    "--ignore=e2e/test_sdk.py",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_cargo_s_own_line() {
        let line = "ok. 12 passed; 3 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.05s";
        assert_eq!((count(line, "passed"), count(line, "failed"), count(line, "ignored")), (12, 3, 1));
        assert_eq!(count("nonsense", "passed"), 0);
    }

    #[test]
    fn words_after_two_dashes_are_pytest_s() {
        let options = Options::read(&["--e2e", "--", "-k", "attack"]).unwrap();
        assert!(!options.rust && options.python);
        assert_eq!(options.pytest, ["-k", "attack"]);
        assert!(Options::read(&["--fast"]).is_err());
    }

    #[test]
    fn a_failed_step_fails_the_run() {
        let mut summary = Summary::default();
        assert_eq!(summary.step("a", || Ok(Report { value: 5, detail: String::new() })), Some(5));
        assert!(summary.finish().is_ok());
        assert_eq!(summary.step::<()>("b", || Err("no".into())), None);
        assert!(summary.finish().is_err());
    }
}

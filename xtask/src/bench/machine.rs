//! The machine: tools that must be there, cores to pin to, what its disk takes for a sync.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::progress;

/// What the run has to work with.
pub struct Machine {
    /// The core of whatever is measured.
    pub proxy_core: usize,
    /// The core of load and upstream.
    pub load_core: usize,
    /// For the table's caption.
    pub cpu: String,
    /// Whether nginx is there.
    pub nginx: bool,
    /// Processes that wanted to run in the last minute, before anything was started.
    pub load: f64,
    /// How it stood still while both cores had work.
    pub stalls: Stalls,
}

/// Time in which a thread that wants nothing but the CPU did not have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stalls {
    /// Part of the time.
    pub part: f64,
    /// The longest.
    pub longest: Duration,
}

impl Machine {
    /// Finds two cores and the tools; installs what Debian has.
    pub fn prepare() -> Result<Self, String> {
        for (tool, package) in [("wrk", "wrk"), ("nginx", "nginx-light")] {
            if !on_path(tool) {
                install(package);
            }
        }
        for tool in ["wrk", "taskset"] {
            if !on_path(tool) {
                return Err(format!("`{tool}` is needed and could not be installed"));
            }
        }
        let nginx = on_path("nginx");
        if !nginx {
            progress("nginx is not there and could not be installed: its rows are left out");
        }
        let (proxy_core, load_core) = match cores()?.as_slice() {
            [first, second, ..] => (*first, *second),
            _ => return Err("two cores are needed: one for the proxy, one for load and upstream".to_owned()),
        };
        let load = load_average(&fs::read_to_string("/proc/loadavg").unwrap_or_default());
        if load > QUIET {
            progress(&format!("the machine is busy (load {load:.1}): the figures will be disturbed"));
        }
        Ok(Self { proxy_core, load_core, cpu: cpu(), nginx, load, stalls: stalls() })
    }
}

/// Two threads count the gaps in their own time for two seconds: what a virtual machine's host, or somebody
/// else's work, takes away. No proxy can answer in a gap.
fn stalls() -> Stalls {
    let spin = || {
        let (begun, mut last) = (Instant::now(), Instant::now());
        let (mut lost, mut longest) = (Duration::ZERO, Duration::ZERO);
        while begun.elapsed() < SPIN {
            let now = Instant::now();
            let gap = now - last;
            if gap > GAP {
                lost += gap;
                longest = longest.max(gap);
            }
            last = now;
        }
        Stalls { part: lost.as_secs_f64() / SPIN.as_secs_f64(), longest }
    };
    let other = std::thread::spawn(spin);
    let one = spin();
    let two = other.join().unwrap_or(one);
    Stalls { part: one.part.max(two.part), longest: one.longest.max(two.longest) }
}

/// Whether the program can be run by its name.
pub fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps nginx where only administrators look.
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(tool).is_file())
}

fn install(package: &str) {
    progress(&format!("installing {package}"));
    let done = Command::new("apt-get")
        .args(["install", "--yes", "--no-install-recommends", package])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    if !done.is_ok_and(|status| status.success()) {
        progress(&format!("{package} could not be installed"));
    }
}

/// Cores this process may use.
fn cores() -> Result<Vec<usize>, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    Ok(core_list(list))
}

/// `0-2,5` as numbers.
fn core_list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse::<usize>().ok()?..=to.parse::<usize>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn load_average(text: &str) -> f64 {
    text.split(' ').next().and_then(|minute| minute.parse().ok()).unwrap_or(f64::NAN)
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")).and_then(|l| l.split(':').nth(1));
    let count = info.lines().filter(|l| l.starts_with("processor")).count();
    format!("{} cores, {}", count, model.map_or("unknown CPU", str::trim))
}

/// Median time of a 4 KiB append and its fdatasync in `folder`: what a durable write cannot go below.
pub fn sync_time(folder: &Path) -> Result<Duration, String> {
    let path = folder.join("sync-probe");
    let mut file = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let start = Instant::now();
        file.write_all(&[0x5a; 4096])
            .and_then(|()| file.sync_data())
            .map_err(|e| format!("{}: {e}", path.display()))?;
        took.push(start.elapsed());
    }
    let _ = fs::remove_file(&path);
    took.sort();
    Ok(took.get(SYNCS / 2).copied().unwrap_or_default())
}

const SPIN: Duration = Duration::from_secs(2);
/// Shorter gaps are the scheduler's.
const GAP: Duration = Duration::from_millis(1);
const SYNCS: usize = 200;
/// A load average above this is somebody else at work.
const QUIET: f64 = 0.7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_of_the_last_minute_comes_first() {
        assert_eq!(load_average("4.41 4.55 3.28 5/101 28130\n"), 4.41);
        assert!(load_average("").is_nan());
    }

    #[test]
    fn core_lists_are_read() {
        assert_eq!(core_list("\t0-1\n"), [0, 1]);
        assert_eq!(core_list("2,4-6"), [2, 4, 5, 6]);
        assert!(core_list("").is_empty());
    }
}

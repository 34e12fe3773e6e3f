//! A process under measurement: started pinned, ended when dropped, asked what it used.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// A running program.
pub struct Process {
    child: Child,
    name: String,
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// User and system time of all threads, seconds.
    pub cpu: f64,
    /// Resident memory, KiB.
    pub rss_kib: u64,
}

impl Process {
    /// Starts a program on the given cores, with stderr in a file.
    pub fn start(name: &str, cores: &str, command: &Command, stderr: &Path) -> Result<Self, String> {
        let mut pinned = pinned(cores, command);
        let stderr = File::create(stderr).map_err(|e| format!("{}: {e}", stderr.display()))?;
        let child = pinned.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn();
        let child = child.map_err(|e| format!("{name}: {e}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// The first line it prints.
    pub fn first_line(&mut self) -> Result<String, String> {
        let Some(stdout) = self.child.stdout.take() else { return Err(format!("{} has no output", self.name)) };
        let (send, receive) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            let _ = send.send(lines.next());
            // Read on, so that a later line is never written into a closed pipe.
            lines.for_each(drop);
        });
        match receive.recv_timeout(START) {
            Ok(Some(Ok(line))) => Ok(line),
            _ => Err(format!("{} did not start within {} s", self.name, START.as_secs())),
        }
    }

    /// CPU time and memory now.
    pub fn usage(&self) -> Result<Usage, String> {
        let folder = Path::new("/proc").join(self.child.id().to_string());
        let read = |file: &str| {
            fs::read_to_string(folder.join(file)).map_err(|e| format!("{} has ended ({file}: {e})", self.name))
        };
        let cpu = cpu_seconds(&read("stat")?).ok_or_else(|| format!("{}: stat is unreadable", self.name))?;
        let rss_kib = rss(&read("status")?).ok_or_else(|| format!("{} has ended", self.name))?;
        Ok(Usage { cpu, rss_kib })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command on the given cores only; `taskset` execs, so the child is the program itself.
pub fn pinned(cores: &str, command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", cores]).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        pinned.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        let _ = match value {
            Some(value) => pinned.env(name, value),
            None => pinned.env_remove(name),
        };
    }
    pinned
}

/// A command without what the environment says of a gateway that is none of this run's.
pub fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AEGIS_") {
            command.env_remove(name);
        }
    }
    command
}

/// Fields 14 and 15 of `/proc/<pid>/stat`, counted behind the name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `USER_HZ`, which is 100 on every architecture we build for.
const TICKS: f64 = 100.0;
const START: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_blanks_and_brackets() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 90 0 0 0 250 50 0 0 20 0 1 0 55 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn memory_is_in_kib() {
        assert_eq!(rss("Name:\tx\nVmRSS:\t   71234 kB\n"), Some(71_234));
        assert_eq!(rss("State:\tZ\n"), None);
    }
}

//! The rows, measured round by round: A B C A B C, so that what disturbs the machine disturbs all.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Options,
    fixture::Fixture,
    gateway::Gateway,
    load::{self, Kind, Seen, Target},
    machine::Machine,
    process::{Process, Usage},
    progress,
};

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The upstream itself.
    Direct,
    /// nginx.
    Nginx,
    /// Pingora and nothing else.
    Bare,
    /// The gateway, decisions remembered.
    Gateway,
    /// The gateway, every decision made anew.
    Anew,
    /// A gateway of its own on both cores, beside the load.
    BothCores,
    /// mitmproxy.
    Mitmproxy,
}

/// One row of the table.
pub struct Row {
    /// Who answers.
    pub subject: Subject,
    /// What.
    pub kind: Kind,
    /// To how many connections.
    pub connections: usize,
    /// By round; a failed one says why.
    pub samples: Vec<Result<Sample, String>>,
}

/// One run under load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Answers a second.
    pub rate: f64,
    /// Median latency, microseconds.
    pub p50_us: f64,
    /// 99th percentile, microseconds.
    pub p99_us: f64,
    /// CPU time per request while under load, microseconds.
    pub cpu_us: f64,
    /// CPU time per request afterwards: work that waits until it is quiet, microseconds.
    pub later_us: f64,
    /// Part of one core that was used under load.
    pub busy: f64,
    /// Resident memory, MB.
    pub rss_mb: f64,
}

/// Measures all rows. A round that would not end before `deadline` is not begun, except the first.
pub fn measure(options: &Options, machine: &Machine, fixture: &Fixture, deadline: Instant) -> Result<Vec<Row>, String> {
    progress(&format!("fdatasync takes {} us here", fixture.sync.as_micros()));
    let mut rows = rows(options, fixture.nginx.is_some(), fixture.mitmproxy.is_some());
    if !options.quick {
        progress("warming up");
        for row in &rows {
            let _ = sample(options, machine, fixture, row, Duration::from_secs(1));
        }
    }
    let mut last = Duration::ZERO;
    for round in 1..=options.rounds {
        let started = Instant::now();
        if round > 1 && started + last > deadline {
            progress("out of time: no further round");
            break;
        }
        for row in &mut rows {
            let result = sample(options, machine, fixture, row, options.each);
            let said = match &result {
                Ok(s) => format!(
                    "{:>8.0}/s  p50 {:>6.0} us  p99 {:>6.0} us  cpu {:>5.1} us",
                    s.rate, s.p50_us, s.p99_us, s.cpu_us
                ),
                Err(error) => format!("failed: {error}"),
            };
            progress(&format!("round {round}  {:<34} c={:<3} {said}", row.name(), row.connections));
            row.samples.push(result);
        }
        last = started.elapsed();
    }
    Ok(rows)
}

fn rows(options: &Options, nginx: bool, mitmproxy: bool) -> Vec<Row> {
    let many = options.connections;
    let row = |subject, kind, connections| Row { subject, kind, connections, samples: Vec::new() };
    let mut rows = Vec::new();
    for connections in [1, many] {
        for subject in [Subject::Direct, Subject::Nginx, Subject::Bare, Subject::Gateway, Subject::Anew] {
            if subject != Subject::Nginx || nginx {
                rows.push(row(subject, Kind::Read, connections));
            }
        }
    }
    for subject in [Subject::Direct, Subject::Bare, Subject::Gateway, Subject::Anew] {
        rows.push(row(subject, Kind::PacedRead, 1));
    }
    for subject in [Subject::Bare, Subject::Gateway] {
        rows.push(row(subject, Kind::Repository, many));
    }
    for connections in [1, many] {
        for subject in [Subject::Bare, Subject::Gateway] {
            rows.push(row(subject, Kind::Write, connections));
        }
    }
    rows.push(row(Subject::BothCores, Kind::Authorize, 32));
    for subject in [Subject::Bare, Subject::Gateway, Subject::Mitmproxy] {
        if subject != Subject::Mitmproxy || mitmproxy {
            rows.push(row(subject, Kind::Tls1, many));
            // Eight requests at once on each.
            rows.push(row(subject, Kind::Tls2, (many / 8).max(2)));
            rows.push(row(subject, Kind::Handshake, 8));
        }
    }
    rows.push(row(Subject::Gateway, Kind::ColdHandshake, 8));
    rows
}

impl Row {
    /// What people call it.
    pub fn name(&self) -> String {
        let who = match self.subject {
            Subject::Direct => "direct",
            Subject::Nginx => "nginx",
            Subject::Bare => "bare Pingora",
            Subject::Gateway => "Aegis",
            Subject::Anew => "Aegis, decided anew",
            Subject::BothCores => "Aegis, both cores",
            Subject::Mitmproxy => "mitmproxy",
        };
        let what = match self.kind {
            Kind::Read => "read",
            Kind::PacedRead => "read, paced",
            Kind::Repository => "read 2 KiB, links",
            Kind::Write => "write",
            Kind::Authorize => "authorize",
            Kind::Tls1 => "TLS read, h1",
            Kind::Tls2 => "TLS read, h2",
            Kind::Handshake => "handshake and read",
            Kind::ColdHandshake => "the same, minting",
        };
        format!("{what}: {who}")
    }

    /// Median over the rounds of a figure; `None` where no round succeeded.
    pub fn median(&self, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        median(self.samples.iter().flatten().map(figure).collect())
    }

    /// Distance between the best and the worst round, as a part of the median.
    pub fn spread(&self) -> Option<f64> {
        let rates = || self.samples.iter().flatten().map(|s| s.rate);
        let (low, high) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
        self.median(|s| s.rate).map(|m| (high - low) / m)
    }

    /// Median of the ratios to another row, taken within each round.
    pub fn ratio(&self, base: &Self, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        let pairs = self.samples.iter().zip(&base.samples);
        median(pairs.filter_map(|(a, b)| Some(figure(a.as_ref().ok()?) / figure(b.as_ref().ok()?))).collect())
    }

    /// Median of the differences to another row, taken within each round.
    pub fn added(&self, base: &Self, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        let pairs = self.samples.iter().zip(&base.samples);
        median(pairs.filter_map(|(a, b)| Some(figure(a.as_ref().ok()?) - figure(b.as_ref().ok()?))).collect())
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

fn sample(
    options: &Options,
    machine: &Machine,
    fixture: &Fixture,
    row: &Row,
    time: Duration,
) -> Result<Sample, String> {
    let load = machine.load_core.to_string();
    let plain =
        |server: &super::fixture::Server| under_load(options, &load, row, &server.process, &server.target, time);
    match row.subject {
        Subject::Bare if row.kind.is_tls() => plain(&fixture.bare_tls),
        Subject::Mitmproxy => plain(fixture.mitmproxy.as_ref().ok_or("mitmproxy is not installed")?),
        Subject::Gateway if row.kind == Kind::ColdHandshake => {
            // A gateway that has issued nothing yet.
            let folder = fixture.folder.0.join("cold");
            let _ = std::fs::remove_dir_all(&folder);
            let core = machine.proxy_core.to_string();
            let gateway = Gateway::start(options, &core, &fixture.origin.target.address, &folder)?;
            under_load(options, &load, row, &gateway.process, &gateway.tunnel, time)
        }
        Subject::Gateway if row.kind.is_tls() => {
            recorded(options, &load, row, &fixture.gateway, &fixture.gateway.tunnel, time)
        }
        Subject::Direct => plain(&fixture.origin),
        Subject::Nginx => plain(fixture.nginx.as_ref().ok_or("nginx is not installed")?),
        Subject::Bare => plain(&fixture.bare),
        Subject::Gateway => recorded(options, &load, row, &fixture.gateway, &fixture.gateway.remembered, time),
        Subject::Anew => recorded(options, &load, row, &fixture.gateway, &fixture.gateway.anew, time),
        Subject::BothCores => {
            // Started for the row and ended with it: on both cores it would be in the way of the others.
            let both = format!("{},{}", machine.proxy_core, machine.load_core);
            let folder = fixture.folder.0.join("authorize");
            let _ = std::fs::remove_dir_all(&folder);
            let gateway = Gateway::start(options, &both, &fixture.origin.target.address, &folder)?;
            recorded(options, &both, row, &gateway, &gateway.api, time)
        }
    }
}

/// A run against the gateway counts only if every request left a receipt.
fn recorded(
    options: &Options,
    cores: &str,
    row: &Row,
    gateway: &Gateway,
    target: &Target,
    time: Duration,
) -> Result<Sample, String> {
    let place = || load::probe(&gateway.remembered)?.as_deref().and_then(leaf).ok_or("no receipt".to_owned());
    let before = place()?;
    let sample = under_load(options, cores, row, &gateway.process, target, time)?;
    let leaves = place()? - before;
    let requests = sample.rate * time.as_secs_f64();
    if (leaves as f64) < requests * 0.95 {
        return Err(format!("{requests:.0} requests left only {leaves} receipts"));
    }
    Ok(sample)
}

/// The sequence number at the end of `rcp_<node>_<seq>`.
fn leaf(receipt: &str) -> Option<u64> {
    receipt.rsplit('_').next()?.parse().ok()
}

fn under_load(
    options: &Options,
    cores: &str,
    row: &Row,
    process: &Process,
    target: &Target,
    time: Duration,
) -> Result<Sample, String> {
    let before = process.usage()?;
    let seen = load::run(options, cores, target, row.kind, row.connections, time)?;
    let after = process.usage()?;
    let settled = settle(process, row.subject)?;
    Ok(figures(&seen, before, after, settled))
}

fn figures(seen: &Seen, before: Usage, after: Usage, settled: Usage) -> Sample {
    let (requests, seconds) = (seen.requests as f64, seen.duration_us as f64 / 1e6);
    let cpu = after.cpu - before.cpu;
    Sample {
        rate: requests / seconds,
        p50_us: seen.p50_us as f64,
        p99_us: seen.p99_us as f64,
        cpu_us: cpu * 1e6 / requests,
        later_us: (settled.cpu - after.cpu) * 1e6 / requests,
        busy: cpu / seconds,
        rss_mb: after.rss_kib.max(settled.rss_kib) as f64 * 1024.0 / 1e6,
    }
}

/// Waits until a gateway has done what it puts off, which would disturb the next row on its core.
fn settle(process: &Process, subject: Subject) -> Result<Usage, String> {
    if matches!(subject, Subject::Direct | Subject::Nginx | Subject::Bare | Subject::BothCores | Subject::Mitmproxy) {
        return process.usage();
    }
    let patience = Instant::now() + SETTLE_AT_MOST;
    thread::sleep(SETTLE_STARTS);
    loop {
        let before = process.usage()?;
        thread::sleep(Duration::from_millis(250));
        let now = process.usage()?;
        if now.cpu - before.cpu <= 0.01 {
            return Ok(now);
        }
        if Instant::now() > patience {
            progress("the gateway is still busy with what it puts off; the next row is disturbed");
            return Ok(now);
        }
    }
}

/// A row of `policy_cost --json`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// Policies in force.
    pub policies: usize,
    /// Policies in the slice of the question.
    pub candidates: usize,
    /// Slice and evaluation in full.
    pub decision_ns: f64,
    /// The same, remembered.
    pub remembered_ns: f64,
}

/// Decision cost by number of policies; empty where the example is not built.
pub fn policy_cost(options: &Options) -> Vec<PolicyRow> {
    #[derive(Deserialize)]
    struct Printed {
        rows: Vec<PolicyRow>,
    }
    progress("decision cost at 10 to 10,000 policies");
    let program = options.binaries().join("examples").join("policy_cost");
    let output = Command::new(program).arg("--json").stderr(Stdio::inherit()).output();
    let printed = output.ok().and_then(|o| serde_json::from_slice::<Printed>(&o.stdout).ok());
    if printed.is_none() {
        progress("policy_cost gave no figures");
    }
    printed.map(|p| p.rows).unwrap_or_default()
}

/// The projection begins once the log was quiet for half a second.
const SETTLE_STARTS: Duration = Duration::from_millis(1000);
const SETTLE_AT_MOST: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rates: &[f64]) -> Row {
        let sample =
            |rate| Sample { rate, p50_us: 0.0, p99_us: 0.0, cpu_us: 0.0, later_us: 0.0, busy: 0.0, rss_mb: 0.0 };
        let samples = rates.iter().map(|r| if *r > 0.0 { Ok(sample(*r)) } else { Err("failed".to_owned()) }).collect();
        Row { subject: Subject::Bare, kind: Kind::Read, connections: 1, samples }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        // The machine was half as fast in the second round; the ratio does not care.
        let (base, ours) = (row(&[100.0, 50.0, 100.0]), row(&[50.0, 25.0, 60.0]));
        assert_eq!(ours.ratio(&base, |s| s.rate), Some(0.5));
        assert_eq!(ours.median(|s| s.rate), Some(50.0));
        assert_eq!(ours.spread(), Some(0.7));
    }

    #[test]
    fn a_failed_round_is_no_figure() {
        let (base, ours) = (row(&[100.0, 100.0]), row(&[0.0, 40.0]));
        assert_eq!(ours.ratio(&base, |s| s.rate), Some(0.4));
        assert_eq!(row(&[0.0]).median(|s| s.rate), None);
    }

    #[test]
    fn figures_are_per_request_and_keep_what_came_later_apart() {
        let seen = Seen { requests: 20_000, duration_us: 2_000_000, p50_us: 5, p99_us: 9, refused: 0, broken: 0 };
        let at = |cpu, rss_kib| Usage { cpu, rss_kib };
        let sample = figures(&seen, at(1.0, 0), at(2.0, 50_000), at(2.4, 40_000));
        assert_eq!((sample.rate, sample.cpu_us, sample.busy), (10_000.0, 50.0, 0.5));
        assert!((sample.later_us - 20.0).abs() < 1e-6);
        assert_eq!(sample.rss_mb, 51.2);
    }

    #[test]
    fn receipts_end_in_their_place() {
        assert_eq!(leaf("rcp_n1_4711"), Some(4711));
        assert_eq!(leaf("rcp"), None);
    }
}

//! The result as text, JSON and the generated part of docs/performance.md.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use serde_json::{Value, json};

use super::{
    Options,
    gateway::POLICIES,
    load::Kind,
    machine::Machine,
    rounds::{PolicyRow, Row, Subject},
    targets::{self, Verdict},
};

/// Everything one run has to say.
pub struct Report {
    rows: Vec<Row>,
    policies: Vec<PolicyRow>,
    verdicts: Vec<Verdict>,
    caption: String,
    took: Duration,
}

impl Report {
    /// Judges the rows.
    pub fn new(options: &Options, machine: &Machine, rows: Vec<Row>, policies: Vec<PolicyRow>, took: Duration) -> Self {
        let build = if options.dev { "DEVELOPMENT BUILD: ratios mean nothing" } else { "release build" };
        let caption = format!(
            "{}; {build}; {} round(s) of {} s, medians; proxy on core {}, load and upstream on core {}; load average before {:.1}; \
             with both cores busy the machine stood still {:.1}% of the time, {} ms at the longest; {POLICIES} policies, receipts, decision log and scrubbing on",
            machine.cpu,
            options.rounds,
            options.each.as_secs(),
            machine.proxy_core,
            machine.load_core,
            machine.load,
            machine.stalls.part * 100.0,
            machine.stalls.longest.as_millis()
        );
        let verdicts = targets::judge(&rows, &policies);
        Self { rows, policies, verdicts, caption, took }
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "row": row.name(),
                "connections": row.connections,
                "rate": row.median(|s| s.rate),
                "spread": row.spread(),
                "to_bare": self.base(row).and_then(|b| row.ratio(b, |s| s.rate)),
                "p50_us": row.median(|s| s.p50_us),
                "p99_us": row.median(|s| s.p99_us),
                "cpu_us": row.median(|s| s.cpu_us),
                "later_us": row.median(|s| s.later_us),
                "busy": row.median(|s| s.busy),
                "rss_mb": row.median(|s| s.rss_mb),
                "samples": row.samples.iter().map(|s| match s {
                    Ok(sample) => json!(sample),
                    Err(error) => json!({"failed": error}),
                }).collect::<Vec<_>>(),
            })
        });
        json!({
            "setup": self.caption,
            "seconds": self.took.as_secs(),
            "rows": rows.collect::<Vec<_>>(),
            "policies": self.policies,
            "targets": self.verdicts,
        })
    }

    /// For people at a terminal.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n\n", self.caption);
        for table in self.tables() {
            out.push_str(&aligned(&table));
            out.push('\n');
        }
        let _ = writeln!(out, "took {} s", self.took.as_secs());
        out
    }

    fn markdown(&self) -> String {
        let mut out = format!("{}.\n", self.caption);
        for table in self.tables() {
            out.push('\n');
            for (at, line) in table.iter().enumerate() {
                let _ = writeln!(out, "| {} |", line.join(" | "));
                if at == 0 {
                    let _ = writeln!(out, "|{}", "---|".repeat(line.len()));
                }
            }
        }
        out
    }

    /// Replaces what stands between the markers.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let name = path.display();
        let text = fs::read_to_string(path).map_err(|e| format!("{name}: {e}"))?;
        let new = replaced(&text, &self.markdown()).ok_or_else(|| format!("{name} has no `{BEGIN}` and `{END}`"))?;
        fs::write(path, new).map_err(|e| format!("{name}: {e}"))
    }

    fn tables(&self) -> [Vec<Vec<String>>; 3] {
        [self.loads(), self.decisions(), self.promises()]
    }

    fn loads(&self) -> Vec<Vec<String>> {
        let mut table = vec![
            ["", "conn.", "req/s", "spread", "to bare", "p50 us", "p99 us", "CPU us", "later us", "core", "RSS MB"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for row in &self.rows {
            let figure = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
            let percent = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{:.0}%", v * 100.0));
            table.push(vec![
                row.name(),
                row.connections.to_string(),
                figure(row.median(|s| s.rate), 0),
                percent(row.spread()),
                figure(self.base(row).and_then(|b| row.ratio(b, |s| s.rate)), 2),
                figure(row.median(|s| s.p50_us), 0),
                figure(row.median(|s| s.p99_us), 0),
                figure(row.median(|s| s.cpu_us), 1),
                figure(row.median(|s| s.later_us), 1),
                percent(row.median(|s| s.busy)),
                figure(row.median(|s| s.rss_mb), 0),
            ]);
        }
        table
    }

    fn decisions(&self) -> Vec<Vec<String>> {
        let mut table = vec![["policies", "in the slice", "decision ns", "remembered ns"].map(str::to_owned).to_vec()];
        for row in &self.policies {
            let ns = |value: f64| format!("{value:.0}");
            table.push(vec![
                row.policies.to_string(),
                row.candidates.to_string(),
                ns(row.decision_ns),
                ns(row.remembered_ns),
            ]);
        }
        table
    }

    fn promises(&self) -> Vec<Vec<String>> {
        let mut table = vec![["target", "promised", "measured", ""].map(str::to_owned).to_vec()];
        for v in &self.verdicts {
            let number = |value: f64| format!("{value:.*}{}", if value >= 100.0 { 0 } else { 2 }, v.unit);
            let measured = v.measured.map_or("not measured".to_owned(), number);
            table.push(vec![
                v.target.to_owned(),
                number(v.limit),
                measured,
                if v.pass { "pass" } else { "MISS" }.to_owned(),
            ]);
        }
        table
    }

    /// The bare proxy under the same load.
    fn base(&self, row: &Row) -> Option<&Row> {
        // Nothing is minted there: the baseline of a cold handshake is a warm one.
        let kind = if row.kind == Kind::ColdHandshake { Kind::Handshake } else { row.kind };
        let same = |r: &&Row| r.subject == Subject::Bare && r.kind == kind && r.connections == row.connections;
        self.rows.iter().find(same).filter(|_| row.kind != Kind::Authorize)
    }
}

fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|at| table.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for line in table {
        let cells = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (cell, width))| if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn replaced(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

const BEGIN: &str = "<!-- begin: cargo xtask bench --write -->";
const END: &str = "<!-- end: cargo xtask bench --write -->";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replaced(&text, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(replaced(&new, "new\n").as_deref(), Some(new.as_str()));
        assert_eq!(replaced("a\nb\n", "new\n"), None);
    }

    #[test]
    fn columns_line_up() {
        let table = [["", "n"].map(str::to_owned).to_vec(), ["row", "10"].map(str::to_owned).to_vec()];
        assert_eq!(aligned(&table), "      n\nrow  10\n");
    }
}

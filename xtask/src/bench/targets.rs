//! What was promised, against what was measured.

use serde::Serialize;

use super::{
    load::Kind,
    rounds::{PolicyRow, Row, Sample, Subject},
};

/// One promise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// In words.
    pub target: &'static str,
    /// The figure that was promised.
    pub limit: f64,
    /// The figure that was measured; `None` is a miss.
    pub measured: Option<f64>,
    /// Unit of both.
    pub unit: &'static str,
    /// Whether it is kept.
    pub pass: bool,
}

/// All promises.
pub fn judge(rows: &[Row], policies: &[PolicyRow]) -> Vec<Verdict> {
    let find = |subject, kind, many: bool| {
        rows.iter().find(|r| r.subject == subject && r.kind == kind && (r.connections > 1) == many)
    };
    let ratio = |subject| find(subject, Kind::Read, true)?.ratio(find(Subject::Bare, Kind::Read, true)?, |s| s.rate);
    let added = |figure: fn(&Sample) -> f64| {
        let direct = find(Subject::Direct, Kind::PacedRead, false)?;
        let worst = |subject| find(subject, Kind::PacedRead, false)?.added(direct, figure);
        Some(worst(Subject::Gateway)?.max(worst(Subject::Anew)?) / 1000.0)
    };
    let authorize = find(Subject::BothCores, Kind::Authorize, true);
    let cost = |count| policies.iter().find(|p| p.policies == count).map(|p| p.decision_ns);
    let memory = rows
        .iter()
        .filter(|r| !matches!(r.subject, Subject::Direct | Subject::Nginx | Subject::Bare | Subject::Mitmproxy));
    let memory = memory.filter_map(|r| r.median(|s| s.rss_mb)).reduce(f64::max);
    vec![
        at_least("reads, decided anew, to bare Pingora", 0.4, ratio(Subject::Anew), ""),
        at_least("reads, decisions remembered, to bare Pingora", 0.5, ratio(Subject::Gateway), ""),
        below("added p50, 1 connection, paced, to direct", 0.5, added(|s| s.p50_us), "ms"),
        below("added p99, 1 connection, paced, to direct", 2.0, added(|s| s.p99_us), "ms"),
        below("decision at 10,000 policies to 10", 2.0, cost(10_000).zip(cost(10)).map(|(a, b)| a / b), ""),
        at_least("authorize, both cores, 32 connections", 5000.0, authorize.and_then(|r| r.median(|s| s.rate)), "/s"),
        below(
            "authorize p99, 32 connections",
            5.0,
            authorize.and_then(|r| r.median(|s| s.p99_us)).map(|p| p / 1000.0),
            "ms",
        ),
        below("resident memory", 100.0, memory, "MB"),
    ]
}

fn at_least(target: &'static str, limit: f64, measured: Option<f64>, unit: &'static str) -> Verdict {
    Verdict { target, limit, measured, unit, pass: measured.is_some_and(|m| m >= limit) }
}

fn below(target: &'static str, limit: f64, measured: Option<f64>, unit: &'static str) -> Verdict {
    Verdict { target, limit, measured, unit, pass: measured.is_some_and(|m| m <= limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_not_kept() {
        assert!(judge(&[], &[]).iter().all(|v| !v.pass && v.measured.is_none()));
        assert!(at_least("x", 0.4, Some(0.4), "").pass && !at_least("x", 0.4, Some(0.39), "").pass);
        assert!(below("x", 2.0, Some(2.0), "").pass && !below("x", 2.0, Some(2.01), "").pass);
    }

    #[test]
    fn slicing_is_judged_by_its_ends() {
        let at = |policies, decision_ns| PolicyRow { policies, candidates: 1, decision_ns, remembered_ns: 1.0 };
        let verdicts = judge(&[], &[at(10, 1000.0), at(10_000, 2500.0)]);
        let slicing = verdicts.iter().find(|v| v.target.starts_with("decision")).unwrap();
        assert_eq!((slicing.measured, slicing.pass), (Some(2.5), false));
    }
}

//! The certificate authority: who can read its keys, and how long its certificates still serve.

use std::path::Path;

use aegis_proxy::{CaStatus, RootStatus, inspect};

use super::{Finding, Status, checks::private};
use crate::{config::Config, state};

/// Of an installation, running or not.
pub(super) fn authority(config: &Config) -> Vec<Finding> {
    let dir = config.in_state(state::CA);
    if !dir.exists() {
        return vec![Finding::ok(CHECK, "it is made with the first start")];
    }
    let now = jiff::Timestamp::now().as_millisecond();
    let mut found = keys(&dir);
    let bundle = dir.join(CaStatus::BUNDLE);
    match std::fs::read(&bundle).map_err(|e| e.to_string()).and_then(|pem| inspect(&pem)) {
        Ok(roots) => found.extend(lives(&roots, now)),
        Err(why) => {
            let fix = "start the gateway, which writes it anew";
            found.push(Finding::fail(CHECK, format!("`{}`: {why}", bundle.display()), fix));
        }
    }
    // One of ours is renewed in time.
    if let Some(files) = &config.intermediate {
        found.extend(provided(&files.certificate, now));
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, bundle.display().to_string()));
    }
    found
}

fn keys(dir: &Path) -> Vec<Finding> {
    let there = KEYS.iter().map(|name| dir.join(name)).filter(|path| path.exists());
    there.map(|path| private(CHECK, &path, "600")).filter(|finding| finding.status != Status::Ok).collect()
}

fn lives(roots: &[RootStatus], now: i64) -> Vec<Finding> {
    let mut found = Vec::new();
    for root in roots {
        let days = root.not_after.0.saturating_sub(now) / DAY;
        let fix = "make a new one with `aegis ca rotate`, and install it at clients";
        if root.not_after.0 <= now {
            found.push(Finding::fail(CHECK, format!("{} has expired", root.subject), fix));
        } else if days < 180 {
            found.push(Finding::warn(CHECK, format!("{} expires in {days} days", root.subject), fix));
        }
    }
    if let [_, next] = roots {
        let detail = format!("a rotation is under way: {} takes over", next.subject);
        let fix = "install both roots at clients (`aegis ca install`), then `aegis ca rotate --finish`";
        found.push(Finding::warn(CHECK, detail, fix));
    }
    found
}

fn provided(certificate: &Path, now: i64) -> Option<Finding> {
    let fix = "replace the files that `[ca]` names";
    match std::fs::read(certificate).map_err(|e| e.to_string()).and_then(|pem| inspect(&pem)) {
        Ok(chain) => {
            let end = chain.first().map_or(0, |first| first.not_after.0);
            let days = end.saturating_sub(now) / DAY;
            let detail = format!("the intermediate `{}` ends in {days} days", certificate.display());
            (days < 30).then(|| Finding::fail(CHECK, detail, fix))
        }
        Err(why) => Some(Finding::fail(CHECK, format!("`{}`: {why}", certificate.display()), fix)),
    }
}

const CHECK: &str = "certificate authority";
const KEYS: [&str; 3] = ["root.key.sealed", "next.key.sealed", "intermediate.key"];
const DAY: i64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;
    use aegis_action::Timestamp;

    #[test]
    fn a_root_near_its_end_and_a_rotation_are_seen() {
        let root = |days: i64| RootStatus {
            fingerprint: String::new(),
            subject: format!("CN=r{days}"),
            not_before: Timestamp(0),
            not_after: Timestamp(days * DAY),
        };
        assert!(lives(&[root(3650)], 0).is_empty());
        let words = |roots: &[RootStatus], now| -> Vec<Status> { lives(roots, now).iter().map(|f| f.status).collect() };
        assert_eq!(words(&[root(100)], 0), [Status::Warn]);
        assert_eq!(words(&[root(100)], 100 * DAY), [Status::Fail]);
        assert_eq!(words(&[root(3650), root(3680)], 0), [Status::Warn]);
    }
}

//! What verification found, for people and for programs.

use std::{collections::BTreeMap, fmt};

use aegis_action::{Digest, Timestamp};
use serde::Serialize;

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What it comes to.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Node of the log; `None` where there is no leaf.
    pub node: Option<String>,
    /// Leaves that hold.
    pub leaves: u64,
    /// Segment files read.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Time of the first leaf, milliseconds since the epoch.
    pub first_ts: Option<Timestamp>,
    /// Time of the last leaf.
    pub last_ts: Option<Timestamp>,
    /// Hash of the last leaf that holds: keep it, and a later verification can be held against it.
    pub last_hash: Option<Digest>,
    /// Leaves by type.
    pub types: BTreeMap<String, u64>,
    /// Allowed intents of the gateway's own doors without an outcome: their outcome is unknown.
    pub without_outcome: u64,
    /// Leaves behind the head file's: written, not known to be synced.
    pub beyond_head: u64,
    /// Openings in a bundle that open their commitments.
    pub openings: u64,
    /// What is odd and no tampering, at most 100 of them.
    pub findings: Vec<String>,
    /// How many findings there were beyond those.
    pub more_findings: u64,
}

/// What a verification comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Everything holds.
    Verified,
    /// Something was changed, removed or added.
    Tampered {
        /// The first leaf that does not hold.
        seq: u64,
        /// The file, relative to the log's directory.
        file: String,
        /// What does not hold.
        why: String,
    },
    /// It cannot be told.
    Unreadable {
        /// Why.
        why: String,
    },
}

impl Verdict {
    /// 0 verified, 1 tampered, 2 unreadable.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Verified => 0,
            Self::Tampered { .. } => 1,
            Self::Unreadable { .. } => 2,
        }
    }

    pub(super) fn tampered(seq: u64, file: &str, why: impl Into<String>) -> Self {
        Self::Tampered { seq, file: file.to_owned(), why: why.into() }
    }
}

impl Report {
    pub(super) fn new() -> Self {
        Self {
            verdict: Verdict::Verified,
            node: None,
            leaves: 0,
            segments: 0,
            bytes: 0,
            first_ts: None,
            last_ts: None,
            last_hash: None,
            types: BTreeMap::new(),
            without_outcome: 0,
            beyond_head: 0,
            openings: 0,
            findings: Vec::new(),
            more_findings: 0,
        }
    }

    pub(super) fn unreadable(why: String) -> Self {
        Self { verdict: Verdict::Unreadable { why }, ..Self::new() }
    }

    pub(super) fn find(&mut self, finding: String) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }

    /// Whether everything holds.
    pub fn is_verified(&self) -> bool {
        self.verdict == Verdict::Verified
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.as_deref().unwrap_or("-");
        let time = |ts: Option<Timestamp>| {
            let ts = ts.and_then(|ts| jiff::Timestamp::from_millisecond(ts.0).ok());
            ts.map_or_else(|| "-".to_owned(), |ts| ts.to_string())
        };
        match &self.verdict {
            Verdict::Verified => {
                writeln!(f, "verified: {} leaves of node `{node}`, {} bytes", self.leaves, self.bytes)?
            }
            Verdict::Tampered { seq, file, why } => {
                writeln!(f, "TAMPERED at leaf {seq} ({file}): {why}")?;
                writeln!(f, "  {} leaves before it hold", self.leaves)?;
            }
            Verdict::Unreadable { why } => return writeln!(f, "unreadable: {why}"),
        }
        if self.leaves > 0 {
            writeln!(f, "  from {} to {}", time(self.first_ts), time(self.last_ts))?;
            let types: Vec<_> = self.types.iter().map(|(name, count)| format!("{name} {count}")).collect();
            writeln!(f, "  {}", types.join(", "))?;
        }
        if let Some(hash) = &self.last_hash {
            writeln!(f, "  last receipt hash {hash}")?;
        }
        for (count, what) in [
            (self.without_outcome, "allowed intents without an outcome (outcome unknown)"),
            (self.beyond_head, "leaves behind the last sync, which the head file does not cover"),
            (self.openings, "commitments opened"),
        ] {
            if count > 0 {
                writeln!(f, "  {count} {what}")?;
            }
        }
        for finding in &self.findings {
            writeln!(f, "  note: {finding}")?;
        }
        if self.more_findings > 0 {
            writeln!(f, "  note: and {} more", self.more_findings)?;
        }
        Ok(())
    }
}

const MAX_FINDINGS: usize = 100;

//! Outcomes and the intents they name, in bounded memory.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use crate::{
    canonical::items,
    chain::{LeafView, entry_link},
};

/// Allowed intents that wait for an outcome.
#[derive(Default)]
pub(super) struct Links {
    open: BTreeMap<u64, Waiting>,
    /// Intents up to here may have been forgotten.
    forgotten: Option<u64>,
    forgotten_forwarded: u64,
}

#[derive(Clone, Copy)]
struct Waiting {
    decision: u64,
    forwarded: bool,
}

/// What an outcome's reference is worth.
enum Link {
    Holds,
    /// It names a leaf that is no allowed intent, or has its outcome already.
    Odd(u64),
    Broken(String),
}

impl Links {
    /// Follows a leaf. An error is a reference that cannot be; a text is one that is odd.
    pub fn follow(&mut self, view: &LeafView<'_>) -> Result<Option<String>, String> {
        let mut worst = Link::Holds;
        match view.type_name {
            "intent.v1" => self.intent(view)?,
            "outcome.v1" => {
                let (seq, id) = view.intent_seq.zip(view.decision_id).ok_or("its reference to an intent is missing")?;
                worst = self.outcome(view.seq, seq, id);
            }
            "outcomes.v1" => {
                let entries = view.entries.ok_or("`entries` is missing")?;
                let walked = items(entries, &mut |raw| {
                    let link = match entry_link(raw) {
                        Some((seq, id)) => self.outcome(view.seq, seq, id),
                        None => Link::Broken("an entry's reference to an intent is missing".into()),
                    };
                    if !matches!(worst, Link::Broken(_)) && !matches!(link, Link::Holds) {
                        worst = link;
                    }
                });
                walked.ok_or("`entries` is no array")?;
            }
            _ => {}
        }
        match worst {
            Link::Holds => Ok(None),
            Link::Odd(seq) => {
                Ok(Some(format!("leaf {} has an outcome for leaf {seq}, which does not wait for one", view.seq)))
            }
            Link::Broken(why) => Err(why),
        }
    }

    /// Allowed intents of the gateway's own doors that have no outcome.
    pub fn without_outcome(&self) -> u64 {
        self.forgotten_forwarded + self.open.values().filter(|waiting| waiting.forwarded).count() as u64
    }

    fn intent(&mut self, view: &LeafView<'_>) -> Result<(), String> {
        let (decision, id) = view.decision.zip(view.decision_id).ok_or("`decision` or `decision_id` is missing")?;
        if decision != "allow" || view.dry_run {
            return Ok(());
        }
        let forwarded = matches!(view.door, Some("route" | "connect" | "sql"));
        self.open.insert(view.seq, Waiting { decision: hash(id), forwarded });
        if self.open.len() > MAX_WAITING
            && let Some((seq, waiting)) = self.open.pop_first()
        {
            self.forgotten = Some(seq);
            self.forgotten_forwarded += u64::from(waiting.forwarded);
        }
        Ok(())
    }

    fn outcome(&mut self, own_seq: u64, intent_seq: u64, decision_id: &str) -> Link {
        if intent_seq >= own_seq {
            return Link::Broken(format!("it is the outcome of leaf {intent_seq}, which is not before it"));
        }
        match self.open.remove(&intent_seq) {
            Some(waiting) if waiting.decision == hash(decision_id) => Link::Holds,
            Some(_) => Link::Broken(format!("its `decision_id` is not that of leaf {intent_seq}")),
            None if self.forgotten.is_some_and(|seq| intent_seq <= seq) => Link::Holds,
            None => Link::Odd(intent_seq),
        }
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// About 60 MB at most.
const MAX_WAITING: usize = 1_000_000;

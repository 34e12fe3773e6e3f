//! Remembered decisions: the same question to the same policies has the same answer.
//!
//! The key holds every value the slice reads, each with its length, so two questions
//! share a key only if no policy could tell them apart.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use moka::sync::Cache;
use serde::Serialize;
use serde_json::Value;

use super::{
    context::amount,
    engine::Slice,
    types::{Evaluation, Input, MemoKind},
};

/// Bound on remembered decisions, in bytes of keys and values.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// A longer key is not worth its room.
const MAX_KEY: usize = 2048;

/// Remembered decisions of one engine.
pub struct Memo {
    decided: Cache<Box<[u8]>, Arc<Evaluation>>,
    hits: AtomicU64,
    misses: AtomicU64,
    uncached: AtomicU64,
}

/// How often remembering helped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoCounters {
    /// Answered from memory.
    pub hits: u64,
    /// Evaluated, then remembered.
    pub misses: u64,
    /// Evaluated; the slice or the size of the key does not allow remembering.
    pub uncached: u64,
}

impl Memo {
    /// An empty memory.
    pub fn new() -> Self {
        let decided = Cache::<Box<[u8]>, Arc<Evaluation>>::builder()
            .max_capacity(MAX_BYTES)
            .weigher(|key, answer| {
                let text: usize = answer.policies.iter().map(String::len).sum::<usize>() + answer.message.len();
                u32::try_from(key.len() + text + 256).unwrap_or(u32::MAX)
            })
            .build();
        Self { decided, hits: AtomicU64::new(0), misses: AtomicU64::new(0), uncached: AtomicU64::new(0) }
    }

    /// The remembered answer, or the one that `decide` gives.
    pub fn recall(&self, slice: &Slice, input: &Input<'_>, decide: impl FnOnce() -> Evaluation) -> Evaluation {
        let Some(key) = key(slice, input) else {
            self.uncached.fetch_add(1, Ordering::Relaxed);
            return decide();
        };
        if let Some(known) = self.decided.get(key.as_slice()) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Evaluation::clone(&known);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let answer = decide();
        self.decided.insert(key.into_boxed_slice(), Arc::new(answer.clone()));
        answer
    }

    /// Totals since the engine was loaded.
    pub fn counters(&self) -> MemoCounters {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        MemoCounters { hits: read(&self.hits), misses: read(&self.misses), uncached: read(&self.uncached) }
    }
}

/// `None` where the slice may not be remembered or the key would be too long.
fn key(slice: &Slice, input: &Input<'_>) -> Option<Vec<u8>> {
    if slice.memo() != MemoKind::Keyed {
        return None;
    }
    let mut key = Key(Vec::with_capacity(256));
    key.0.extend_from_slice(&slice.id.to_le_bytes());
    key.0.extend_from_slice(&input.principal.version.to_le_bytes());
    let (who, call) = (input.principal, input.call);
    key.part(who.agent_id.as_bytes());
    key.part(who.team.as_bytes());
    key.part(call.action.tool().as_bytes());
    key.part(call.action.name().as_bytes());
    for level in [call.class.as_str(), call.entry.class.as_str(), call.entry.risk.as_str()] {
        key.part(level.as_bytes());
    }
    key.0.extend_from_slice(&call.resource.len().to_le_bytes());
    for entity in &call.resource {
        key.part(entity.ty.as_bytes());
        key.part(entity.id.as_bytes());
    }
    for name in &slice.reads.context {
        match name.as_str() {
            "source_trust" => key.part(input.trust.as_str().as_bytes()),
            "route" => key.part(input.route.as_bytes()),
            "door" => key.part(input.door.as_bytes()),
            "identity" => key.part(input.identity.as_bytes()),
            "contains_sensitive_data" => key.maybe(input.contains_sensitive_data.map(|b| vec![u8::from(b)])),
            "amount" => key.value(amount(input))?,
            // A member that this list does not know must not be forgotten.
            _ => return None,
        }
    }
    for name in &slice.reads.parameters {
        key.value(call.action.parameters().get(name))?;
    }
    for name in &slice.reads.principal {
        match name.as_str() {
            "owner" => key.part(who.owner.as_bytes()),
            "environment" => key.part(who.environment.as_bytes()),
            "risk_tier" => key.part(who.risk_tier.as_bytes()),
            "framework" => key.maybe(who.framework.as_ref().map(|f| f.clone().into_bytes())),
            "binding" => key.part(who.binding.as_bytes()),
            _ => return None,
        }
    }
    // A gate reads whether its own group has agreed, and nothing else of the approvals.
    for group in slice.gates() {
        key.0.push(u8::from(input.approval_groups.iter().any(|g| g == group)));
    }
    (key.0.len() <= MAX_KEY).then_some(key.0)
}

/// Parts with their lengths, so that no two lists of parts give the same bytes.
struct Key(Vec<u8>);

impl Key {
    fn part(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes.len().to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn maybe(&mut self, bytes: Option<Vec<u8>>) {
        match bytes {
            Some(bytes) => {
                self.0.push(1);
                self.part(&bytes);
            }
            None => self.0.push(0),
        }
    }

    fn value(&mut self, value: Option<&Value>) -> Option<()> {
        // A string is the common case and can be long: not copied only to be measured.
        if value.and_then(Value::as_str).is_some_and(|s| s.len() > MAX_KEY) {
            return None;
        }
        match value {
            None => self.maybe(None),
            Some(value) => self.maybe(Some(serde_json::to_vec(value).ok()?)),
        }
        Some(())
    }
}

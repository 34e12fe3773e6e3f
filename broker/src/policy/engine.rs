//! The loaded policies: what concerns a request, and what it may do.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aegis_action::{AccessClass, Digest};
use aegis_connectors::{Call, Entry};
use cedar_policy::{Authorizer, Policy, PolicySet};
use moka::sync::Cache;

use super::{
    entities::TypeNames,
    index::Index,
    memo::{Memo, MemoCounters},
    reads::Reads,
    schema::{groups_of, qualified},
    scope::{ACTION, Actions, Constraint, Scope, Subject},
    text::ClauseText,
    types::{MemoKind, PolicyEffect, PolicyInfo, Principal},
};

/// Bound on cached slices, in policies held.
const MAX_SLICED: u64 = 32 * 1024;
/// Ends the key of a slice whose `context.amount` is a fact to be fetched.
const AMOUNT_IS_A_FACT: u32 = u32::MAX;
/// The fact that stands in for a missing `amount`.
const AMOUNT: &str = "amount";

/// An immutable set of policies, checked, indexed and ready to decide.
pub struct PolicyEngine {
    pub(super) hash: Digest,
    pub(super) policies: Vec<Arc<Loaded>>,
    pub(super) by_id: HashMap<String, u32>,
    pub(super) index: Index,
    pub(super) types: TypeNames,
    pub(super) authorizer: Authorizer,
    pub(super) memo: Memo,
    slices: Cache<Box<[u32]>, Arc<Slice>>,
    next_slice: AtomicU64,
}

/// A policy with what was learned about it at load.
#[derive(Debug)]
pub struct Loaded {
    pub info: PolicyInfo,
    pub policy: Policy,
    pub scope: Scope,
    pub reads: Reads,
    /// The approval that lifts it.
    pub gate: Option<Gate>,
    pub clauses: Vec<ClauseText>,
}

/// `@require_approval` and `@quorum`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    pub group: String,
    pub quorum: u32,
}

/// The policies whose head covers a request, with what they read.
pub struct Slice {
    pub(super) id: u64,
    pub(super) members: Vec<Arc<Loaded>>,
    pub(super) set: PolicySet,
    pub(super) reads: Reads,
    facts: BTreeSet<String>,
    gates: BTreeSet<String>,
    memo: MemoKind,
}

impl PolicyEngine {
    /// `policies` are in index order and have distinct ids.
    pub(super) fn assemble(hash: Digest, policies: Vec<Arc<Loaded>>, types: TypeNames) -> Self {
        let by_id = policies.iter().zip(0_u32..).map(|(p, n)| (p.info.id.clone(), n)).collect();
        let index = Index::new(policies.iter().map(|p| &p.scope));
        let slices = Cache::<Box<[u32]>, Arc<Slice>>::builder()
            .max_capacity(MAX_SLICED)
            .weigher(|_, slice| u32::try_from(slice.members.len() + 1).unwrap_or(u32::MAX))
            .build();
        let (authorizer, memo) = (Authorizer::new(), Memo::new());
        Self { hash, policies, by_id, index, types, authorizer, memo, slices, next_slice: AtomicU64::new(0) }
    }

    /// SHA-256 over the sources in name order; part of the snapshot hash.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there are none; then everything is denied.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// A policy by its `@id`.
    pub fn policy(&self, id: &str) -> Option<&PolicyInfo> {
        let number = *self.by_id.get(id)?;
        self.policies.get(number as usize).map(|p| &p.info)
    }

    /// All policies, in order of file and line.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyInfo> {
        self.policies.iter().map(|p| &p.info)
    }

    /// How often decisions came from memory.
    pub fn memo_counters(&self) -> MemoCounters {
        self.memo.counters()
    }

    /// The policies whose head covers this request; conditions are not looked at.
    pub fn slice(&self, principal: &Principal, call: &Call) -> Arc<Slice> {
        let subject = Subject::new(principal, call);
        let mut numbers = self.index.candidates(&subject, |n| self.policies.get(n as usize).map(|p| &p.scope));
        let amount_is_a_fact = call.class == AccessClass::Money
            && call.entry.facts.contains_key(AMOUNT)
            && call.action.parameters().get(AMOUNT).is_none_or(serde_json::Value::is_null);
        if amount_is_a_fact {
            numbers.push(AMOUNT_IS_A_FACT);
        }
        if let Some(slice) = self.slices.get(numbers.as_slice()) {
            return slice;
        }
        let members = numbers.iter().filter_map(|n| self.policies.get(*n as usize)).cloned().collect();
        let slice = Arc::new(Slice::new(self.next_slice.fetch_add(1, Ordering::Relaxed), members, amount_is_a_fact));
        self.slices.insert(numbers.into_boxed_slice(), slice.clone());
        slice
    }

    /// What permits could ever allow this agent, whatever the resource and the conditions.
    pub fn reach(&self, principal: &Principal) -> Reach<'_> {
        let mut reach = Reach::default();
        for policy in &self.policies {
            let scope = &policy.scope;
            if !scope.covers_principal(&principal.agent_id, &principal.team) {
                continue;
            }
            let unconditional = policy.always_forbids() && scope.resource == Constraint::Any;
            match policy.info.effect {
                PolicyEffect::Permit => reach.permitted.push(&scope.actions),
                PolicyEffect::Forbid if unconditional => reach.forbidden.push(&scope.actions),
                PolicyEffect::Forbid => {}
            }
        }
        reach
    }
}

/// What an agent could be allowed at all; for filtering lists, never for deciding.
#[derive(Debug, Default)]
pub struct Reach<'e> {
    permitted: Vec<&'e Actions>,
    forbidden: Vec<&'e Actions>,
}

impl Reach<'_> {
    /// Whether some permit names the action or a group it is in, and no unconditional forbid does.
    pub fn includes(&self, entry: &Entry) -> bool {
        let name = qualified(entry);
        let named = |actions: &&Actions| match actions {
            Actions::Any => true,
            some => some.uids().iter().any(|u| u.ty == ACTION && (u.id == name || groups_of(entry).any(|g| g == u.id))),
        };
        self.permitted.iter().any(named) && !self.forbidden.iter().any(named)
    }
}

impl Slice {
    fn new(id: u64, mut members: Vec<Arc<Loaded>>, mut amount_is_a_fact: bool) -> Self {
        // No fact can turn such a request into an allow, so none is fetched on its behalf:
        // the forbids that ask for one are left out, and the answer is a deny without them.
        if !members.iter().any(|m| m.info.effect == PolicyEffect::Permit) || members.iter().any(|m| m.always_forbids())
        {
            members.retain(|m| m.reads.facts.is_empty());
            amount_is_a_fact = false;
        }
        let mut reads = Reads::default();
        for member in &members {
            reads.merge(&member.reads);
        }
        if amount_is_a_fact && reads.context.contains(AMOUNT) {
            reads.facts.insert(AMOUNT.to_owned());
        }
        let gates = members.iter().filter_map(|m| m.gate.as_ref()).map(|g| g.group.clone()).collect();
        // Ids are distinct, so adding cannot fail; if it did, the policy would be missing
        // from an answer that must then be a deny, so evaluation compares the counts.
        let set = PolicySet::from_policies(members.iter().map(|m| m.policy.clone())).unwrap_or_default();
        Self { id, facts: reads.facts.clone(), gates, memo: reads.memo(), members, set, reads }
    }

    /// Facts that its policies read: the broker fetches these before it evaluates.
    pub fn facts(&self) -> &BTreeSet<String> {
        &self.facts
    }

    /// Whether decisions over it may be remembered.
    pub fn memo(&self) -> MemoKind {
        self.memo
    }

    /// How many policies concern the request.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether no policy concerns the request; then it is denied.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Groups whose approval some policy here asks for.
    pub fn gates(&self) -> &BTreeSet<String> {
        &self.gates
    }

    /// A member by id; slices are short.
    pub(super) fn member(&self, id: &str) -> Option<&Loaded> {
        self.members.iter().find(|m| m.info.id == id).map(|m| &**m)
    }

    /// Whether Cedar holds every member.
    pub(super) fn is_complete(&self) -> bool {
        self.set.num_of_policies() == self.members.len()
    }
}

impl Loaded {
    /// Whether it denies all that its head covers, whatever else is true.
    fn always_forbids(&self) -> bool {
        self.info.effect == PolicyEffect::Forbid && self.clauses.is_empty()
    }
}

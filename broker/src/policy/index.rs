//! Which policies could concern a request: looked up, not searched.
//!
//! Cedar's cost is linear in the policies it is given. Each policy is filed under the
//! part of its head that it shares with the fewest others; a request looks under its
//! resource and ancestors, its agent and team, its action and groups, and what is found
//! is checked against the rest of the head.

use foldhash::HashMap;

use super::scope::{AGENT, Actions, Scope, Subject, TEAM, Uid};

/// Policy numbers by the part of the head they are filed under.
#[derive(Debug, Default)]
pub struct Index {
    resource: ByUid,
    principal: ByUid,
    action: HashMap<String, Vec<u32>>,
    always: Vec<u32>,
}

#[derive(Debug, Default)]
struct ByUid(HashMap<String, HashMap<String, Vec<u32>>>);

impl Index {
    /// Files every scope; its number is its place.
    pub fn new<'a>(scopes: impl Iterator<Item = &'a Scope> + Clone) -> Self {
        let shared = Self::all_keys(scopes.clone());
        let mut index = Self::default();
        for (number, scope) in (0_u32..).zip(scopes) {
            index.file(number, scope, &shared);
        }
        index
    }

    /// Numbers of the policies whose head covers the request, ascending. `scope` gives a
    /// policy's head.
    pub fn candidates<'s>(&self, subject: &Subject<'_>, scope: impl Fn(u32) -> Option<&'s Scope>) -> Vec<u32> {
        let mut found: Vec<u32> = self.always.clone();
        for (ty, id) in subject.resources() {
            found.extend_from_slice(self.resource.get(ty, id));
        }
        found.extend_from_slice(self.principal.get(AGENT, subject.agent));
        found.extend_from_slice(self.principal.get(TEAM, subject.team));
        for name in subject.actions() {
            found.extend_from_slice(self.action.get(name).map_or(&[], Vec::as_slice));
        }
        found.retain(|number| scope(*number).is_some_and(|s| s.covers(subject)));
        found.sort_unstable();
        // A policy that names several actions is filed under each.
        found.dedup();
        found
    }

    /// Every policy under every key it could have: how many share each.
    fn all_keys<'a>(scopes: impl Iterator<Item = &'a Scope>) -> Self {
        let mut all = Self::default();
        for (number, scope) in (0_u32..).zip(scopes) {
            if let Some(uid) = scope.resource.uid() {
                all.resource.push(uid, number);
            }
            if let Some(uid) = scope.principal.uid() {
                all.principal.push(uid, number);
            }
            all.push_actions(&scope.actions, number);
        }
        all
    }

    fn file(&mut self, number: u32, scope: &Scope, shared: &Self) {
        let by_resource = scope.resource.uid().map(|uid| (shared.resource.get(&uid.ty, &uid.id).len(), uid));
        let by_principal = scope.principal.uid().map(|uid| (shared.principal.get(&uid.ty, &uid.id).len(), uid));
        let by_action = match &scope.actions {
            Actions::Any => usize::MAX,
            some => some.uids().iter().map(|uid| shared.action.get(&uid.id).map_or(0, Vec::len)).sum(),
        };
        let resource = by_resource.map_or(usize::MAX, |(n, _)| n);
        let principal = by_principal.map_or(usize::MAX, |(n, _)| n);
        match (by_resource, by_principal) {
            (Some((_, uid)), _) if resource <= principal && resource <= by_action => self.resource.push(uid, number),
            (_, Some((_, uid))) if principal <= by_action => self.principal.push(uid, number),
            _ if by_action < usize::MAX => self.push_actions(&scope.actions, number),
            _ => self.always.push(number),
        }
    }

    fn push_actions(&mut self, actions: &Actions, number: u32) {
        for uid in actions.uids() {
            self.action.entry(uid.id.clone()).or_default().push(number);
        }
    }
}

impl ByUid {
    fn push(&mut self, uid: &Uid, number: u32) {
        self.0.entry(uid.ty.clone()).or_default().entry(uid.id.clone()).or_default().push(number);
    }

    fn get(&self, ty: &str, id: &str) -> &[u32] {
        self.0.get(ty).and_then(|ids| ids.get(id)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use aegis_connectors::EntityRef;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::scope::{ACTION, Constraint};

    fn some_uid(types: &'static [&'static str]) -> impl Strategy<Value = Uid> {
        (proptest::sample::select(types), 0..4_u8).prop_map(|(ty, n)| Uid { ty: ty.into(), id: n.to_string() })
    }

    fn constraint(types: &'static [&'static str]) -> impl Strategy<Value = Constraint> {
        let ty = || proptest::sample::select(types).prop_map(String::from);
        prop_oneof![
            Just(Constraint::Any),
            some_uid(types).prop_map(Constraint::Eq),
            some_uid(types).prop_map(Constraint::In),
            ty().prop_map(Constraint::Is),
            (ty(), some_uid(types)).prop_map(|(t, u)| Constraint::IsIn(t, u)),
        ]
    }

    fn scope() -> impl Strategy<Value = Scope> {
        let actions = prop_oneof![
            Just(Actions::Any),
            some_uid(&[ACTION]).prop_map(Actions::Eq),
            proptest::collection::vec(some_uid(&[ACTION]), 0..3).prop_map(Actions::In),
        ];
        (constraint(&[AGENT, TEAM]), actions, constraint(&["Repo", "Org"]))
            .prop_map(|(principal, actions, resource)| Scope { principal, actions, resource })
    }

    proptest! {
        #[test]
        fn finds_exactly_what_a_search_would(scopes in proptest::collection::vec(scope(), 0..40), who in 0..4_u8, what in 0..4_u8, on in 0..5_u8) {
            let id = who.to_string();
            let chain = [EntityRef { ty: "Repo".into(), id: on.to_string() }, EntityRef { ty: "Org".into(), id: (on % 2).to_string() }];
            let resource = if on == 4 { &[] } else { chain.as_slice() };
            let subject = Subject { agent: &id, team: "1", action: what.to_string(), groups: ["3", "3", "w", "low"], resource, tool: "t" };
            let index = Index::new(scopes.iter());
            let found = index.candidates(&subject, |n| scopes.get(n as usize));
            let searched: Vec<u32> = (0_u32..).zip(&scopes).filter(|(_, s)| s.covers(&subject)).map(|(n, _)| n).collect();
            prop_assert_eq!(found, searched);
        }
    }
}

//! A policy's head, as the index and the explanation need it.

use aegis_connectors::{Call, EntityRef};
use cedar_policy::pst;

use super::types::Principal;

/// Cedar type of actions and action groups.
pub const ACTION: &str = "Action";
/// Cedar type of agents.
pub const AGENT: &str = "Agent";
/// Cedar type of teams.
pub const TEAM: &str = "Team";
/// Cedar type of the resource of an action that has none; its id is the system's name.
pub const UNSCOPED: &str = "Unscoped";

/// An entity as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid {
    /// Type, e.g. `GitHub::Repository`.
    pub ty: String,
    /// Id, e.g. `octo/payments`.
    pub id: String,
}

/// What a head says of principal or resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// Nothing.
    Any,
    /// `== uid`.
    Eq(Uid),
    /// `in uid`.
    In(Uid),
    /// `is type`.
    Is(String),
    /// `is type in uid`.
    IsIn(String, Uid),
}

/// What a head says of the action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actions {
    /// Nothing.
    Any,
    /// `== uid`.
    Eq(Uid),
    /// `in uid` or `in [uid, …]`.
    In(Vec<Uid>),
}

/// A policy's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Who.
    pub principal: Constraint,
    /// What.
    pub actions: Actions,
    /// On what.
    pub resource: Constraint,
}

/// One request as heads see it.
pub struct Subject<'a> {
    /// Agent id and team.
    pub agent: &'a str,
    /// Its only parent.
    pub team: &'a str,
    /// `tool.action`.
    pub action: String,
    /// The groups that the action is in.
    pub groups: [&'a str; 4],
    /// The resource and its ancestors; empty for none.
    pub resource: &'a [EntityRef],
    /// Id of the `Unscoped` entity that stands for no resource.
    pub tool: &'a str,
}

impl<'a> Subject<'a> {
    /// Reads principal and call.
    pub fn new(principal: &'a Principal, call: &'a Call) -> Self {
        Self {
            agent: &principal.agent_id,
            team: &principal.team,
            action: call.action.qualified_name(),
            groups: groups(call),
            resource: &call.resource,
            tool: call.action.tool(),
        }
    }

    /// The resource and its ancestors as (type, id), nearest first.
    pub fn resources(&self) -> impl Iterator<Item = (&str, &str)> {
        let unscoped = self.resource.is_empty().then_some((UNSCOPED, self.tool));
        self.resource.iter().map(|r| (&*r.ty, r.id.as_str())).chain(unscoped)
    }

    /// The action and its groups.
    pub fn actions(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.action.as_str()).chain(self.groups)
    }
}

/// System, class of this call, class of the entry, risk. A raised class comes on top: a
/// forbid on either still covers the call.
pub fn groups(call: &Call) -> [&str; 4] {
    [call.action.tool(), call.class.as_str(), call.entry.class.as_str(), call.entry.risk.as_str()]
}

impl Scope {
    /// Reads a policy's head; static policies only.
    pub fn of(body: &pst::Template) -> Self {
        use pst::{ActionConstraint as A, PrincipalConstraint as P, ResourceConstraint as R};
        let principal = match &body.principal {
            P::Any => Constraint::Any,
            P::Eq(e) => Constraint::Eq(entity(e)),
            P::In(e) => Constraint::In(entity(e)),
            P::Is(ty) => Constraint::Is(ty.to_string()),
            P::IsIn(ty, e) => Constraint::IsIn(ty.to_string(), entity(e)),
        };
        let resource = match &body.resource {
            R::Any => Constraint::Any,
            R::Eq(e) => Constraint::Eq(entity(e)),
            R::In(e) => Constraint::In(entity(e)),
            R::Is(ty) => Constraint::Is(ty.to_string()),
            R::IsIn(ty, e) => Constraint::IsIn(ty.to_string(), entity(e)),
        };
        let actions = match &body.action {
            A::Any => Actions::Any,
            A::Eq(e) => Actions::Eq(uid(e)),
            A::In(list) => Actions::In(list.iter().map(uid).collect()),
        };
        Self { principal, actions, resource }
    }

    /// Whether the head covers a request.
    pub fn covers(&self, subject: &Subject<'_>) -> bool {
        self.actions.cover(subject)
            && self.covers_principal(subject.agent, subject.team)
            && self.covers_resource(subject)
    }

    /// Whether the head covers an agent of a team.
    pub fn covers_principal(&self, agent: &str, team: &str) -> bool {
        self.principal.covers([(AGENT, agent), (TEAM, team)].into_iter())
    }

    /// Whether the head covers the resource.
    pub fn covers_resource(&self, subject: &Subject<'_>) -> bool {
        self.resource.covers(subject.resources())
    }
}

impl Constraint {
    /// `chain` is the entity and its ancestors, the entity first.
    fn covers<'a>(&self, mut chain: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
        let same = |uid: &Uid, at: (&str, &str)| uid.ty == at.0 && uid.id == at.1;
        match self {
            Self::Any => true,
            Self::Eq(uid) => chain.next().is_some_and(|at| same(uid, at)),
            Self::In(uid) => chain.any(|at| same(uid, at)),
            Self::Is(ty) => chain.next().is_some_and(|at| ty == at.0),
            Self::IsIn(ty, uid) => match chain.next() {
                Some(at) => ty == at.0 && (same(uid, at) || chain.any(|at| same(uid, at))),
                None => false,
            },
        }
    }

    /// The entity that anything covered is or is below.
    pub fn uid(&self) -> Option<&Uid> {
        match self {
            Self::Eq(uid) | Self::In(uid) | Self::IsIn(_, uid) => Some(uid),
            Self::Any | Self::Is(_) => None,
        }
    }

    /// The head's own words, e.g. `resource in GitHub::Repository::"octo/payments"`.
    pub fn words(&self, variable: &str) -> String {
        match self {
            Self::Any => variable.to_owned(),
            Self::Eq(uid) => format!("{variable} == {uid}"),
            Self::In(uid) => format!("{variable} in {uid}"),
            Self::Is(ty) => format!("{variable} is {ty}"),
            Self::IsIn(ty, uid) => format!("{variable} is {ty} in {uid}"),
        }
    }
}

impl Actions {
    /// Whether the request's action is named or below a named group.
    pub fn cover(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Eq(uid) => uid.ty == ACTION && uid.id == subject.action,
            Self::In(list) => list.iter().any(|uid| uid.ty == ACTION && subject.actions().any(|name| name == uid.id)),
        }
    }

    /// Every action or group that is named.
    pub fn uids(&self) -> &[Uid] {
        match self {
            Self::Any => &[],
            Self::Eq(uid) => std::slice::from_ref(uid),
            Self::In(list) => list,
        }
    }
}

impl std::fmt::Display for Uid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::\"{}\"", self.ty, self.id.escape_default())
    }
}

/// An entity literal of a policy.
pub fn uid(entity: &pst::EntityUID) -> Uid {
    Uid { ty: entity.ty.to_string(), id: entity.eid.to_string() }
}

fn entity(entity: &pst::EntityOrSlot) -> Uid {
    match entity {
        pst::EntityOrSlot::Entity(e) => uid(e),
        // A slot is refused before a head is read; if one came here it would match nothing.
        pst::EntityOrSlot::Slot(slot) => Uid { ty: String::new(), id: slot.to_string() },
    }
}

//! The Cedar entities of one decision: agent, action, resource, each with its parents.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use aegis_action::AccessClass;
use aegis_connectors::EntityRef;
use cedar_policy::{Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use moka::sync::Cache;

use super::{
    reads::Reads,
    scope::{ACTION, AGENT, TEAM, UNSCOPED, groups},
    types::{Input, Principal},
};

/// Entity type names, parsed once, and the entities of recent requests.
#[derive(Debug)]
pub struct TypeNames {
    known: HashMap<String, EntityTypeName>,
    recent: Cache<CastKey, Arc<Cast>>,
}

/// Everything that the entities of a request are made of.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CastKey {
    principal: Principal,
    attributes: bool,
    action: String,
    class: AccessClass,
    resource: Vec<EntityRef>,
}

/// The three entities of a request.
#[derive(Debug)]
pub struct Cast {
    /// `Agent::"…"`.
    pub principal: EntityUid,
    /// `Action::"tool.action"`.
    pub action: EntityUid,
    /// The resource, or `Unscoped::"tool"`.
    pub resource: EntityUid,
    /// All three with their parents.
    pub entities: Entities,
}

impl TypeNames {
    /// The fixed types and those of the catalogs; the first that is not a Cedar name is the error.
    pub fn new<'a>(types: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut known = HashMap::new();
        for ty in types.into_iter().chain([AGENT, TEAM, ACTION, UNSCOPED]) {
            known.insert(ty.to_owned(), parse(ty)?);
        }
        Ok(Self { known, recent: Cache::new(MAX_RECENT) })
    }

    fn uid(&self, ty: &str, id: &str) -> Result<EntityUid, String> {
        let name = match self.known.get(ty) {
            Some(name) => name.clone(),
            None => parse(ty)?,
        };
        Ok(EntityUid::from_type_name_and_id(name, EntityId::new(id)))
    }

    /// The entities, built or remembered. Attributes of the agent only where they are read.
    pub fn cast(&self, input: &Input<'_>, reads: &Reads) -> Result<Arc<Cast>, String> {
        let key = CastKey {
            principal: input.principal.clone(),
            attributes: !reads.principal.is_empty(),
            action: input.call.action.qualified_name(),
            class: input.call.class,
            resource: input.call.resource.clone(),
        };
        if let Some(cast) = self.recent.get(&key) {
            return Ok(cast);
        }
        let cast = Arc::new(self.build(input, reads)?);
        self.recent.insert(key, cast.clone());
        Ok(cast)
    }

    fn build(&self, input: &Input<'_>, reads: &Reads) -> Result<Cast, String> {
        let who = input.principal;
        let principal = self.uid(AGENT, &who.agent_id)?;
        let team = HashSet::from([self.uid(TEAM, &who.team)?]);
        let agent = if reads.principal.is_empty() {
            Entity::new_no_attrs(principal.clone(), team)
        } else {
            Entity::new(principal.clone(), attributes(who), team).map_err(|e| e.to_string())?
        };

        let action = self.uid(ACTION, &input.call.action.qualified_name())?;
        let above = groups(input.call).into_iter().map(|g| self.uid(ACTION, g)).collect::<Result<_, _>>()?;
        let doing = Entity::new_no_attrs(action.clone(), above);

        // All ancestors stand as direct parents: nothing above the resource is ever asked about by itself.
        let mut chain = input.call.resource.iter();
        let resource = match chain.next() {
            Some(own) => self.uid(&own.ty, &own.id)?,
            None => self.uid(UNSCOPED, input.call.action.tool())?,
        };
        let above = chain.map(|r| self.uid(&r.ty, &r.id)).collect::<Result<HashSet<_>, _>>()?;
        let target = Entity::new_no_attrs(resource.clone(), above);

        let entities = Entities::from_entities([agent, doing, target], None).map_err(|e| e.to_string())?;
        Ok(Cast { principal, action, resource, entities })
    }
}

fn attributes(who: &Principal) -> HashMap<String, RestrictedExpression> {
    let all = [
        ("owner", Some(&who.owner)),
        ("environment", Some(&who.environment)),
        ("risk_tier", Some(&who.risk_tier)),
        ("framework", who.framework.as_ref()),
        ("binding", Some(&who.binding)),
    ];
    let given = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
    given.map(|(name, value)| (name.to_owned(), RestrictedExpression::new_string(value.clone()))).collect()
}

const MAX_RECENT: u64 = 8192;

fn parse(ty: &str) -> Result<EntityTypeName, String> {
    ty.parse().map_err(|_| format!("`{ty}` is not a Cedar type name"))
}

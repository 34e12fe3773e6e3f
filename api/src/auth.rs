//! Who is calling, at each of the two doors.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use aegis_broker::{
    Broker,
    identity::{AuthError, Identity},
    record::ReceiptRef,
    refuse::Refusal,
    store::{PersonRecord, PersonRole},
    token::{TokenKind, well_formed},
};
use aegis_receipts::Door;
use axum::extract::{ConnectInfo, FromRequestParts};
use http::{HeaderMap, StatusCode, header, request::Parts};

use crate::{
    admin::AdminState,
    error::{ApiError, Failure},
};

/// Request extension: the address that the request came from, where it is known.
///
/// Whoever calls a router in process sets it; a router served by axum takes the address of
/// the connection (`ConnectInfo`) without it. Tokens that are bound to addresses are
/// refused where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub Option<IpAddr>);

/// The agent that calls.
pub(crate) struct Caller {
    pub(crate) identity: Arc<Identity>,
    broker: Arc<Broker>,
    peer: Option<IpAddr>,
}

impl Caller {
    /// Puts a refusal of this agent's request on record, if it is one.
    pub(crate) fn deny(&self, error: impl Into<ApiError>) -> Failure {
        let error = error.into();
        let receipt = is_refusal(&error).then(|| {
            let agent = Some(self.identity.agent.agent_id.as_str());
            refuse(&self.broker, &error, agent, self.peer, None)
        });
        Failure { error, receipt: receipt.flatten().map(|r| r.receipt_id) }
    }
}

impl FromRequestParts<Arc<Broker>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, broker: &Arc<Broker>) -> Result<Self, Failure> {
        let peer = peer(parts);
        let token = match agent_token(&parts.headers) {
            Ok(token) => token,
            // Nobody asked for anything yet; a challenge is not a denial.
            Err(AuthError::Missing) => return Err(AuthError::Missing.into()),
            Err(error) => return Err(refused(broker, error.into(), None, peer, None)),
        };
        match broker.auth.agent(token, peer, broker.env.clock.now()).await {
            Ok(identity) => Ok(Self { identity, broker: broker.clone(), peer }),
            Err((error, identity)) => {
                let agent = identity.as_ref().map(|i| i.agent.agent_id.as_str());
                Err(refused(broker, error.into(), agent, peer, None))
            }
        }
    }
}

/// An admin.
pub(crate) struct Admin(pub(crate) PersonRecord);
/// An approver.
pub(crate) struct Approver(pub(crate) PersonRecord);
/// An admin or an approver.
pub(crate) struct Person(pub(crate) PersonRecord);

impl FromRequestParts<AdminState> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Failure> {
        person(parts, state, &[PersonRole::Admin], "this needs an admin's token").await.map(Self)
    }
}

impl FromRequestParts<AdminState> for Approver {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Failure> {
        let words = "only an approver's token approves or rejects; admins and agents never do";
        person(parts, state, &[PersonRole::Approver], words).await.map(Self)
    }
}

impl FromRequestParts<AdminState> for Person {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Failure> {
        let words = "this needs an admin's or an approver's token";
        person(parts, state, &[PersonRole::Admin, PersonRole::Approver], words).await.map(Self)
    }
}

/// The person of the bearer token. A token that holds but is of another kind is told so; one that
/// does not hold is not told anything, and counts against its address.
async fn person(
    parts: &Parts,
    state: &AdminState,
    roles: &[PersonRole],
    needed: &'static str,
) -> Result<PersonRecord, Failure> {
    let (broker, peer) = (state.broker(), peer(parts));
    let now = broker.env.clock.now();
    let token = match bearer(&parts.headers) {
        Ok(Some(token)) => token,
        Ok(None) => return Err(AuthError::Missing.into()),
        Err(error) => return Err(failed(state, error, None, peer)),
    };
    let role = [PersonRole::Admin, PersonRole::Approver].into_iter().find(|role| well_formed((*role).into(), token));
    if let Some(role) = role {
        return match broker.auth.person(token, role, now).await {
            Ok(person) if roles.contains(&role) => Ok(person),
            Ok(_) => Err(refused(broker, ApiError::WrongRole(needed), None, peer, Some(ADMIN_DOOR))),
            Err(error) => Err(failed(state, error, None, peer)),
        };
    }
    if !well_formed(TokenKind::Agent, token) {
        return Err(failed(state, AuthError::Unknown, None, peer));
    }
    match broker.auth.agent(token, peer, now).await {
        Ok(agent) => {
            Err(refused(broker, ApiError::WrongRole(needed), Some(&agent.agent.agent_id), peer, Some(ADMIN_DOOR)))
        }
        Err((error, agent)) => Err(failed(state, error, agent.as_ref().map(|a| a.agent.agent_id.as_str()), peer)),
    }
}

/// A failed authentication at the admins' door.
pub(crate) fn failed(state: &AdminState, error: AuthError, agent: Option<&str>, peer: Option<IpAddr>) -> Failure {
    match state.throttle().failed(peer, state.broker().env.clock.now()) {
        Ok(()) => refused(state.broker(), error.into(), agent, peer, Some(ADMIN_DOOR)),
        Err(seconds) => ApiError::Throttled { seconds }.into(),
    }
}

fn refused(
    broker: &Broker,
    error: ApiError,
    agent: Option<&str>,
    peer: Option<IpAddr>,
    detail: Option<&str>,
) -> Failure {
    let receipt = refuse(broker, &error, agent, peer, detail).map(|r| r.receipt_id);
    Failure { error, receipt }
}

fn refuse(
    broker: &Broker,
    error: &ApiError,
    agent: Option<&str>,
    peer: Option<IpAddr>,
    detail: Option<&str>,
) -> Option<ReceiptRef> {
    broker.refuse(&Refusal {
        agent_id: agent,
        route: None,
        door: Door::Sdk,
        reason: error.reason(),
        detail: Some(detail.map_or_else(|| error.to_string(), str::to_owned)),
        status: error.status().as_u16(),
        peer,
        trace_id: None,
    })
}

/// Whether an error refuses what the agent sent, as against failing to serve it.
fn is_refusal(error: &ApiError) -> bool {
    match error.status() {
        StatusCode::BAD_REQUEST
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::REQUEST_TIMEOUT
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE => true,
        StatusCode::CONFLICT => error.reason() == "request_id_reused",
        _ => false,
    }
}

pub(crate) fn peer(parts: &Parts) -> Option<IpAddr> {
    match parts.extensions.get::<Peer>() {
        Some(Peer(ip)) => *ip,
        None => parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip()),
    }
}

/// The agent's token, from the one place or from two that agree.
fn agent_token(headers: &HeaderMap) -> Result<&str, AuthError> {
    let bearer = bearer(headers)?;
    let mut own = headers.get_all(AGENT_HEADER).iter();
    let named = match (own.next(), own.next()) {
        (None, _) => None,
        (Some(value), None) => Some(value.to_str().map_err(|_| AuthError::Unknown)?),
        (Some(_), Some(_)) => return Err(AuthError::Conflicting),
    };
    match (bearer, named) {
        (Some(a), Some(b)) if a != b => Err(AuthError::Conflicting),
        (Some(token), _) | (None, Some(token)) => Ok(token),
        (None, None) => Err(AuthError::Missing),
    }
}

/// The token of `Authorization: Bearer` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (all.next(), all.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().map_err(|_| AuthError::Unknown)?,
        (Some(_), Some(_)) => return Err(AuthError::Conflicting),
    };
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim_matches(' '))),
        _ => Err(AuthError::Unknown),
    }
}

const AGENT_HEADER: &str = "aegis-agent-token";
const ADMIN_DOOR: &str = "at the admins' door";

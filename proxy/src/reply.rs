//! Refusals as the tool's own clients expect an error, each with its receipt.

use std::time::Duration;

use aegis_broker::{
    Broker,
    admit::{AdmitError, Door},
    identity::AuthError,
    permit::LeaseError,
    record::{DecisionRecord, DecisionWord},
    refuse::Refusal as RefusalLeaf,
};
use aegis_connectors::{Denial, ErrorReply, Refusal};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_core::protocols::http::ServerSession;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::{FailToProxy, Session};

use crate::{body, dial::DialError, exchange::Exchange, framing::Request, grpc, path::Gate, peer::Kind};

/// Why a request goes no further, or the answer of the gateway's own API.
pub(crate) enum Reply {
    /// Refused.
    Refused {
        status: StatusCode,
        reason: &'static str,
        message: String,
        agent_id: Option<String>,
        /// The connection cannot be used again.
        close: bool,
    },
    /// Decided: the leaf is written already.
    Decided(Box<DecisionRecord>),
    /// Answered by the API, which writes its own leaves.
    Api(Box<http::Response<Bytes>>),
}

impl Reply {
    pub(crate) fn refusal(status: StatusCode, reason: &'static str, message: &str) -> Self {
        Self::Refused { status, reason, message: message.to_owned(), agent_id: None, close: DOUBTFUL.contains(&status) }
    }

    /// As [`Reply::refusal`], for a request whose body is in an unknown state.
    pub(crate) fn closing(status: StatusCode, reason: &'static str, message: &str) -> Self {
        Self::Refused { status, reason, message: message.to_owned(), agent_id: None, close: true }
    }

    pub(crate) fn auth(error: AuthError, agent_id: Option<String>) -> Self {
        Self::Refused {
            status: error.status(),
            reason: error.reason(),
            message: error.to_string(),
            agent_id,
            close: false,
        }
    }

    /// As [`Reply::auth`], for the credential that is shown to the gateway as a proxy.
    pub(crate) fn proxy_auth(error: AuthError, agent_id: Option<String>) -> Self {
        let status = match error.status() {
            StatusCode::UNAUTHORIZED => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            other => other,
        };
        let (reason, message) = (error.reason(), error.to_string());
        Self::Refused { status, reason, message, agent_id, close: false }
    }

    pub(crate) fn decided(record: &DecisionRecord) -> Self {
        Self::Decided(Box::new(record.clone()))
    }

    pub(crate) fn no_route() -> Self {
        Self::refusal(StatusCode::NOT_FOUND, "unknown_route", "no route")
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Refused {
            status: refusal.status,
            reason: refusal.reason,
            message: refusal.detail,
            agent_id: None,
            close: false,
        }
    }
}

impl From<AdmitError> for Reply {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Auth(error) => Self::auth(error, None),
            AdmitError::Unrecorded(internal) => {
                tracing::error!(error = %internal, "decision could not be recorded");
                Self::refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "unrecorded",
                    "the decision cannot be recorded, so nothing was sent; try again",
                )
            }
        }
    }
}

impl From<LeaseError> for Reply {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Auth(error) => Self::auth(error, None),
            LeaseError::Vault { name, source } => {
                tracing::error!(credential = %name, error = %source, "credential could not be leased");
                Self::refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "credential_unavailable",
                    &format!(
                        "the credential `{name}` cannot be had; an admin adds it with `aegis credential add {name}`"
                    ),
                )
            }
            LeaseError::NoVault(vault) => {
                tracing::error!(%vault, "vault is not configured");
                Self::refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "credential_unavailable",
                    "the route's secret store is not configured",
                )
            }
        }
    }
}

impl From<DialError> for Reply {
    fn from(error: DialError) -> Self {
        tracing::warn!(%error, "upstream refused or unreachable");
        match error {
            DialError::Forbidden => Self::refusal(
                StatusCode::BAD_GATEWAY,
                "address_forbidden",
                "the upstream resolves to an address that the route may not dial",
            ),
            DialError::Unresolved(_) => {
                Self::refusal(StatusCode::BAD_GATEWAY, "upstream_unresolved", "the upstream's name cannot be resolved")
            }
            DialError::ClientKey(_) => Self::refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "credential_unavailable",
                "the key of the route's client certificate cannot be used",
            ),
            DialError::ProxyCredential(_) => Self::refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "credential_unavailable",
                "the credential for the upstream proxy cannot be used",
            ),
        }
    }
}

impl Gate {
    /// Hands a request to the API in-process and brings the answer back.
    pub(crate) async fn answer_api(&self, session: &mut Session, request: &Request, x: &Exchange) -> Reply {
        if request.content_length.is_some_and(|n| n > API_BODY as u64) {
            return Reply::closing(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "the request body may have 1 MiB at most",
            );
        }
        if request.expects_continue && session.write_continue_response().await.is_err() {
            return Reply::closing(StatusCode::BAD_REQUEST, "client_gone", "the client closed the connection");
        }
        let body = if request.has_body {
            match body::buffer(session, API_BODY, request, API_TIME).await {
                Ok(body) => body,
                Err(refusal) => return refusal,
            }
        } else {
            Bytes::new()
        };
        let target = request.query.as_ref().map_or_else(|| request.path.clone(), |q| format!("{}?{q}", request.path));
        let Ok(mut call) = http::Request::builder().method(request.method.clone()).uri(target).body(body) else {
            return Reply::refusal(StatusCode::BAD_REQUEST, "bad_path", "the request target is not a URI");
        };
        call.headers_mut().extend(request.headers.clone());
        call.headers_mut().extend(request.credentials.clone());
        x.conn.judging();
        Reply::Api(Box::new((self.api)(call, x.peer).await))
    }
}

/// Writes a reply downstream; a refusal first becomes a leaf.
pub(crate) async fn send(broker: &Broker, session: &mut Session, x: &mut Exchange, reply: Reply) -> Result<()> {
    x.conn.judging();
    let (answer, close) = answer(broker, x, reply);
    x.replied = true;
    // An unread body would be taken for the next request; a little is read, more closes the connection.
    // On HTTP/2 an unread body would reset the stream, which many clients show instead of the answer.
    let unread = (!close || is_h2(session)) && !body::drain(session).await;
    if close || unread || x.conn.leaving() {
        session.set_keepalive(None);
    }
    write(session, answer, x.is_head()).await
}

/// The answer that a reply is, and whether the connection ends with it.
pub(crate) fn answer(broker: &Broker, x: &mut Exchange, reply: Reply) -> (ErrorReply, bool) {
    match reply {
        Reply::Api(answer) => {
            let (parts, body) = answer.into_parts();
            let headers = parts.headers.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
            if matches!(parts.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
                && !parts.headers.contains_key("aegis-receipt")
            {
                // Somebody looks for doors that are not there.
                broker.refuse(&RefusalLeaf {
                    agent_id: None,
                    route: None,
                    door: Door::Sdk,
                    reason: if parts.status == StatusCode::NOT_FOUND { "no_such_path" } else { "method_not_allowed" },
                    detail: None,
                    status: parts.status.as_u16(),
                    peer: x.peer,
                    trace_id: x.trace_id.clone(),
                });
            }
            (ErrorReply { status: parts.status, headers, body }, false)
        }
        Reply::Decided(record) => (decided(x, &record), false),
        Reply::Refused { status, reason, message, agent_id, close } => {
            (refused(broker, x, status, reason, message, agent_id), close)
        }
    }
}

fn is_h2(session: &Session) -> bool {
    session.req_header().version == http::Version::HTTP_2
}

/// The upstream failed after the permit was spent, or the answer was refused.
pub(crate) async fn failed(broker: &Broker, session: &mut Session, e: &Error, x: &mut Exchange) -> FailToProxy {
    let status = match (e.etype(), e.esource()) {
        (ErrorType::HTTPStatus(code), _) => StatusCode::from_u16(*code).unwrap_or(StatusCode::BAD_GATEWAY),
        (ErrorType::ReadTimedout | ErrorType::ConnectTimedout | ErrorType::WriteTimedout, ErrorSource::Upstream) => {
            StatusCode::GATEWAY_TIMEOUT
        }
        (ErrorType::ReadTimedout, ErrorSource::Downstream) => StatusCode::REQUEST_TIMEOUT,
        (_, ErrorSource::Upstream) => StatusCode::BAD_GATEWAY,
        (ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed, ErrorSource::Downstream) => {
            // Nobody is left to be told.
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        (_, ErrorSource::Downstream) => StatusCode::BAD_REQUEST,
        (_, ErrorSource::Internal | ErrorSource::Unset) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    // By kind only: the error's own words may hold what was sent.
    let route = x.scope.as_ref().map(|s| s.label()).unwrap_or_default();
    tracing::warn!(
        route,
        kind = e.etype().as_str(),
        status = status.as_u16(),
        cause = e.cause.as_ref().map(|c| c.to_string()).filter(|_| matches!(
            e.etype(),
            ErrorType::ConnectError
                | ErrorType::TLSHandshakeFailure
                | ErrorType::ConnectRefused
                | ErrorType::InvalidCert
                | ErrorType::ConnectNoRoute
        )),
        "upstream exchange failed"
    );
    if session.response_written().is_none() && !x.replied {
        let (reason, message) = match status {
            StatusCode::GATEWAY_TIMEOUT => {
                ("upstream_timeout", "the upstream did not answer in time; whether it acted is unknown")
            }
            StatusCode::SERVICE_UNAVAILABLE => ("unrecorded", "the record cannot be written"),
            StatusCode::REQUEST_TIMEOUT => ("body_timeout", "the request body did not arrive in time"),
            StatusCode::BAD_REQUEST => ("bad_body_framing", "the request body is cut short or badly framed"),
            StatusCode::INTERNAL_SERVER_ERROR => ("internal", "the gateway failed; see its log"),
            _ => ("upstream_unavailable", "the upstream could not be reached, or its answer could not be used"),
        };
        if x.sending.is_none() {
            // Refused before there was a permit: on record like every refusal.
            let answer = refused(broker, x, status, reason, message.to_owned(), None);
            let _ = write(session, answer, x.is_head()).await;
        } else {
            let headers = std::mem::take(&mut x.headers);
            let denial = denial(status, reason, message.to_owned(), header_value(&headers, "aegis-receipt"), None);
            let mut answer = shaped(x, &denial);
            for (name, value) in headers {
                push(&mut answer, name, &value);
            }
            let _ = write(session, answer, x.is_head()).await;
        }
    }
    FailToProxy { error_code: status.as_u16(), can_reuse_downstream: false }
}

fn decided(x: &mut Exchange, record: &DecisionRecord) -> ErrorReply {
    let waits = record.decision == DecisionWord::RequireApproval;
    let reason = if waits { "approval_required" } else { record.reason.as_str() };
    let approval = record.approval.as_ref().map(|a| a.approval_id.clone());
    let denial = denial(
        StatusCode::FORBIDDEN,
        reason,
        record.message.clone(),
        Some(record.receipt.receipt_id.clone()),
        approval,
    );
    let mut answer = shaped(x, &denial);
    for (name, value) in std::mem::take(&mut x.headers) {
        push(&mut answer, name, &value);
    }
    push(&mut answer, "aegis-reason", reason);
    if let Some(approval) = &record.approval {
        push(&mut answer, "aegis-approval", &approval.approval_id);
        push(&mut answer, "retry-after", "5");
    }
    answer
}

fn refused(
    broker: &Broker,
    x: &mut Exchange,
    status: StatusCode,
    reason: &'static str,
    message: String,
    agent_id: Option<String>,
) -> ErrorReply {
    let agent = agent_id.or_else(|| x.identity.as_ref().map(|i| i.agent.agent_id.clone()));
    if reason == AuthError::Missing.reason() {
        // A challenge is no refusal: nobody has asked for anything yet, and there is no leaf.
        broker.metrics.refusal(reason);
        let asked = denial(status, reason, message, None, None);
        let mut answer = match &x.scope {
            Some(scope) if status == StatusCode::UNAUTHORIZED && x.kind != Kind::Grpc => scope.connector.challenge(),
            Some(_) if x.kind == Kind::Grpc => shaped(x, &asked),
            Some(_) | None => challenge(x, &asked),
        };
        push(&mut answer, "aegis-reason", reason);
        return answer;
    }
    let receipt = broker.refuse(&RefusalLeaf {
        agent_id: agent.as_deref(),
        route: x.scope.as_ref().map(|s| s.label()),
        door: x.door,
        reason,
        detail: Some(message.clone()),
        status: status.as_u16(),
        peer: x.peer,
        trace_id: x.trace_id.clone(),
    });
    let receipt_id = receipt.map(|r| r.receipt_id);
    let denial = denial(status, reason, message, receipt_id.clone(), None);
    let mut answer = challenge(x, &denial);
    push(&mut answer, "aegis-decision", "deny");
    push(&mut answer, "aegis-reason", reason);
    if let Some(id) = receipt_id {
        push(&mut answer, "aegis-receipt", &id);
    }
    answer
}

/// The tool's own error shape, with the challenge's headers where the status needs them.
fn challenge(x: &Exchange, denial: &Denial) -> ErrorReply {
    match denial.status {
        StatusCode::UNAUTHORIZED => {
            let mut answer = shaped(x, denial);
            let challenge = x.scope.as_ref().map(|s| s.connector.challenge().headers).unwrap_or_default();
            for (name, value) in challenge.into_iter().filter(|(n, _)| *n == header::WWW_AUTHENTICATE) {
                answer.headers.push((name, value));
            }
            answer
        }
        // It is not the tool that asks.
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            let mut answer = problem(denial);
            answer.headers.push((header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"aegis\"")));
            answer
        }
        _ => shaped(x, denial),
    }
}

fn shaped(x: &Exchange, denial: &Denial) -> ErrorReply {
    if x.kind == Kind::Grpc {
        let media = (header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let status = grpc::status_of(denial).into_iter().filter_map(|(name, value)| Some((name?, value)));
        return ErrorReply {
            status: StatusCode::OK,
            headers: [media].into_iter().chain(status).collect(),
            body: Bytes::new(),
        };
    }
    x.scope.as_ref().map_or_else(|| problem(denial), |scope| scope.connector.denial(denial))
}

/// Where there is no route yet: RFC 9457.
fn problem(denial: &Denial) -> ErrorReply {
    let body = serde_json::json!({
        "type": "about:blank", "title": denial.reason, "status": denial.status.as_u16(), "detail": denial.message, "receipt": denial.receipt,
    });
    ErrorReply {
        status: denial.status,
        headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))],
        body: Bytes::from(body.to_string()),
    }
}

fn denial(
    status: StatusCode,
    reason: &str,
    message: String,
    receipt: Option<String>,
    approval: Option<String>,
) -> Denial {
    Denial { status, reason: reason.to_owned(), message, receipt, approval }
}

fn header_value(headers: &[(&'static str, String)], name: &str) -> Option<String> {
    headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone())
}

fn push(answer: &mut ErrorReply, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers.push((HeaderName::from_static(name), value));
    }
}

async fn write(session: &mut Session, answer: ErrorReply, is_head: bool) -> Result<()> {
    if let ServerSession::H2(h2) = session.as_downstream_mut()
        && answer.headers.iter().any(|(name, _)| name.as_str() == "grpc-status")
    {
        // gRPC clients read a status in trailers alone.
        let (trailers, headers): (Vec<_>, Vec<_>) =
            answer.headers.into_iter().partition(|(name, _)| name.as_str().starts_with("grpc-"));
        let mut head = ResponseHeader::build(answer.status, Some(headers.len()))?;
        for (name, value) in headers {
            head.append_header(name, value)?;
        }
        h2.write_response_header(Box::new(head), false)?;
        return h2.write_trailers(trailers.into_iter().collect());
    }
    let mut head = ResponseHeader::build(answer.status, Some(answer.headers.len() + 2))?;
    for (name, value) in
        answer.headers.into_iter().filter(|(n, _)| *n != header::CONTENT_LENGTH && *n != header::TRANSFER_ENCODING)
    {
        head.append_header(name, value)?;
    }
    head.insert_header(header::CONTENT_LENGTH, answer.body.len())?;
    head.insert_header(header::CACHE_CONTROL, "private, no-store")?;
    let bodyless = is_head || answer.body.is_empty();
    session.write_response_header(Box::new(head), bodyless).await?;
    if !bodyless {
        session.write_response_body(Some(answer.body), true).await?;
    }
    Ok(())
}

/// Requests refused for how they are written: where the next one begins is in doubt, or soon could be.
const DOUBTFUL: [StatusCode; 4] = [
    StatusCode::BAD_REQUEST,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::EXPECTATION_FAILED,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
];
const API_BODY: usize = 1024 * 1024;
const API_TIME: Duration = Duration::from_secs(10);

//! One request's state, from head to outcome.

use std::{net::IpAddr, sync::Arc, time::Instant};

use aegis_broker::{
    Broker,
    config::{ConnectorKind, Route},
    credential::Credential,
    identity::Identity,
    permit::{Outcome, Ticket},
    record::DecisionRecord,
    snapshot::Scope,
};
use aegis_connectors::{Connector, Mapped, UpstreamRequest, UriFields};
use aegis_receipts::{OutcomeState, Transfer};
use bytes::Bytes;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};

use crate::{
    conn::ConnState,
    framing::Request,
    guard::{Digester, ResponseGuard},
};

/// What a request carries through Pingora's callbacks.
pub(crate) struct Exchange {
    broker: Arc<Broker>,
    pub(crate) conn: ConnState,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) scope: Option<Arc<Scope>>,
    /// Path behind the route's prefix, as sent.
    pub(crate) path: String,
    pub(crate) trace_id: Option<String>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) sending: Option<Sending>,
    /// `Host` and the part of the path that selected the route, for URLs in answers.
    base: String,
    is_head: bool,
    sent: bool,
    started: Instant,
}

impl Exchange {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        broker.metrics.in_flight.inc();
        Self {
            broker,
            conn: ConnState::default(),
            peer: None,
            identity: None,
            scope: None,
            path: String::new(),
            trace_id: None,
            headers: Vec::new(),
            sending: None,
            base: String::new(),
            is_head: false,
            sent: false,
            started: Instant::now(),
        }
    }

    pub(crate) fn frame(&mut self, request: &Request) {
        self.trace_id.clone_from(&request.trace.trace_id);
        self.is_head = request.method == http::Method::HEAD;
    }

    /// Takes the route: from here on refusals have its shape.
    pub(crate) fn enter(&mut self, scope: &Arc<Scope>, request: &Request) {
        let by_path = self.conn.route().is_none()
            && scope.route.as_ref().is_some_and(|r| !r.hosts.iter().any(|h| request.host.split(':').next() == Some(h)));
        let name = scope.label();
        let prefix = if by_path { format!("/{name}") } else { String::new() };
        let rest = request.path.strip_prefix(&prefix).unwrap_or(&request.path);
        self.path = if rest.is_empty() { "/".to_owned() } else { rest.to_owned() };
        // GitHub Enterprise clients put this in front of every path and expect it back.
        let enterprise = scope.route.as_ref().is_some_and(|r| r.connector == ConnectorKind::Github)
            && self.path.starts_with("/api/v3/");
        self.base = format!("http://{}{prefix}{}", request.host, if enterprise { "/api/v3" } else { "" });
        self.scope = Some(scope.clone());
    }

    pub(crate) fn mapped(&mut self, mapped: &Mapped, connector: &dyn Connector) {
        let _ = connector;
        if let [one] = mapped.calls.as_slice() {
            self.headers.push(("aegis-action-hash", one.action.hash().to_hex()));
        }
    }

    pub(crate) fn decided(&mut self, record: &DecisionRecord) {
        self.broker.metrics.decide_seconds.observe(self.started.elapsed().as_secs_f64());
        self.headers.retain(|(name, _)| *name != "aegis-action-hash");
        self.headers.push(("aegis-decision", record.decision.as_str().to_owned()));
        self.headers.push(("aegis-receipt", record.receipt.receipt_id.clone()));
        self.headers.push(("aegis-action-hash", record.action_hash.to_hex()));
    }

    pub(crate) fn route(&self) -> std::result::Result<&Arc<Route>, crate::reply::Reply> {
        self.scope.as_ref().and_then(|s| s.route.as_ref()).ok_or_else(crate::reply::Reply::no_route)
    }

    /// From the upstream's origin to the base URL that the client used.
    pub(crate) fn base_urls(&self) -> Option<(String, String)> {
        let upstream = &self.scope.as_ref()?.route.as_ref()?.upstream;
        (!self.base.ends_with("http://"))
            .then(|| (format!("{}{}", upstream.origin(), upstream.base_path), self.base.clone()))
    }

    /// Permitted: only the outcome is still to be recorded.
    pub(crate) fn sent(&mut self) {
        self.sent = true;
        self.conn.sent();
    }

    pub(crate) fn sending(&mut self) -> Result<&mut Sending> {
        self.sending.as_mut().ok_or_else(|| Error::explain(ErrorType::InternalError, "no permit"))
    }

    pub(crate) fn is_head(&self) -> bool {
        self.is_head
    }

    /// The outcome leaf, and the end of the request for the connection's watcher.
    pub(crate) fn close(&mut self, error: Option<&Error>) {
        if let Some(sending) = self.sending.take() {
            sending.close(&self.broker, error);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.conn.leave(self.sent);
        self.broker.metrics.in_flight.dec();
    }
}

/// A spent permit on its way: the rebuilt request, the credential, and the ticket that is owed.
pub(crate) struct Sending {
    pub(crate) request: UpstreamRequest,
    pub(crate) credential: Option<Arc<Credential>>,
    pub(crate) status: Option<u16>,
    pub(crate) guard: ResponseGuard,
    /// Set once bytes may have reached the upstream.
    pub(crate) started: bool,
    ticket: Ticket,
    peer: Option<Box<HttpPeer>>,
    sent: Digester,
    fault: Option<&'static str>,
    pub(crate) leased: Instant,
}

impl Sending {
    pub(crate) fn new(
        request: UpstreamRequest,
        credential: Option<Arc<Credential>>,
        ticket: Ticket,
        peer: Box<HttpPeer>,
        rewrite: Option<Arc<dyn UriFields>>,
        base: Option<(String, String)>,
    ) -> Self {
        let guard = ResponseGuard::new(credential.as_ref().map(|c| c.echoes.clone()), rewrite, base);
        Self {
            request,
            credential,
            status: None,
            guard,
            started: false,
            ticket,
            peer: Some(peer),
            sent: Digester::default(),
            fault: None,
            leased: Instant::now(),
        }
    }

    /// Once only: a second dial of the same permit would be a resend.
    pub(crate) fn take_peer(&mut self) -> Result<Box<HttpPeer>> {
        self.peer.take().ok_or_else(|| Error::explain(ErrorType::InternalError, "permit already spent"))
    }

    pub(crate) fn note_sent(&mut self, body: Option<&Bytes>, end: bool) {
        self.sent.push(body, end);
    }

    pub(crate) fn fail(&mut self, fault: &'static str) {
        self.fault = Some(fault);
    }

    pub(crate) async fn durable(&mut self) -> Result<()> {
        self.ticket.durable().await.map_err(|_| {
            self.fault = Some("unrecorded");
            Error::explain(ErrorType::HTTPStatus(503), "the intent could not be made durable")
        })
    }

    pub(crate) fn guard_body(&mut self, body: &mut Option<Bytes>, end: bool) {
        self.guard.body(body, end);
    }

    fn close(self, broker: &Broker, error: Option<&Error>) {
        let state = match (error, self.status, self.started) {
            (None, Some(_), _) => OutcomeState::Completed,
            (Some(_), _, false) => OutcomeState::Aborted,
            // The upstream's answer head came, the rest did not get through: it did what it did.
            (Some(_), Some(_), true) if self.fault.is_some() => OutcomeState::Failed,
            _ => OutcomeState::Unknown,
        };
        let masked = self.guard.masked();
        if masked > 0 {
            broker.metrics.masked_echoes.inc_by(masked);
        }
        let received: Option<Transfer> = self.guard.received();
        self.ticket.close(Outcome {
            status: self.status,
            sent: self.sent.transfer(),
            received,
            tamper: if masked > 0 { Some("credential_echo".into()) } else { self.fault.map(str::to_owned) },
            ended: broker.env.clock.now(),
            state,
        });
    }
}

//! One request's state, from head to outcome.

use std::{net::IpAddr, sync::Arc, time::Instant};

use aegis_broker::{
    Broker,
    admit::Door,
    config::{ConnectorKind, Route},
    credential::{Credential, Secrets},
    identity::Identity,
    permit::{Outcome, Ticket},
    record::DecisionRecord,
    snapshot::Scope,
};
use aegis_connectors::{UpstreamRequest, UriFields};
use aegis_receipts::{OutcomeState, Transfer};
use bytes::Bytes;
use http::Version;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};

use crate::{
    conn::{ConnState, InPath},
    decode::Coding,
    framing::Request,
    grpc,
    guard::{Digester, GuardFault, ResponseGuard},
    lifeline::Lifeline,
    messages::FrameReader,
    peer::Kind,
    way::Way,
};

/// What a request carries through Pingora's callbacks.
pub(crate) struct Exchange {
    broker: Arc<Broker>,
    pub(crate) conn: ConnState,
    /// How the request came in, for leaves and policies.
    pub(crate) door: Door,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) scope: Option<Arc<Scope>>,
    /// Path behind the route's prefix, as sent.
    pub(crate) path: String,
    pub(crate) trace_id: Option<String>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) sending: Option<Sending>,
    /// A reply of ours was made. That it cannot be delivered is not a refusal of its own.
    pub(crate) replied: bool,
    pub(crate) lifeline: Lifeline,
    /// What the request turns out to be; [`Kind::Http`] until its route says more.
    pub(crate) kind: Kind,
    /// The coding that answers are asked for in.
    coding: &'static str,
    /// What of the request's path was there only to reach the route.
    prefix: String,
    /// GitHub Enterprise clients put `/api/v3` in front of every path and expect it back.
    enterprise: bool,
    in_path: Option<InPath>,
    is_head: bool,
    started: Instant,
}

impl Exchange {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        broker.metrics.in_flight.inc();
        Self {
            broker,
            conn: ConnState::default(),
            door: Door::Route,
            peer: None,
            identity: None,
            scope: None,
            path: String::new(),
            trace_id: None,
            headers: Vec::new(),
            sending: None,
            replied: false,
            lifeline: Lifeline::of_request(),
            kind: Kind::Http,
            coding: "identity",
            prefix: String::new(),
            enterprise: false,
            in_path: None,
            is_head: false,
            started: Instant::now(),
        }
    }

    /// Takes the connection: from here on its watcher leaves answers to us.
    pub(crate) fn arrive(&mut self, conn: ConnState) {
        self.in_path = Some(conn.enter());
        self.door = conn.ingress().door();
        self.conn = conn;
    }

    pub(crate) fn frame(&mut self, request: &Request) {
        self.trace_id.clone_from(&request.trace.trace_id);
        self.is_head = request.method == http::Method::HEAD;
        if request.absolute {
            self.door = Door::Connect;
        }
        self.coding = Coding::to_ask_for(&request.headers);
        self.kind = if request.websocket { Kind::WebSocket } else { Kind::Http };
    }

    /// Takes the route: from here on refusals have its shape.
    pub(crate) fn enter(&mut self, way: &Way, request: &Request) {
        let Way { scope, prefix } = way;
        let rest = request.path.strip_prefix(prefix).unwrap_or(&request.path);
        self.path = if rest.is_empty() { "/".to_owned() } else { rest.to_owned() };
        self.enterprise = scope.route.as_ref().is_some_and(|r| r.connector == ConnectorKind::Github)
            && self.path.starts_with("/api/v3/");
        self.prefix.clone_from(prefix);
        self.scope = Some(scope.clone());
        let takes = scope.route.as_ref().is_some_and(|r| r.egress.grpc);
        if takes && request.version == Version::HTTP_2 && grpc::is_grpc(&request.headers) {
            self.kind = Kind::Grpc;
        }
    }

    pub(crate) fn decided(&mut self, record: &DecisionRecord) {
        self.broker.metrics.decide_seconds.observe(self.started.elapsed().as_secs_f64());
        self.headers.push(("aegis-decision", record.decision.as_str().to_owned()));
        self.headers.push(("aegis-receipt", record.receipt.receipt_id.clone()));
        self.headers.push(("aegis-action-hash", record.action_hash.to_hex()));
    }

    pub(crate) fn route(&self) -> std::result::Result<&Arc<Route>, crate::reply::Reply> {
        self.scope.as_ref().and_then(|s| s.route.as_ref()).ok_or_else(crate::reply::Reply::no_route)
    }

    /// From the upstream's origin to the base URL that the client used, with the part of the path that
    /// led to the route; `None` where they are the same, as for most clients of the forward proxy.
    pub(crate) fn base_urls(&self, request: &Request) -> Option<(String, String)> {
        let upstream = &self.scope.as_ref()?.route.as_ref()?.upstream;
        if request.host.is_empty() {
            return None;
        }
        let from = format!("{}{}", upstream.origin(), upstream.base_path);
        let (scheme, enterprise) = (self.conn.ingress().scheme(), if self.enterprise { "/api/v3" } else { "" });
        let to = format!("{scheme}://{}{}{enterprise}", request.host, self.prefix);
        (from != to).then_some((from, to))
    }

    /// Permitted: only the outcome is still to be recorded.
    pub(crate) fn sent(&mut self) {
        if let Some(in_path) = &mut self.in_path {
            in_path.sent();
        }
    }

    pub(crate) fn sending(&mut self) -> Result<&mut Sending> {
        self.sending.as_mut().ok_or_else(|| Error::explain(ErrorType::InternalError, "no permit"))
    }

    pub(crate) fn is_head(&self) -> bool {
        self.is_head
    }

    pub(crate) fn coding(&self) -> &'static str {
        self.coding
    }

    /// The outcome leaf, and the end of the request for the connection's watcher.
    pub(crate) fn close(&mut self, error: Option<&Error>) {
        if let Some(sending) = self.sending.take() {
            sending.close(&self.broker, error.is_some());
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(mut sending) = self.sending.take() {
            // Dropped on the way: its agent was contained, or the process ends.
            if let Some(reason) = self.lifeline.cut() {
                sending.fail(reason);
            }
            sending.close(&self.broker, true);
        }
        self.broker.metrics.in_flight.dec();
    }
}

/// A spent permit on its way: the rebuilt request, the credential, and the ticket that is owed.
pub(crate) struct Sending {
    pub(crate) request: UpstreamRequest,
    pub(crate) credential: Option<Arc<Credential>>,
    /// Frames of the agent's, once it speaks WebSocket.
    frames: Option<FrameReader>,
    pub(crate) status: Option<u16>,
    pub(crate) guard: ResponseGuard,
    /// Set once bytes may have reached the upstream.
    pub(crate) started: bool,
    /// The judged body is on its way.
    pub(crate) handed_over: bool,
    ticket: Ticket,
    /// Those that were not tried yet, the next one last.
    peers: Vec<HttpPeer>,
    sent: Digester,
    fault: Option<&'static str>,
    pub(crate) leased: Instant,
}

impl Sending {
    pub(crate) fn new(
        request: UpstreamRequest,
        secrets: Secrets,
        ticket: Ticket,
        mut peers: Vec<HttpPeer>,
        urls: Option<(Arc<dyn UriFields>, (String, String))>,
    ) -> Self {
        let credential = secrets.credential;
        peers.reverse();
        let guard = ResponseGuard::new(credential.as_ref().map(|c| c.echoes.clone()), urls);
        Self {
            request,
            credential,
            frames: None,
            status: None,
            guard,
            started: false,
            handed_over: false,
            ticket,
            peers,
            sent: Digester::default(),
            fault: None,
            leased: Instant::now(),
        }
    }

    /// Each once, and none once something was sent: a second dial of the same permit would be a resend.
    pub(crate) fn take_peer(&mut self) -> Result<Box<HttpPeer>> {
        let next = if self.started { None } else { self.peers.pop() };
        next.map(Box::new).ok_or_else(|| Error::explain(ErrorType::InternalError, "permit already spent"))
    }

    pub(crate) fn has_another_peer(&self) -> bool {
        !self.started && !self.peers.is_empty()
    }

    /// The upstream has switched: what comes now, both ways, is frames.
    pub(crate) fn switched(&mut self) {
        self.frames = Some(FrameReader::of_client());
        self.guard.frames();
    }

    pub(crate) fn note_sent(&mut self, body: Option<&Bytes>, end: bool) -> Result<()> {
        self.sent.push(body, end);
        if let (Some(frames), Some(chunk)) = (&mut self.frames, body)
            && let Err(fault) = frames.push(chunk)
        {
            self.fault = Some("bad_frame");
            return Err(Error::because(ErrorType::InvalidHTTPHeader, "from the agent", fault).into_down());
        }
        Ok(())
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

    pub(crate) fn guard_body(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        self.guard.body(body, end).map_err(|fault: GuardFault| {
            self.fault = Some(fault.reason());
            body.take();
            Error::because(ErrorType::HTTPStatus(502), "the answer cannot be passed on", fault).into_up()
        })
    }

    fn close(self, broker: &Broker, failed: bool) {
        let state = match (failed, self.status, self.started) {
            (false, Some(_), _) => OutcomeState::Completed,
            (true, _, false) => OutcomeState::Aborted,
            // The upstream's answer head came, the rest did not get through: it did what it did.
            (true, Some(_), true) if self.fault.is_some() => OutcomeState::Failed,
            _ => OutcomeState::Unknown,
        };
        let masked = self.guard.masked();
        if masked > 0 {
            broker.metrics.masked_echoes.inc_by(masked);
        }
        let received: Option<Transfer> = self.guard.received();
        self.ticket.close(Outcome {
            status: self.status,
            sent: self.sent.transfer(self.frames.as_ref().map(FrameReader::count)),
            received,
            tamper: if masked > 0 { Some("credential_echo".into()) } else { self.fault.map(str::to_owned) },
            ended: broker.env.clock.now(),
            state,
        });
    }
}

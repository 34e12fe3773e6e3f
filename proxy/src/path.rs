//! The whole request path, top to bottom.
//!
//! ```text
//! bytes -> framing -> route -> agent -> grammar -> body -> actions
//!       -> admit: freeze, facts, policy, approvals, intent leaves -> Permit
//!       -> lease credential -> vet and dial -> rebuild, inject -> upstream
//!       -> response guard (scrub, rewrite) -> agent -> outcome leaf
//! ```

use std::{sync::Arc, time::Duration};

use aegis_broker::{
    Broker,
    admit::{ApprovalUse, Ask},
};
use aegis_connectors::{Head, UpstreamBody};
use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::{modules::http::HttpModules, upstreams::peer::HttpPeer};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::{
    agent, body,
    conn::ConnState,
    dial::Dialer,
    exchange::{Exchange, Sending},
    framing, hold,
    listen::AgentApi,
    reply::{self, Reply},
    upstream, way,
};

/// The application behind every listener: one pipeline, whatever the ingress.
pub(crate) struct Gate {
    pub(crate) broker: Arc<Broker>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) api: AgentApi,
}

impl Gate {
    /// From bytes to a leased permit, or to the reply that refuses. Nothing is sent upstream before this is `Ok`.
    async fn decide(&self, session: &mut Session, x: &mut Exchange) -> Result<(), Reply> {
        let mut request = framing::read(session, &x.conn)?;
        x.frame(&request);
        body::settle(session, &mut request).await;
        way::agree(&request, &x.conn)?;
        let snapshot = self.broker.snapshot();
        if way::is_api(&snapshot, &request, &x.conn) {
            framing::no_upgrade(&request)?;
            return Err(self.answer_api(session, &request, x).await);
        }
        // Where identity is looked for and the shape of every refusal depend on the route.
        let way = match way::route(&snapshot, &request, &x.conn) {
            Ok(way) => way,
            Err(refusal) => return Err(agent::before_refusal(&self.broker, &request, x, refusal).await),
        };
        let scope = way.scope.clone();
        x.enter(&way, &request);
        framing::suits(&request, x)?;
        let identity = agent::authenticate(&self.broker, &request, x).await?;
        x.identity = Some(identity.clone());
        let head = Head {
            method: &request.method,
            path: &x.path,
            query: request.query.as_deref(),
            headers: &request.headers,
            content_length: request.content_length,
            has_body: request.has_body,
            websocket: request.websocket,
        };
        let (connector, plan) = framing::plan(&scope, &head)?;
        let body = body::read(session, plan.body, &request, x.route()?).await?;
        let mapped = connector.map(plan, body)?;
        x.conn.judging();
        let ask = Ask {
            identity: &identity,
            snapshot: &snapshot,
            scope: &scope,
            calls: &mapped.calls,
            door: x.door,
            declared_trust: request.declared_trust,
            contains_sensitive_data: None,
            trace: &request.trace,
            request_id: None,
            dry_run: false,
            approvals: ApprovalUse::Any,
        };
        let mut verdict = self.broker.admit(ask).await?;
        if hold::granted(&self.broker, session, &verdict.record, x.route()?.approval_hold, &x.conn).await {
            verdict = self.broker.admit(ask).await?;
        }
        x.decided(&verdict.record);
        let Some(permit) = verdict.permit else { return Err(Reply::decided(&verdict.record)) };
        let urls = mapped.rewrite.and_then(|fields| Some((fields, x.base_urls(&request)?)));
        let mut request = mapped.upstream;
        permit.add_preconditions(&mut request);
        // From here the permit is spent: whatever happens next is an outcome on record.
        let (secrets, ticket) = self.broker.lease(permit).await?;
        let peers = match self.dialer.peers(x.route()?, &identity, &secrets, x.kind).await {
            Ok(peers) => peers,
            Err(refused) => {
                ticket.close(upstream::nothing_sent(self.broker.env.clock.now()));
                return Err(refused.into());
            }
        };
        x.lifeline.tie(&self.broker, &identity, &x.conn);
        body::pace(session, x.route()?, x.kind);
        x.sending = Some(Sending::new(request, secrets, ticket, peers, urls));
        Ok(())
    }
}

#[async_trait]
impl ProxyHttp for Gate {
    /// Boxed: Pingora moves its request's state, this included, several times a request.
    type CTX = Box<Exchange>;

    fn new_ctx(&self) -> Box<Exchange> {
        Box::new(Exchange::new(self.broker.clone()))
    }

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, x: &mut Box<Exchange>) -> Result<()> {
        x.arrive(ConnState::of(session));
        // Interim answers end at the gateway: clients that know none of them take one for the answer.
        session.set_ignore_info_resp(true);
        session.set_write_timeout(x.conn.write_timeout());
        x.peer = x.conn.peer();
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, x: &mut Box<Exchange>) -> Result<bool> {
        match self.decide(session, x).await {
            Ok(()) => {
                x.sent();
                Ok(false)
            }
            // The successor has the stream with all that was read of it, and decides.
            Err(_) if x.conn.moved() => Err(Error::new_down(ErrorType::ConnectionClosed)),
            Err(refusal) => reply::send(&self.broker, session, x, refusal).await.map(|()| true),
        }
    }

    async fn upstream_peer(&self, _: &mut Session, x: &mut Box<Exchange>) -> Result<Box<HttpPeer>> {
        x.sending()?.take_peer()
    }

    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, x: &mut Box<Exchange>, mut e: Box<Error>) -> Box<Error> {
        // Nothing was sent yet: the name's next address may do.
        e.set_retry(x.sending.as_ref().is_some_and(Sending::has_another_peer));
        e
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        x: &mut Box<Exchange>,
    ) -> Result<()> {
        // What was judged is what is sent: nothing of the agent's own head is kept.
        *request = upstream::rebuild(request.version, x)?;
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        x: &mut Box<Exchange>,
    ) -> Result<()> {
        let sending = x.sending()?;
        match &sending.request.body {
            UpstreamBody::Empty => *body = None,
            UpstreamBody::Bytes(judged) => {
                // Once, and at the end, which with trailers behind the body only a missing piece tells.
                // Until then an empty piece: a missing one would end the upstream's body as well.
                let over = end || body.is_none();
                *body = match (over, sending.handed_over) {
                    (false, _) => Some(Bytes::new()),
                    (true, false) => Some(judged.clone()),
                    (true, true) => None,
                };
                sending.handed_over |= over;
            }
            UpstreamBody::Stream => {}
        }
        sending.note_sent(body.as_ref(), end)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        x: &mut Box<Exchange>,
    ) -> Result<()> {
        if x.conn.leaving() {
            session.set_keepalive(None);
        }
        upstream::guard_head(&self.broker, answer, x)?;
        // The sync of a read's intent overlapped the upstream call; it ends before the agent sees a byte.
        x.sending()?.durable().await
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        x: &mut Box<Exchange>,
    ) -> Result<Option<Duration>> {
        if !end && let Some(refusal) = x.identity.as_ref().and_then(|i| i.refusal(self.broker.env.clock.now())) {
            // Contained while the answer streams: the connection ends here.
            body.take();
            x.sending()?.fail(refusal.reason());
            return Err(Error::explain(ErrorType::HTTPStatus(refusal.status().as_u16()), "agent contained"));
        }
        x.sending()?.guard_body(body, end)?;
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        trailers: &mut http::HeaderMap,
        x: &mut Box<Exchange>,
    ) -> Result<Option<Bytes>> {
        upstream::guard_trailers(trailers, x)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        _: &mut Session,
        mut e: Box<Error>,
        _: &mut Box<Exchange>,
        _: bool,
    ) -> Box<Error> {
        // A credential went out: an unknown outcome is never retried silently.
        e.set_retry(false);
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, x: &mut Box<Exchange>) -> FailToProxy {
        reply::failed(&self.broker, session, e, x).await
    }

    async fn logging(&self, _: &mut Session, e: Option<&Error>, x: &mut Box<Exchange>) {
        x.close(e);
    }
}

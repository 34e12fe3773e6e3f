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
    admit::{ApprovalUse, Ask, Door},
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
    framing,
    listen::AgentApi,
    reply::{self, Reply},
    upstream,
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
        let request = framing::read(session)?;
        x.frame(&request);
        if framing::is_api(&request, &x.conn) {
            return Err(self.answer_api(session, &request, x).await);
        }
        // Where identity is looked for and the shape of every refusal depend on the route.
        let snapshot = self.broker.snapshot();
        let scope = framing::route(&snapshot, &request, &x.conn)?;
        x.enter(&scope, &request);
        let identity = agent::authenticate(&self.broker, &request, x.peer).await?;
        x.identity = Some(identity.clone());
        let head = Head {
            method: &request.method,
            path: &x.path,
            query: request.query.as_deref(),
            headers: &request.headers,
            content_length: request.content_length,
            has_body: request.has_body,
        };
        let (connector, plan) = framing::plan(&scope, &head)?;
        let body = body::read(session, plan.body, &request, x.route()?).await?;
        let mapped = connector.map(plan, body)?;
        x.mapped(&mapped, connector.as_ref());
        x.conn.judging();
        let verdict = self
            .broker
            .admit(Ask {
                identity: &identity,
                snapshot: &snapshot,
                scope: &scope,
                calls: &mapped.calls,
                door: Door::Route,
                declared_trust: request.declared_trust,
                contains_sensitive_data: None,
                trace: &request.trace,
                request_id: None,
                dry_run: false,
                approvals: ApprovalUse::Any,
            })
            .await?;
        x.decided(&verdict.record);
        let Some(permit) = verdict.permit else { return Err(Reply::decided(&verdict.record)) };
        let mut request = mapped.upstream;
        permit.add_preconditions(&mut request);
        // From here the permit is spent: whatever happens next is an outcome on record.
        let (credential, ticket) = self.broker.lease(permit).await?;
        let peer = match self.dialer.peer(x.route()?, &identity, credential.as_deref()).await {
            Ok(peer) => peer,
            Err(refused) => {
                ticket.close(upstream::nothing_sent(self.broker.env.clock.now()));
                return Err(refused.into());
            }
        };
        x.sending = Some(Sending::new(request, credential, ticket, peer, mapped.rewrite, x.base_urls()));
        Ok(())
    }
}

#[async_trait]
impl ProxyHttp for Gate {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.broker.clone())
    }

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, x: &mut Exchange) -> Result<()> {
        x.conn = ConnState::of(session);
        x.conn.enter();
        // Interim answers end at the gateway: clients that know none of them take one for the answer.
        session.set_ignore_info_resp(true);
        session.set_write_timeout(x.conn.write_timeout());
        x.peer = x.conn.peer().or_else(|| session.client_addr().and_then(|a| a.as_inet()).map(|a| a.ip()));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, x: &mut Exchange) -> Result<bool> {
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

    async fn upstream_peer(&self, _: &mut Session, x: &mut Exchange) -> Result<Box<HttpPeer>> {
        x.sending()?.take_peer()
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        x: &mut Exchange,
    ) -> Result<()> {
        // What was judged is what is sent: nothing of the agent's own head is kept.
        *request = upstream::rebuild(x)?;
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        x: &mut Exchange,
    ) -> Result<()> {
        let sending = x.sending()?;
        match &sending.request.body {
            UpstreamBody::Empty => *body = None,
            UpstreamBody::Bytes(judged) => *body = end.then(|| judged.clone()),
            UpstreamBody::Stream => {}
        }
        sending.note_sent(body.as_ref(), end);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        x: &mut Exchange,
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
        x: &mut Exchange,
    ) -> Result<Option<Duration>> {
        if !end && let Some(refusal) = x.identity.as_ref().and_then(|i| i.refusal(self.broker.env.clock.now())) {
            // Contained while the answer streams: the connection ends here.
            body.take();
            return Err(Error::explain(ErrorType::HTTPStatus(refusal.status().as_u16()), "agent contained"));
        }
        x.sending()?.guard_body(body, end);
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        trailers: &mut http::HeaderMap,
        _: &mut Exchange,
    ) -> Result<Option<Bytes>> {
        trailers.clear();
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        _: &mut Session,
        mut e: Box<Error>,
        _: &mut Exchange,
        _: bool,
    ) -> Box<Error> {
        // A credential went out: an unknown outcome is never retried silently.
        e.set_retry(false);
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, x: &mut Exchange) -> FailToProxy {
        reply::failed(&self.broker, session, e, x).await
    }

    async fn logging(&self, _: &mut Session, e: Option<&Error>, x: &mut Exchange) {
        x.close(e);
    }
}

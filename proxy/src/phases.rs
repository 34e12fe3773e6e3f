//! Pingora's callbacks in the order in which they are called: where each step of `path` hangs.

use std::time::Duration;

use aegis_connectors::UpstreamBody;
use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::{modules::http::HttpModules, upstreams::peer::HttpPeer};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::{
    conn::ConnState,
    exchange::{Exchange, Sending},
    path::Gate,
    reply, upstream,
};

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

//! The whole request path, top to bottom.
//!
//! ```text
//! bytes -> framing -> route -> agent -> grammar -> body -> actions
//!       -> admit: freeze, facts, policy, approvals, intent leaves -> Permit
//!       -> lease credential -> vet and dial -> rebuild, inject -> upstream
//!       -> response guard (scrub, rewrite) -> agent -> outcome leaf
//! ```
//!
//! All that decides is [`Gate::decide`]. What happens on the way to the upstream and back hangs on
//! Pingora's callbacks, see `phases`.

use std::sync::Arc;

use aegis_broker::{
    Broker,
    admit::{ApprovalUse, Ask},
};
use aegis_connectors::Head;
use pingora_proxy::Session;

use crate::{
    agent, body,
    dial::Dialer,
    exchange::{Exchange, Sending},
    framing, hold,
    listen::AgentApi,
    reply::Reply,
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
    pub(crate) async fn decide(&self, session: &mut Session, x: &mut Exchange) -> Result<(), Reply> {
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

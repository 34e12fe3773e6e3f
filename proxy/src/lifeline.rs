//! What an agent has open ends when the agent is contained, also while no byte flows.
//!
//! Pingora calls back only when something moves. So each request runs beside a watch of its own, in the
//! same task: once a permit is spent the watch looks at the agent every second, and what it ends is
//! dropped whole, both connections included. Outcomes are written on drop, see `exchange`.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Poll, ready},
    time::Duration,
};

use aegis_broker::{Broker, identity::Identity};
use async_trait::async_trait;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream},
    protocols::http::{ServerSession, v2::server::H2Options},
    server::ShutdownWatch,
};
use tokio::time::{Sleep, sleep};

use crate::conn::ConnState;

/// Ties one request to its agent.
#[derive(Clone, Default)]
pub(crate) struct Lifeline(Arc<Inner>);

#[derive(Default)]
struct Inner {
    watched: OnceLock<(Arc<Broker>, Arc<Identity>, ConnState)>,
    cut: OnceLock<&'static str>,
}

impl Lifeline {
    /// The one of the request that runs in this task; one that nobody watches elsewhere.
    pub(crate) fn of_request() -> Self {
        LIFELINE.try_with(Self::clone).unwrap_or_default()
    }

    /// From here on the request lives only as long as the agent may act, and the process has time.
    pub(crate) fn tie(&self, broker: &Arc<Broker>, identity: &Arc<Identity>, conn: &ConnState) {
        let _ = self.0.watched.set((broker.clone(), identity.clone(), conn.clone()));
    }

    /// Why the request was ended, if it was.
    pub(crate) fn cut(&self) -> Option<&'static str> {
        self.0.cut.get().copied()
    }

    /// Ends when the agent may not act any more. Polled whenever the request is, right after it: so
    /// it sees that it was tied without being told.
    async fn severed(&self) {
        let mut tick: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            loop {
                let Some((broker, identity, conn)) = self.0.watched.get() else { return Poll::Pending };
                ready!(tick.get_or_insert_with(|| Box::pin(sleep(LOOK))).as_mut().poll(cx));
                tick = None;
                let refusal = identity.refusal(broker.env.clock.now()).map(|refusal| refusal.reason());
                if let Some(reason) = refusal.or(conn.is_over().then_some(GATEWAY_STOPPED)) {
                    let _ = self.0.cut.set(reason);
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }
}

/// An HTTP application whose requests have lifelines.
pub(crate) struct Tied<A> {
    pub(crate) inner: Arc<A>,
    pub(crate) options: HttpServerOptions,
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Tied<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let lifeline = Lifeline::default();
        let request = LIFELINE.scope(lifeline.clone(), self.inner.process_new_http(session, shutdown));
        tokio::select! {
            biased;
            done = request => done,
            () = lifeline.severed() => None,
        }
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.inner.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.inner.http_cleanup().await;
    }
}

/// Why an outcome is not known, where the process had to end first.
pub(crate) const GATEWAY_STOPPED: &str = "gateway_stopped";

tokio::task_local! {
    static LIFELINE: Lifeline;
}

/// How often an agent is looked at: containment must reach what is open within five seconds.
const LOOK: Duration = Duration::from_secs(1);

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

use aegis_broker::{
    Broker,
    identity::{AuthError, Identity},
};
use async_trait::async_trait;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream},
    protocols::http::{ServerSession, v2::server::H2Options},
    server::ShutdownWatch,
};
use tokio::time::{Sleep, sleep};

/// Ties one request to its agent.
#[derive(Clone, Default)]
pub(crate) struct Lifeline(Arc<Inner>);

#[derive(Default)]
struct Inner {
    watched: OnceLock<(Arc<Broker>, Arc<Identity>)>,
    cut: OnceLock<AuthError>,
}

impl Lifeline {
    /// The one of the request that runs in this task; one that nobody watches elsewhere.
    pub(crate) fn of_request() -> Self {
        LIFELINE.try_with(Self::clone).unwrap_or_default()
    }

    /// From here on the request lives only as long as the agent may act.
    pub(crate) fn tie(&self, broker: &Arc<Broker>, identity: &Arc<Identity>) {
        let _ = self.0.watched.set((broker.clone(), identity.clone()));
    }

    /// Why the request was ended, if it was.
    pub(crate) fn cut(&self) -> Option<&AuthError> {
        self.0.cut.get()
    }

    /// Ends when the agent may not act any more. Polled whenever the request is, right after it: so
    /// it sees that it was tied without being told.
    async fn severed(&self) {
        let mut tick: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            loop {
                let Some((broker, identity)) = self.0.watched.get() else { return Poll::Pending };
                ready!(tick.get_or_insert_with(|| Box::pin(sleep(LOOK))).as_mut().poll(cx));
                tick = None;
                if let Some(refusal) = identity.refusal(broker.env.clock.now()) {
                    let _ = self.0.cut.set(refusal);
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

tokio::task_local! {
    static LIFELINE: Lifeline;
}

/// How often an agent is looked at: containment must reach what is open within five seconds.
const LOOK: Duration = Duration::from_secs(1);

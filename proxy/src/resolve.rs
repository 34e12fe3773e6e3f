//! Names to addresses, behind a trait so that tests can lie.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use moka::future::Cache;
use tokio::time::timeout;

/// Looks names up.
///
/// Contract: an answer is only what the resolver said at that moment; nobody may dial it unvetted.
/// May be called concurrently, also for the same name.
#[async_trait]
pub(crate) trait Resolve: Send + Sync {
    /// All addresses of `host`, each with `port`.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver.
pub(crate) struct System;

#[async_trait]
impl Resolve for System {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// Answers are kept a moment, failures are not; one look-up at a time for a name.
pub(crate) struct Names {
    resolver: Arc<dyn Resolve>,
    known: Cache<(String, u16), Arc<Vec<SocketAddr>>>,
}

impl Names {
    pub(crate) fn new(resolver: Arc<dyn Resolve>, keep: Duration) -> Self {
        Self { resolver, known: Cache::builder().max_capacity(1024).time_to_live(keep).build() }
    }

    /// At least one address, or nothing.
    pub(crate) async fn of(&self, host: &str, port: u16) -> Option<Arc<Vec<SocketAddr>>> {
        let resolver = self.resolver.clone();
        let name = host.to_owned();
        self.known
            .try_get_with((host.to_owned(), port), async move {
                match timeout(TIME, resolver.resolve(&name, port)).await {
                    Ok(Ok(found)) if !found.is_empty() => Ok(Arc::new(found)),
                    Ok(Ok(_) | Err(_)) | Err(_) => Err(()),
                }
            })
            .await
            .ok()
    }
}

const TIME: Duration = Duration::from_secs(5);

//! A connection that the successor serves, through this process: byte for byte, nothing read into it.

use std::{io, path::PathBuf, time::Duration};

use pingora_core::protocols::Stream;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

use crate::connections::{Connections, Origin};

/// A stream on its way.
pub(crate) struct Moved {
    pub(crate) stream: Stream,
    /// What was read of a request that nobody has decided.
    pub(crate) seen: Vec<u8>,
    pub(crate) origin: Origin,
}

impl Moved {
    /// Serves the stream out of the successor until either side ends it.
    pub(crate) async fn relay(mut self, all: std::sync::Arc<Connections>) {
        let _counted = all.relay();
        // Most say nothing more: the successor need not know of them.
        if self.seen.is_empty() && !self.first_bytes(all.limits().keepalive).await {
            let _ = self.stream.shutdown().await;
            return;
        }
        let mut successor = all.successor();
        let known = async { successor.wait_for(Option::is_some).await.ok().and_then(|path| path.clone()) };
        let Some(path) = known.await else { return };
        match self.connect(path).await {
            Ok(successor) => self.pump(successor).await,
            Err(error) => tracing::error!(%error, "a connection could not be handed over and ends"),
        }
    }

    async fn first_bytes(&mut self, patience: Duration) -> bool {
        self.seen.resize(FIRST_READ, 0);
        let read = timeout(patience, self.stream.read(&mut self.seen)).await;
        let count = match read {
            Ok(Ok(count)) => count,
            Ok(Err(_)) | Err(_) => 0,
        };
        self.seen.truncate(count);
        count > 0
    }

    /// The successor may itself be handing over at this moment.
    async fn connect(&self, path: PathBuf) -> io::Result<UnixStream> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.introduce(&path).await {
                Ok(stream) => return Ok(stream),
                Err(_) if Instant::now() < until => sleep(RETRY).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn introduce(&self, path: &PathBuf) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(path).await?;
        let Origin { listener, peer, local, .. } = &self.origin;
        let about =
            json!({"kind": "connection", "listener": listener.name(), "peer": peer, "local": local}).to_string();
        let length = u32::try_from(about.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(about.as_bytes()).await?;
        stream.write_all(&self.seen).await?;
        Ok(stream)
    }

    async fn pump(self, successor: UnixStream) {
        let (mut from_client, mut to_client) = tokio::io::split(self.stream);
        let (mut from_successor, mut to_successor) = successor.into_split();
        let up = async {
            let _ = copy(&mut from_client, &mut to_successor).await;
            let _ = to_successor.shutdown().await;
        };
        let down = async {
            let _ = copy(&mut from_successor, &mut to_client).await;
            let _ = to_client.shutdown().await;
        };
        tokio::pin!(up, down);
        tokio::select! {
            () = &mut up => down.await,
            // What the client still sends is read, so that the answer is not reset on its way.
            () = &mut down => drop(timeout(LINGER, up).await),
        }
    }
}

/// Thousands of connections may wait here.
const FIRST_READ: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(20);
const LINGER: Duration = Duration::from_secs(1);

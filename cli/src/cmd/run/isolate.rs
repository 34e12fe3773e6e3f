//! The outer half of `--isolate`: the command's only way out, answered here.

use std::{
    convert::Infallible,
    ffi::OsString,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::Command,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use super::{descriptors, inside, mounts::Guarded};
use crate::{config::Config, error::CliError};

/// How the command is shut in.
pub struct Isolation {
    door: SocketAddr,
    guarded: Guarded,
    unix: bool,
}

/// Carries connections from the command's network to the gateway, and nowhere else.
pub struct Relay {
    inside: UnixStream,
    door: SocketAddr,
}

impl Isolation {
    /// Looks up what has to be kept from the command.
    pub fn new(door: SocketAddr, config: &Config, unix: bool) -> Result<Self, CliError> {
        Ok(Self { door, guarded: Guarded::of(config)?, unix })
    }

    /// The agents' door as the command sees it: the same port, on a loopback of its own.
    pub fn door(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.door.port()).into()
    }

    /// What to start instead of the command, and what to run beside it.
    pub fn command(self, words: &[OsString]) -> Result<(Command, Relay), CliError> {
        let failed = |e: io::Error| CliError::failed(format!("the isolated command cannot be prepared: {e}"));
        let (outside, inside) = UnixStream::pair().map_err(failed)?;
        descriptors::send(&outside, rustix::stdio::stdin()).map_err(failed)?;
        let mut command = inside::command(&inside::Args {
            isolated: true,
            port: self.door.port(),
            guarded: self.guarded,
            danger_unix_sockets: self.unix,
            command: words.to_vec(),
            ..inside::Args::default()
        });
        command.stdin(OwnedFd::from(inside));
        Ok((command, Relay { inside: outside, door: self.door }))
    }
}

impl Relay {
    /// Serves for as long as it is polled. Where the command does not come into being there is nothing to
    /// serve, and its exit code says so.
    pub async fn serve(self) -> Infallible {
        let inside = self.inside;
        let received = tokio::task::spawn_blocking(move || descriptors::receive(inside.as_fd())).await;
        let Ok(Ok(Some(descriptor))) = received else { return pending().await };
        let listener = std::net::TcpListener::from(descriptor);
        let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let Ok(listener) = listener else { return pending().await };
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            // The others wait in the kernel's queue.
            let Ok(place) = room.clone().acquire_owned().await else { return pending().await };
            match listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(async move {
                        carry(stream, self.door).await;
                        drop(place);
                    });
                }
                // Out of descriptors, most likely; some come back when a connection ends.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// Until both sides are done. A gateway that does not answer looks like one: the connection closes.
async fn carry(mut inside: TcpStream, door: SocketAddr) {
    if let Ok(mut gateway) = TcpStream::connect(door).await {
        // Tokens of a stream come one by one and must not wait for each other.
        let _ = (inside.set_nodelay(true), gateway.set_nodelay(true));
        let _ = copy_bidirectional(&mut inside, &mut gateway).await;
    }
}

const MAX_CONNECTIONS: usize = 1024;

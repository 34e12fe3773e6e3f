//! One process takes over from another: sockets first, then the record, then what is still in flight.
//!
//! ```text
//! new: reads and checks everything          old: serves
//! new: connects, says `TakeOver`      ->    gives copies of its listening sockets
//! new: says `Take`                    ->    stops accepting (the kernel queues), lets what is being
//!                                           decided be decided, moves the rest aside, syncs and
//!                                           frees log, vault, store and state folder
//!                                     <-    says `Go`
//! new: opens them, accepts, says `Ready` -> connects what it moved aside, brings the outcomes of
//!                                           what it still has in flight, ends
//! ```
//!
//! Until `Go` the old process can go on by itself. If the new one dies after it, the old one opens
//! everything again and serves on the same sockets.

mod after;
mod give;
mod socket;
mod take;

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use aegis_action::Timestamp;
use aegis_broker::{authorize::CarriedDecision, store::AgentRecord};
use aegis_receipts::OutcomeEntry;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::mpsc,
    time::timeout,
};

pub use give::{End, hand_over};
pub use socket::{Doorstep, House};
pub use take::{Taken, take};

/// What is said over `<state>/handover.sock`: a length of four bytes, then this as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// First word of a process that wants to take over.
    TakeOver {
        /// Of these messages.
        version: u32,
    },
    /// First word of a connection that goes on here; its bytes follow.
    Connection {
        /// Whose listener it came in by: the name of its socket.
        listener: String,
        /// The client.
        peer: Option<IpAddr>,
        /// The listener's address, as the client knows it.
        local: Option<SocketAddr>,
    },
    /// First word of a process that brings outcomes of what it still has in flight.
    Outcomes {
        /// Whose requests those are: it has to know when one of them is contained.
        agents: Vec<String>,
        /// Sessions that they depend on, and until when those last: it has to know when that changes.
        sessions: Vec<(String, Timestamp)>,
    },
    /// Names of the sockets that follow.
    Sockets {
        /// In order.
        names: Vec<String>,
    },
    /// Everything is checked; stop.
    Take,
    /// Log, vault, store and state folder are free.
    Go(Estate),
    /// Connections are accepted.
    Ready,
    /// The old process goes on.
    Kept {
        /// Why.
        why: String,
    },
    /// What came of an intent.
    Outcome {
        /// See [`OutcomeEntry`].
        of_read: bool,
        /// The entry.
        entry: OutcomeEntry,
    },
    /// One outcome is in the log.
    Recorded,
    /// A session was renewed, or ended.
    Session {
        /// The session.
        id: String,
        /// It lasts until then.
        until: Timestamp,
    },
    /// The state an agent is in now.
    Agent {
        /// The agent.
        record: AgentRecord,
    },
}

/// What the next process is given beside the files.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Estate {
    /// Intents whose outcome the old process still brings.
    pub open: Vec<u64>,
    /// SDK decisions whose outcome their callers will report.
    pub decisions: Vec<CarriedDecision>,
}

/// One end of a connection between two processes.
pub struct Control(UnixStream);

impl Control {
    /// Refuses other users: whoever may connect gets sockets and brings outcomes.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?.uid();
        if peer != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {peer} is not ours")));
        }
        Ok(Self(stream))
    }

    /// Says one thing.
    pub async fn say(&mut self, message: &Message) -> io::Result<()> {
        say(&mut self.0, message).await
    }

    /// Hears one thing.
    pub async fn hear(&mut self) -> io::Result<Message> {
        hear(&mut self.0).await
    }

    /// The same, but not for longer than `patience`.
    pub async fn hear_within(&mut self, patience: Duration) -> io::Result<Message> {
        within(patience, self.hear()).await
    }

    /// Both directions apart; what is heard comes until the other side is gone.
    pub fn split(self) -> (Mouth, mpsc::Receiver<Message>) {
        let (mut from, to) = self.0.into_split();
        let (heard, ears) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(message) = hear(&mut from).await {
                if heard.send(message).await.is_err() {
                    return;
                }
            }
        });
        (Mouth(to), ears)
    }

    /// The bare stream, behind the first word.
    pub fn into_stream(self) -> UnixStream {
        self.0
    }

    /// Sends copies of listening sockets, as ancillary data of one byte.
    pub async fn give(&mut self, sockets: &[&TcpListener]) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.as_fd()).collect();
        let send = self.0.async_io(Interest::WRITABLE, || {
            let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many listeners to hand over"));
            }
            Ok(sendmsg(&self.0, &[IoSlice::new(b"s")], &mut control, SendFlags::empty())?)
        });
        within(SAY, send).await.map(drop)
    }

    /// Takes what [`Control::give`] sent.
    pub async fn get(&mut self) -> io::Result<Vec<TcpListener>> {
        let receive = self.0.async_io(Interest::READABLE, || {
            let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let got = recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            if got.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let messages = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            });
            Ok(messages.flatten().map(OwnedFd::into).collect())
        });
        within(SAY, receive).await
    }
}

/// The speaking half of a [`Control`].
pub struct Mouth(OwnedWriteHalf);

impl Mouth {
    /// Says one thing.
    pub async fn say(&mut self, message: &Message) -> io::Result<()> {
        say(&mut self.0, message).await
    }
}

async fn say(to: &mut (impl AsyncWrite + Unpin), message: &Message) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    within(SAY, async {
        to.write_all(&length.to_be_bytes()).await?;
        to.write_all(&text).await
    })
    .await
}

async fn hear(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

async fn within<T>(patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Of the messages. A process that speaks another one is not taken over from.
pub const VERSION: u32 = 1;
/// Open SDK decisions are the bulk of it.
const MAX_FRAME: usize = 64 << 20;
/// As many as the kernel passes at once.
const MAX_SOCKETS: usize = 253;
/// How long the other side may take to listen.
const SAY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_and_words_arrive() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Control::new(one).unwrap(), Control::new(other).unwrap());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        one.say(&Message::Sockets { names: vec!["agents".into()] }).await.unwrap();
        one.give(&[&socket]).await.unwrap();
        one.say(&Message::Take).await.unwrap();
        assert!(matches!(other.hear().await.unwrap(), Message::Sockets { names } if names == ["agents"]));
        let given = other.get().await.unwrap();
        assert_eq!(given[0].local_addr().unwrap(), socket.local_addr().unwrap());
        assert!(matches!(other.hear().await.unwrap(), Message::Take));
        drop(one);
        assert!(other.hear().await.is_err());
    }

    #[tokio::test]
    async fn what_nobody_can_mean_is_refused() {
        let (mut one, other) = UnixStream::pair().unwrap();
        let mut other = Control::new(other).unwrap();
        one.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert_eq!(other.hear().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

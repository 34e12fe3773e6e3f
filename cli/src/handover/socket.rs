//! `<state>/handover.sock`: where the next process, and the one before, come in.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, net},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aegis_broker::Broker;
use aegis_proxy::{Entrance, Listener, Origin};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{Control, Message, VERSION, after};

/// Waits at the socket for as long as this process serves, and a moment longer.
pub struct Doorstep {
    takers: mpsc::Receiver<Control>,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What those who come are brought to.
#[derive(Clone)]
pub struct House {
    pub entrance: Arc<Entrance>,
    pub broker: Arc<Broker>,
    /// True once the log is not ours any more, or about to be.
    pub stopping: watch::Receiver<bool>,
}

impl Doorstep {
    /// Puts the socket in its place, where another process's may be: from here on who connects comes here.
    pub fn open(folder: &Path, house: House) -> io::Result<Self> {
        let listener = UnixListener::from_std(bind(folder)?)?;
        let (to_main, takers) = mpsc::channel(1);
        let (end, ending) = watch::channel(false);
        let task = tokio::spawn(answer(listener, house, to_main, ending));
        Ok(Self { takers, end, task })
    }

    /// The next process that wants to take over.
    pub async fn taker(&mut self) -> Control {
        match self.takers.recv().await {
            Some(control) => control,
            None => std::future::pending().await,
        }
    }

    /// Answers whoever came before another socket was put in this one's place, then nobody.
    pub async fn close(self) {
        let _ = self.end.send(true);
        let _ = self.task.await;
    }
}

async fn answer(
    listener: UnixListener,
    house: House,
    takers: mpsc::Sender<Control>,
    mut ending: watch::Receiver<bool>,
) {
    loop {
        let ended = *ending.borrow();
        let next = if ended {
            timeout(Duration::ZERO, listener.accept()).await.ok()
        } else {
            tokio::select! {
                accepted = listener.accept() => Some(accepted),
                _ = ending.changed() => continue,
            }
        };
        match next {
            None => return,
            Some(Ok((stream, _))) => drop(tokio::spawn(greet(stream, house.clone(), takers.clone()))),
            Some(Err(error)) => {
                tracing::warn!(%error, "the handover socket does not accept");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn greet(stream: UnixStream, house: House, takers: mpsc::Sender<Control>) {
    let mut control = match Control::new(stream) {
        Ok(control) => control,
        Err(error) => return tracing::warn!(%error, "somebody at the handover socket is turned away"),
    };
    match control.hear_within(FIRST_WORD).await {
        Ok(Message::Connection { listener, peer, local }) => match Listener::of_name(&listener) {
            Some(listener) => {
                let origin = Origin { listener, peer, local, relayed: true };
                house.entrance.relayed(control.into_stream(), origin).await;
            }
            None => tracing::warn!(listener, "a connection of a listener that nobody knows is turned away"),
        },
        Ok(Message::Outcomes { agents, sessions }) => after::take_in(control, agents, sessions, house).await,
        Ok(Message::TakeOver { version }) if version == VERSION => {
            if let Err(error) = takers.try_send(control) {
                let mut control = error.into_inner();
                let why = "another process is taking over already".to_owned();
                let _ = control.say(&Message::Kept { why }).await;
            }
        }
        Ok(Message::TakeOver { version }) => {
            let why =
                format!("the running gateway speaks version {VERSION} of the handover, not {version}; restart it");
            let _ = control.say(&Message::Kept { why }).await;
        }
        Ok(other) => tracing::warn!(?other, "not a first word at the handover socket"),
        Err(_) => {}
    }
}

fn bind(folder: &Path) -> io::Result<net::UnixListener> {
    let fresh = folder.join("handover.sock.tmp");
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = net::UnixListener::bind(address(folder, "handover.sock.tmp")?.path())?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    fs::rename(&fresh, folder.join(SOCKET))?;
    Ok(listener)
}

/// A name for a socket in a folder, however long the folder's is: the kernel takes 107 bytes.
pub struct Address {
    path: PathBuf,
    _folder: Option<File>,
}

impl Address {
    /// Good for as long as this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where a process that serves on this state folder is reached.
pub fn address(folder: &Path, name: &str) -> io::Result<Address> {
    let path = folder.join(name);
    if path.as_os_str().len() <= MAX_SUN_PATH {
        return Ok(Address { path, _folder: None });
    }
    let opened = File::open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()));
    Ok(Address { path, _folder: Some(opened) })
}

/// In the state folder.
pub const SOCKET: &str = "handover.sock";
const FIRST_WORD: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);
const MAX_SUN_PATH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_long_name_has_a_socket_too() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let listener = bind(&deep).unwrap();
        assert_eq!(fs::metadata(deep.join(SOCKET)).unwrap().permissions().mode() & 0o777, 0o600);
        let _again = bind(&deep).unwrap();
        assert!(net::UnixStream::connect(address(&deep, SOCKET).unwrap().path()).is_ok());
        drop(listener);
    }
}

//! The new process: asks for the sockets, then for everything.

use std::{collections::BTreeMap, io, time::Duration};

use aegis_proxy::Sockets;
use tokio::net::UnixStream;

use super::{
    Control, Estate, Message, VERSION,
    socket::{SOCKET, address},
};
use crate::{config::Config, error::CliError};

/// What another process gave up for this one.
pub struct Taken {
    /// Listening sockets; connections wait in them.
    pub sockets: Sockets,
    /// What it still owes and is owed.
    pub estate: Estate,
    control: Control,
}

/// Asks the process that serves on the state folder to stop; `None` where there is none.
///
/// On `Err` it goes on as if nobody had asked. When this returns a value it has let go of the state
/// folder, and takes it up again should this process end before [`Control::ready`].
pub async fn take(config: &Config) -> Result<Option<Taken>, CliError> {
    let Some(mut control) = connect(config).map_or_else(|e| Err(failed(&e)), Ok)? else { return Ok(None) };
    let sockets = sockets(&mut control).await.map_err(|e| failed(&e))?;
    control.say(&Message::Take).await.map_err(|e| failed(&e))?;
    match control.hear_within(PATIENCE).await.map_err(|e| failed(&e))? {
        Message::Go(estate) => Ok(Some(Taken { sockets, estate, control })),
        Message::Kept { why } => Err(CliError::failed(format!("the running gateway goes on: {why}"))),
        _ => Err(failed(&"it said something unexpected")),
    }
}

impl Taken {
    /// Sockets, debts, and whom to tell when this process is ready.
    pub fn into_parts(self) -> (Sockets, Estate, Control) {
        (self.sockets, self.estate, self.control)
    }
}

impl Control {
    /// Tells the process before that connections are accepted here.
    pub async fn ready(mut self) {
        if let Err(error) = self.say(&Message::Ready).await {
            tracing::warn!(%error, "the process before is gone already");
        }
    }
}

/// `None` where nobody listens: then nobody serves, or somebody who cannot be taken over from, whose lock we will meet.
fn connect(config: &Config) -> io::Result<Option<Control>> {
    if !config.state.is_dir() {
        return Ok(None);
    }
    let address = address(&config.state, SOCKET)?;
    let stream = match std::os::unix::net::UnixStream::connect(address.path()) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => return Err(e),
    };
    stream.set_nonblocking(true)?;
    Control::new(UnixStream::from_std(stream)?).map(Some)
}

async fn sockets(control: &mut Control) -> io::Result<Sockets> {
    control.say(&Message::TakeOver { version: VERSION }).await?;
    let names = match control.hear_within(PATIENCE).await? {
        Message::Sockets { names } => names,
        Message::Kept { why } => return Err(io::Error::other(why)),
        _ => return Err(io::Error::other("it said something unexpected")),
    };
    let sockets = control.get().await?;
    if sockets.len() != names.len() {
        return Err(io::Error::other("it did not give all its sockets"));
    }
    Ok(Sockets::handed_over(names.into_iter().zip(sockets).collect::<BTreeMap<_, _>>()))
}

fn failed(error: &dyn std::fmt::Display) -> CliError {
    CliError::failed(format!("the running gateway does not hand over: {error}"))
}

/// Longer than the other side takes to let what it decides be decided, or to give up.
const PATIENCE: Duration = Duration::from_secs(30);

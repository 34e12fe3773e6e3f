//! Word to a supervisor that speaks systemd's protocol: datagrams to `$NOTIFY_SOCKET` (sd_notify(3)).
//! Where there is none, nothing happens.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use tokio::{sync::watch, time::interval};

use crate::reload::stopped;

/// Requests are answered. `took_over`: by another process than the supervisor started.
pub fn ready(took_over: bool) {
    let main = if took_over { format!("MAINPID={}\n", std::process::id()) } else { String::new() };
    say(&format!("{main}READY=1\nSTATUS=serving"));
}

/// Files are read again; [`ready`] follows.
pub fn reloading() {
    // systemd matches a reload by this clock; std has no name for it, and its Instant is opaque.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading routes and policies"));
}

/// No new requests; those in flight are waited for.
pub fn stopping() {
    say("STOPPING=1\nSTATUS=waiting for requests in flight");
}

/// Says twice in each `WATCHDOG_USEC` that the process still turns, until `stopping`.
pub async fn keep_watchdog(mut stopping: watch::Receiver<bool>) {
    let Some(every) = watchdog_interval() else { return };
    let mut every = interval(every / 2);
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => return,
            _ = every.tick() => say("WATCHDOG=1"),
        }
    }
}

fn watchdog_interval() -> Option<Duration> {
    let meant_for_us = match std::env::var("WATCHDOG_PID") {
        Ok(pid) => pid.parse() == Ok(std::process::id()),
        Err(_) => true,
    };
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (meant_for_us && micros >= 2).then(|| Duration::from_micros(micros))
}

fn say(text: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    let sent = address(socket.as_bytes()).and_then(|to| UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &to));
    if let Err(error) = sent {
        tracing::warn!(%error, "the supervisor at `NOTIFY_SOCKET` cannot be told");
    }
}

/// A path, or a name of the abstract kind, which is written with `@`.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
    }
}

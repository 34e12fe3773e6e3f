//! The benchmark's baseline: `bare <listen> <upstream> [--tls <certificate> <key>]`, Pingora as a
//! reverse proxy and nothing else. With TLS it speaks HTTP/2 as well.
//!
//! Started, configured and allocated like the gateway's own listeners, so that what differs
//! between the two is the gateway.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::IntoRawFd as _,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use pingora_core::{
    listeners::tls::TlsSettings,
    server::{Fds, configuration::ServerConf},
    services::Service as _,
    upstreams::peer::{ALPN, HttpPeer},
};
use pingora_error::Result;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};
use tokio::sync::watch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: bare <listen> <upstream> [--tls <certificate> <key>]";

type AnyError = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut args = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (args.next(), args.next()) else { return Err(USAGE.into()) };
    let tls = match (args.next().as_deref(), args.next(), args.next()) {
        (None, ..) => None,
        (Some("--tls"), Some(certificate), Some(key)) => Some((certificate, key)),
        _ => return Err(USAGE.into()),
    };
    let listener = TcpListener::bind(&listen)?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let conf = Arc::new(ServerConf { grace_period_seconds: Some(0), max_retries: 1, ..ServerConf::default() });
    let mut service = http_proxy_service(&conf, Bare { upstream: upstream.parse()? });
    match tls {
        None => service.add_tcp(&listen),
        Some((certificate, key)) => {
            let mut settings = TlsSettings::intermediate(&certificate, &key)?;
            settings.enable_h2();
            service.add_tls_with_settings(&listen, None, settings);
        }
    }
    let mut fds = Fds::new();
    fds.add(listen, listener.into_raw_fd());
    // Never told to stop: whoever measures ends the process.
    let (_stop, shutdown) = watch::channel(false);
    service.start_service(Some(Arc::new(parking_lot::Mutex::new(fds))), shutdown, 1).await;
    Ok(())
}

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        peer.options.alpn = ALPN::H1;
        peer.options.idle_timeout = Some(Duration::from_secs(60));
        Ok(Box::new(peer))
    }
}

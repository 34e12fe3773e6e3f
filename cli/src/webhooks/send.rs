//! One delivery: a POST that ends within ten seconds, follows nothing and reads nothing.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::oneshot;
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

/// What became of a delivery.
#[derive(Debug)]
pub enum Sent {
    /// The receiver said 2xx.
    Taken,
    /// It said something else.
    Status(u16),
    /// It could not be reached, or did not answer in time.
    Failed(String),
    /// There was nothing to send: the store or the credential cannot be read.
    Unprepared(String),
}

impl Sent {
    /// Whether the receiver has it.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Taken)
    }

    /// The label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Taken => "delivered",
            Self::Status(_) => "refused",
            Self::Failed(_) => "failed",
            Self::Unprepared(_) => "unprepared",
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken => f.write_str("delivered"),
            Self::Status(status) => write!(f, "the receiver answers {status}"),
            Self::Failed(why) | Self::Unprepared(why) => f.write_str(why),
        }
    }
}

/// A client of its own for each webhook.
pub struct Sender(OnceLock<Agent>);

impl Sender {
    /// Nothing is connected or read yet.
    pub fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Sends it on a thread of its own: a receiver that hangs neither holds up the runtime nor its end.
    pub async fn send(&self, request: http::Request<Vec<u8>>) -> Sent {
        let agent = self.0.get_or_init(agent).clone();
        let (done, answer) = oneshot::channel();
        let sending = move || {
            let _ = done.send(post(&agent, request));
        };
        if let Err(error) = std::thread::Builder::new().name("webhook".into()).spawn(sending) {
            return Sent::Failed(error.to_string());
        }
        answer.await.unwrap_or_else(|_| Sent::Failed("the sending thread ended".into()))
    }
}

fn post(agent: &Agent, request: http::Request<Vec<u8>>) -> Sent {
    match agent.run(request) {
        // The body is not read: what a receiver says is nothing to act on.
        Ok(answer) if answer.status().is_success() => Sent::Taken,
        Ok(answer) => Sent::Status(answer.status().as_u16()),
        Err(error) => Sent::Failed(told(&error).to_owned()),
    }
}

/// What went wrong, without the address: it may be a secret.
fn told(error: &ureq::Error) -> &'static str {
    match error {
        ureq::Error::Timeout(_) => "no answer in time",
        ureq::Error::HostNotFound => "the host name is not known",
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed => {
            "no connection, or a certificate that the system does not trust"
        }
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => "the TLS handshake failed",
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "the address is not a URL",
        _ => "no usable answer",
    }
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // What is set for commands of the operator's shell is not meant for this.
        .proxy(None)
        .tls_config(TlsConfig::builder().root_certs(roots()).build())
        .timeout_global(Some(TIMEOUT))
        .build();
    config.new_agent()
}

/// What the system trusts.
fn roots() -> RootCerts {
    let found = rustls_native_certs::load_native_certs().unwrap_or_default();
    RootCerts::Specific(Arc::new(found.iter().map(|c| Certificate::from_der(c).to_owned()).collect()))
}

const TIMEOUT: Duration = Duration::from_secs(10);

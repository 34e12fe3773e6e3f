//! One way to call the admin API: over HTTP where a gateway runs, in process where none does.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use aegis_broker::{decision_log::LogFormat, secret::Secret};
use axum::{Router, body::Body};
use serde_json::Value;
use ureq::Agent;

use crate::{
    config::Config,
    error::CliError,
    gateway::{Gateway, Parts, doors},
    logging,
    reload::{Files, Reloader},
    state::{self, Held},
};

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum As {
    /// The admin: `AEGIS_ADMIN_TOKEN`, else `<state>/admin.token`.
    Admin,
    /// The same, even if others can read the file: `aegis doctor` has said so by then.
    AdminAnyway,
    /// An approver: this file, else `AEGIS_APPROVER_TOKEN`, else `<state>/approver.token`.
    Approver(Option<PathBuf>),
}

/// A connection to the admin API.
pub struct Client {
    token: Secret,
    way: Way,
}

enum Way {
    Http { base: String, agent: Agent },
    Local { router: Router, gateway: Box<Gateway> },
}

impl Client {
    /// `AEGIS_ADMIN_URL` where it is set, else the gateway that holds the state folder, else the folder itself.
    pub async fn open(config: &Config, who: &As) -> Result<Self, CliError> {
        if let Some(client) = Self::at_named(config, who)? {
            return Ok(client);
        }
        match holder(config).await? {
            Holder::Us(held) => Self::local(config, who, held).await,
            Holder::Gateway(address) => Ok(Self::at(address, token(config, who)?)),
        }
    }

    /// The same, of a gateway that agents can use: one that runs.
    pub async fn running(config: &Config, who: &As) -> Result<Self, CliError> {
        if let Some(client) = Self::at_named(config, who)? {
            return Ok(client);
        }
        // Looking must not make a folder.
        if config.state.is_dir()
            && let Holder::Gateway(address) = holder(config).await?
        {
            return Ok(Self::at(address, token(config, who)?));
        }
        Err(CliError::failed(format!(
            "no gateway runs on `{}`; start one with `aegis serve` or `aegis dev`",
            config.state.display()
        )))
    }

    fn at_named(config: &Config, who: &As) -> Result<Option<Self>, CliError> {
        let Ok(base) = std::env::var("AEGIS_ADMIN_URL") else { return Ok(None) };
        let base = check_base(&base, config.danger_admin_non_loopback)?;
        Ok(Some(Self { token: token(config, who)?, way: http_way(base) }))
    }

    /// A gateway at a known address.
    pub fn at(address: SocketAddr, token: Secret) -> Self {
        Self { token, way: http_way(format!("http://{address}")) }
    }

    async fn local(config: &Config, who: &As, held: Held) -> Result<Self, CliError> {
        let sources = Files::of(config).read().map_err(CliError::Problems)?;
        let parts = Parts { sources, decisions: logging::decisions(LogFormat::Off) };
        let gateway = Gateway::open(config, held, parts).await?;
        gateway.ensure_admin(config).await?;
        let reloader = Reloader::new(gateway.broker.clone(), Files::of(config)).into();
        let router = doors::admins(gateway.broker.clone(), reloader, gateway.ca.clone());
        Ok(Self { token: token(config, who)?, way: Way::Local { router, gateway: Box::new(gateway) } })
    }

    /// One call; the answer's JSON (null where there is none), or the problem that the gateway names.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
        let (status, bytes) = match &self.way {
            Way::Http { base, agent } => {
                let request = self.request(method, &format!("{base}{path}"), body)?;
                let agent = agent.clone();
                tokio::task::spawn_blocking(move || over_http(&agent, request)).await.map_err(failed)??
            }
            Way::Local { router, .. } => {
                let request = self.request(method, path, body)?.map(Body::from);
                let answer = doors::call(router.clone(), request, Some(IpAddr::from([127, 0, 0, 1]))).await;
                (answer.status().as_u16(), answer.into_body().to_vec())
            }
        };
        let value: Value = match bytes.as_slice() {
            [] => Value::Null,
            bytes => serde_json::from_slice(bytes)
                .map_err(|_| CliError::failed(format!("the gateway's answer ({status}) is not JSON")))?,
        };
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        Err(CliError::Refused {
            status,
            title: text("title").unwrap_or_else(|| "refused".into()),
            detail: text("detail").unwrap_or_else(|| "the gateway gives no reason".into()),
        })
    }

    /// Ends the connection; a folder that was opened for it is closed.
    pub async fn close(self) {
        match self.way {
            Way::Http { .. } => {}
            Way::Local { router, gateway } => {
                drop(router);
                gateway.close().await;
            }
        }
    }

    fn request(&self, method: &str, uri: &str, body: Option<&Value>) -> Result<http::Request<Vec<u8>>, CliError> {
        let bearer = format!("Bearer {}", String::from_utf8_lossy(self.token.expose()));
        let mut bearer = http::HeaderValue::from_str(&bearer)
            .map_err(|_| CliError::usage("the token holds characters that no token has"))?;
        bearer.set_sensitive(true);
        let request = http::Request::builder().method(method).uri(uri).header("authorization", bearer);
        match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string().into_bytes()),
            None => request.body(Vec::new()),
        }
        .map_err(failed)
    }
}

/// What is at the agents' door for everybody.
pub async fn fetch(door: SocketAddr, path: &str) -> Result<Vec<u8>, CliError> {
    let request = http::Request::get(format!("http://{door}{path}")).body(Vec::new()).map_err(failed)?;
    let (status, bytes) =
        tokio::task::spawn_blocking(move || over_http(&plain_agent(), request)).await.map_err(failed)??;
    match status {
        200 => Ok(bytes),
        _ => Err(CliError::failed(format!("the gateway at `{door}` answers {status} to `{path}`"))),
    }
}

/// Who has the state folder.
enum Holder {
    Us(Held),
    Gateway(SocketAddr),
}

async fn holder(config: &Config) -> Result<Holder, CliError> {
    let mut patience = PATIENCE;
    loop {
        if let Some(held) = Held::take(&config.state)? {
            return Ok(Holder::Us(held));
        }
        // Whoever holds the folder serves it, or starts to, or is another short command.
        if let Some(address) = state::admin_address(&config.state) {
            return Ok(Holder::Gateway(address));
        }
        patience = patience.checked_sub(STEP).ok_or_else(|| {
            CliError::failed(format!(
                "another process has `{}` open and serves no admin API; wait for it to end, or stop it",
                config.state.display()
            ))
        })?;
        tokio::time::sleep(STEP).await;
    }
}

fn over_http(agent: &Agent, request: http::Request<Vec<u8>>) -> Result<(u16, Vec<u8>), CliError> {
    let base = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let unreachable = |e: ureq::Error| CliError::failed(format!("the gateway at `{base}` does not answer: {e}"));
    let mut answer = agent.run(request).map_err(unreachable)?;
    let status = answer.status().as_u16();
    let bytes = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(unreachable)?;
    Ok((status, bytes))
}

fn http_way(base: String) -> Way {
    Way::Http { base, agent: plain_agent() }
}

fn plain_agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // The token goes to this machine; a proxy of the environment must not see it.
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(60)))
        .build();
    config.new_agent()
}

/// The URL without a slash at the end. It is plain HTTP, so it has to stay on this machine.
fn check_base(base: &str, danger_non_loopback: bool) -> Result<String, CliError> {
    let base = base.trim_end_matches('/');
    let uri: http::Uri =
        base.parse().map_err(|_| CliError::usage(format!("`AEGIS_ADMIN_URL` is `{base}`, which is not a URL")))?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if uri.scheme_str() != Some("http") || uri.path() != "/" || !(loopback || danger_non_loopback) {
        return Err(CliError::usage(format!(
            "`AEGIS_ADMIN_URL` is `{base}`, expected `http://127.0.0.1:PORT`; reach another machine through a tunnel"
        )));
    }
    Ok(base.to_owned())
}

fn token(config: &Config, who: &As) -> Result<Secret, CliError> {
    let from_env = |name: &str| std::env::var(name).ok().filter(|t| !t.is_empty()).map(Secret::from);
    match who {
        As::AdminAnyway if std::env::var_os("AEGIS_ADMIN_TOKEN").is_none() => {
            state::read_token_anyway(&config.in_state(state::ADMIN_TOKEN))
        }
        As::Admin | As::AdminAnyway => match from_env("AEGIS_ADMIN_TOKEN") {
            Some(token) => Ok(token),
            None => stored(
                config,
                state::ADMIN_TOKEN,
                "set `AEGIS_ADMIN_TOKEN`, or make a new one with `aegis admin reset`",
            ),
        },
        As::Approver(Some(file)) => state::read_token(file),
        As::Approver(None) => match from_env("AEGIS_APPROVER_TOKEN") {
            Some(token) => Ok(token),
            None => stored(
                config,
                state::APPROVER_TOKEN,
                "set `AEGIS_APPROVER_TOKEN` or name a file with `--token-file`; \
                an admin makes an approver with `aegis approver add`",
            ),
        },
    }
}

fn stored(config: &Config, name: &str, help: &str) -> Result<Secret, CliError> {
    let path = config.in_state(name);
    if path.exists() {
        return state::read_token(&path);
    }
    Err(CliError::usage(format!("there is no `{}`; {help}", path.display())))
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::failed(error.to_string())
}

const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(50);
const MAX_ANSWER: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_in_the_clear_only_on_this_machine() {
        for ok in ["http://127.0.0.1:8081", "http://localhost:8081/", "http://[::1]:8081"] {
            assert!(check_base(ok, false).is_ok(), "{ok}");
        }
        for bad in [
            "http://10.0.0.1:8081",
            "https://127.0.0.1:8081",
            "http://127.0.0.1:1/v1",
            "127.0.0.1:8081",
            "http://localhost.evil:1",
        ] {
            assert!(check_base(bad, false).is_err(), "{bad}");
        }
        assert_eq!(check_base("http://10.0.0.1:8081/", true).unwrap(), "http://10.0.0.1:8081");
    }
}

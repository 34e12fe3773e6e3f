//! `aegis run`: a command that knows nothing of Aegis, through the gateway.

mod confine;
mod descriptors;
mod environment;
pub mod inside;
mod isolate;
mod loopback;
mod mounts;
mod namespaces;
mod session;
mod supervise;
mod trust;

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::{Command, ExitCode},
};

use self::{
    environment::{Environment, Given},
    isolate::Isolation,
    session::Session,
    supervise::{Place, Supervisor},
    trust::Trust,
};
use super::{Context, agent::seconds, items};
use crate::{
    client::{As, Client, fetch},
    config::{Config, MasterSource},
    error::CliError,
    output::{self, text},
    state,
};

/// The command gets the proxy and certificate variables that its tools read, a token of its own
/// where they look for a credential, and none of your credentials. The token is renewed while the
/// command runs and ends with it. With `--isolate` the gateway is the only address it can reach.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aegis run -- git push
  aegis run --agent review-bot -- python review.py
  aegis run --isolate -- npx some-agent

Exit codes:
  the command's own, or 128 and the number of the signal that ended it
  125  aegis could not run it
  126  it is not executable
  127  there is no such command")]
pub struct Args {
    /// Key or id of an enrolled agent [default: one made for this run]
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Run it in a network of its own, whose only way out is the gateway (Linux)
    #[arg(long)]
    isolate: bool,
    /// Keep a variable that looks like a credential; may be given several times
    #[arg(long, value_name = "NAME")]
    keep_env: Vec<String>,
    /// How long the token outlives an `aegis run` that was killed, at most 1h
    #[arg(long, value_parser = seconds, default_value = "15m")]
    lease: i64,
    /// The agents' address of the gateway [default: that of the gateway that holds the state folder]
    #[arg(long, value_name = "ADDRESS", env = "AEGIS_GATEWAY")]
    gateway: Option<SocketAddr>,
    /// With --isolate: let the command use Unix sockets, whose other ends may lead anywhere
    #[arg(long, requires = "isolate")]
    danger_unix_sockets: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let code = through_the_gateway(args, context).await.unwrap_or_else(|error| {
        output::error(&error);
        OWN_FAILURE
    });
    Ok(ExitCode::from(code))
}

async fn through_the_gateway(args: Args, context: &Context) -> Result<u8, CliError> {
    // Before there is anything that a signal would leave behind.
    let supervisor = Supervisor::new(Place::Front)?;
    let config = context.config()?;
    let client = Client::running(&config, &As::Admin).await?;
    let door = door(&args, &config);
    let folder = trust::folder()?;
    let trust = Trust::write(folder.path(), &fetch(door, "/v1/ca").await?)?;
    let secrets = secrets(&config, &client).await?;
    let what = args.command.first().map(|c| Path::new(c).file_name().unwrap_or(c).display().to_string());
    let isolation = args.isolate.then(|| Isolation::new(door, &config, args.danger_unix_sockets)).transpose()?;
    let session = Session::start(client, args.agent.as_deref(), args.lease, &what.unwrap_or_default()).await?;
    let given = Given {
        door: isolation.as_ref().map_or(door, Isolation::door),
        token: &session.token,
        run_id: &session.id,
        trust: &trust,
        keep: &args.keep_env,
        secrets: &secrets,
    };
    let environment = Environment::plan(std::env::vars_os(), &given);
    let code = tokio::select! {
        code = execute(&args.command, &environment, isolation, supervisor) => code,
        never = session.keep_alive() => match never {},
    };
    session.end().await;
    code
}

async fn execute(
    words: &[OsString],
    environment: &Environment,
    isolation: Option<Isolation>,
    supervisor: Supervisor,
) -> Result<u8, CliError> {
    let Some(isolation) = isolation else {
        let mut command = inside::command(&inside::Args { command: words.to_vec(), ..inside::Args::default() });
        environment.apply(&mut command);
        return supervise(supervisor, command).await;
    };
    let (mut command, relay) = isolation.command(words)?;
    environment.apply(&mut command);
    tokio::select! {
        code = supervise(supervisor, command) => code,
        failed = relay.serve() => match failed {},
    }
}

/// Waits in a thread of its own, which lasts as long as the command.
async fn supervise(supervisor: Supervisor, command: Command) -> Result<u8, CliError> {
    let done = tokio::task::spawn_blocking(move || supervisor.run(command)).await;
    done.map_err(|e| CliError::failed(e.to_string()))?
}

/// Where agents come in, as an address that can be connected to.
fn door(args: &Args, config: &Config) -> SocketAddr {
    let door = args.gateway.or_else(|| state::listen_address(&config.state)).unwrap_or(config.listen);
    match door.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), door.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), door.port()),
        _ => door,
    }
}

/// Variables that hold what the gateway guards: its master key, and the credentials of the `env` vault.
async fn secrets(config: &Config, client: &Client) -> Result<Vec<String>, CliError> {
    let answer = client.call("GET", "/v1/credentials", None).await?;
    let of_env = items(&answer, "credentials").iter().filter(|c| text(c, "vault") == "env");
    let mut names: Vec<String> = of_env.map(|c| text(c, "key")).collect();
    if let MasterSource::Env(name) | MasterSource::Passphrase(name) = &config.master {
        names.push(name.clone());
    }
    Ok(names)
}

/// What `aegis run` itself could not do, told apart from what the command says.
const OWN_FAILURE: u8 = 125;

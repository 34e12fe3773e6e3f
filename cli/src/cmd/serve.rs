//! `aegis serve`: reads, wires, runs, drains.

use std::process::ExitCode;

use aegis_broker::decision_log::LogFormat;
use serde_json::json;

use super::Context;
use crate::{
    config::Config,
    error::CliError,
    gateway::{self, Gateway, NewAdmin, Parts, Running},
    logging,
    output::{BOLD, DIM, paint},
    process::{self, StopSignals},
    reload::{self, Files},
    state::{self, Held},
};

/// Routes and policies are read again when their files change, and on SIGHUP; a bad file keeps the
/// old ones in force and is reported with its lines. SIGTERM and SIGINT stop accepting, wait up to
/// ten seconds for what is in flight, and sync the record.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aegis serve --config /etc/aegis/aegis.toml
  aegis serve --json        one JSON line with the addresses once it listens")]
pub struct Args {}

/// Serves until a signal.
pub async fn run(_: Args, context: &Context) -> Result<ExitCode, CliError> {
    let config = context.config()?;
    let stop = StopSignals::catch()?;
    let (running, new_admin) = start(&config).await?;
    announce(&running, context)?;
    if new_admin == NewAdmin::Made && !context.out.json {
        anstream::println!("  a new admin token is in {}", config.in_state(state::ADMIN_TOKEN).display());
    }
    until_stopped(running, stop).await
}

/// A gateway that answers, on the folder that the configuration names.
pub async fn start(config: &Config) -> Result<(Running, NewAdmin), CliError> {
    logging::start(config.log);
    process::survive_file_size_limit()?;
    let sources = Files::of(config).read().map_err(CliError::Problems)?;
    let held = hold(config)?;
    let parts = Parts { sources, decisions: logging::decisions(config.log) };
    let gateway = Gateway::open(config, held, parts).await?;
    let new_admin = gateway.ensure_admin(config).await?;
    reload::report(&gateway.warnings);
    Ok((gateway::serve(gateway, config).await?, new_admin))
}

/// The state folder, for this process alone.
pub fn hold(config: &Config) -> Result<Held, CliError> {
    Held::take(&config.state)?.ok_or_else(|| {
        let at = state::admin_address(&config.state).map(|a| format!(" (its admin API is at {a})")).unwrap_or_default();
        CliError::failed(format!("another gateway has `{}` open{at}", config.state.display()))
    })
}

/// Tells where it listens; with `--json` as one line, flushed.
pub fn announce(running: &Running, context: &Context) -> Result<(), CliError> {
    let line = json!({
        "event": "listening",
        "listen": running.listen.to_string(),
        "admin": running.admin.to_string(),
        "tls": running.tls.map(|at| at.to_string()),
        "ca": running.ca.display().to_string(),
        "routes": running.routes.iter().map(|(name, at)| (name.clone(), json!(at.to_string()))).collect::<serde_json::Map<_, _>>(),
    });
    context.out.show(&line, || {
        let mut text = format!("{} {} listens\n", paint(BOLD, "aegis"), env!("CARGO_PKG_VERSION"));
        for route in &running.broker.snapshot().config.routes {
            let own = running.routes.get(&route.name).map(|at| format!(" and http://{at}/")).unwrap_or_default();
            let to = paint(DIM, &format!("-> {}", route.upstream.origin()));
            text.push_str(&format!("  agents  http://{}/{}/{own}  {to}\n", running.listen, route.name));
        }
        text.push_str(&format!("  agents  http://{}/v1/  {}\n", running.listen, paint(DIM, "(API)")));
        if let Some(at) = running.tls {
            text.push_str(&format!("  agents  https://{at}/  {}\n", paint(DIM, "(TLS, by name)")));
        }
        text.push_str(&format!("  proxy   HTTPS_PROXY=http://agent:TOKEN@{}\n", running.listen));
        text.push_str(&format!("  trust   {}\n", running.ca.display()));
        text.push_str(&format!("  admins  http://{}/v1/\n", running.admin));
        text
    })
}

/// Waits for SIGTERM or SIGINT, then drains.
pub async fn until_stopped(running: Running, stop: StopSignals) -> Result<ExitCode, CliError> {
    stop.wait().await;
    tracing::info!(event = "stopping", "no new requests; waiting for those in flight");
    running.stop().await;
    tracing::info!(event = "stopped", "the record is synced");
    Ok(ExitCode::SUCCESS)
}

/// For commands whose own output is the point.
pub const QUIET: LogFormat = LogFormat::Off;

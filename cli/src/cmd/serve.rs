//! `aegis serve`: reads, wires, runs, drains.

use std::process::ExitCode;

use aegis_broker::decision_log::LogFormat;
use aegis_proxy::{Connections, Sockets};
use serde_json::json;

use super::Context;
use crate::{
    config::Config,
    error::CliError,
    gateway::{self, Gateway, NewAdmin, Parts, Prepared, Running},
    handover::{self, Control, End, Estate, Taken},
    logging,
    output::{BOLD, DIM, paint},
    process::{self, Program, Signals},
    reload::{self, Files},
    state::{self, Held},
    supervisor,
};

/// Routes and policies are read again when their files change, and on SIGHUP; a bad file keeps the
/// old ones in force and is reported with its lines. SIGTERM and SIGINT stop accepting, wait up to
/// ten seconds for what is in flight, and sync the record. SIGUSR2 starts the program anew, which
/// takes over without a connection refused or a request lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aegis serve --config /etc/aegis/aegis.toml
  aegis serve --json        one JSON line with the addresses once it listens
  aegis serve --takeover    from the gateway that serves on the same state folder")]
pub struct Args {
    /// Take sockets, record and state over from the gateway that has them; start as usual where there is none
    #[arg(long)]
    takeover: bool,
}

/// Serves until a signal, or until another process has taken over.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let config = context.config()?;
    let program = Program::own()?;
    let mut signals = Signals::catch()?;
    let mut running = start(&config, args.takeover, context).await?;
    loop {
        tokio::select! {
            upgrade = signals.any() => match upgrade {
                true => program.start_again("--takeover"),
                false => return stop(running).await,
            },
            taker = running.taker() => match handover::hand_over(running, taker, &config).await? {
                End::Kept(same) => running = *same,
                End::Gone(afterwards) => {
                    afterwards.last(&mut signals).await;
                    tracing::info!(event = "stopped", "everything in flight has ended");
                    return Ok(ExitCode::SUCCESS);
                }
            },
        }
    }
}

/// Everything that can be wrong is found before the state folder is touched, or asked for.
async fn start(config: &Config, takeover: bool, context: &Context) -> Result<Running, CliError> {
    logging::start(config.log);
    process::survive_file_size_limit()?;
    process::raise_open_files();
    let sources = Files::of(config).read().map_err(CliError::Problems)?;
    let prepared = Prepared::new(Parts { sources, decisions: logging::decisions(config.log) })?;
    let taken = if takeover { handover::take(config).await? } else { None };
    let (sockets, estate, control) = match taken.map(Taken::into_parts) {
        Some((sockets, estate, control)) => (sockets, estate, Some(control)),
        None => (Sockets::given(context.given()), Estate::default(), None),
    };
    let (running, new_admin) = open(config, prepared, sockets, estate).await?;
    let took_over = control.is_some();
    if let Some(control) = control {
        Control::ready(control).await;
    }
    supervisor::ready(took_over);
    announce(&running, context)?;
    if new_admin == NewAdmin::Made && !context.out.json {
        anstream::println!("  a new admin token is in {}", config.in_state(state::ADMIN_TOKEN).display());
    }
    Ok(running)
}

/// A gateway that answers, on the folder that the configuration names.
async fn open(
    config: &Config,
    prepared: Prepared,
    sockets: Sockets,
    estate: Estate,
) -> Result<(Running, NewAdmin), CliError> {
    let gateway = Gateway::open_prepared(config, Held::alone(&config.state)?, prepared).await?;
    gateway.broker.log.expect(&estate.open);
    gateway.broker.take_up_decisions(estate.decisions);
    let new_admin = gateway.ensure_admin(config).await?;
    reload::report(&gateway.warnings);
    let connections = Connections::new(config.limits.clone());
    connections.keep_time();
    Ok((gateway::serve_on(gateway, config, sockets, connections).await?, new_admin))
}

/// Tells where it listens; with `--json` as one line, flushed.
pub fn announce(running: &Running, context: &Context) -> Result<(), CliError> {
    let line = json!({
        "event": "listening",
        "pid": std::process::id(),
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

/// Drains.
pub async fn stop(running: Running) -> Result<ExitCode, CliError> {
    supervisor::stopping();
    tracing::info!(event = "stopping", "no new requests; waiting for those in flight");
    running.stop().await;
    tracing::info!(event = "stopped", "the record is synced");
    Ok(ExitCode::SUCCESS)
}

/// For commands whose own output is the point.
pub const QUIET: LogFormat = LogFormat::Off;

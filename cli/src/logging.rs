//! Lines on stderr: what the process has to say, and one line per decision.

use std::io::{self, IsTerminal as _};

use aegis_broker::decision_log::{DecisionLog, LogFormat};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

/// Sends tracing events to stderr. With [`LogFormat::Off`] only warnings and errors remain.
/// `AEGIS_LOG` takes the usual filter directives, e.g. `aegis_broker=debug`.
pub fn start(format: LogFormat) {
    let level = if format == LogFormat::Off { LevelFilter::WARN } else { LevelFilter::INFO };
    let filter = EnvFilter::builder().with_default_directive(level.into()).with_env_var("AEGIS_LOG").from_env_lossy();
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    // Otherwise a line that cannot be written is reported with `eprintln!`, which panics when
    // stderr is what cannot be written: a full disk under the log must not fail requests.
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(colour)
        .log_internal_errors(false);
    // A second start in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text | LogFormat::Off => builder.try_init(),
    };
}

/// Decision lines to stderr.
pub fn decisions(format: LogFormat) -> DecisionLog {
    DecisionLog::new(format, Box::new(io::stderr()))
}

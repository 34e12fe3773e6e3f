//! `aegis routes check`: what is wrong with routes.toml, all at once.

use std::{path::PathBuf, process::ExitCode};

use aegis_broker::config::{self, NamedFiles, Problem, RouteConfig, Severity};
use serde_json::{Value, json};

use super::Context;
use crate::{
    error::CliError,
    output::{BAD, GOOD, Table, WARN, paint},
    reload::parent,
};

/// Reads the file only: nothing is dialled and no gateway is asked.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  aegis routes check
  aegis routes check ./routes.toml --json")]
pub enum Command {
    /// Check the file and list its routes
    Check {
        /// File to check [default: the one that aegis.toml names, else ./routes.toml]
        file: Option<PathBuf>,
    },
}

/// Runs the command.
pub fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    let Command::Check { file } = command;
    let path = match file {
        Some(file) => file,
        None => context.config_if_any()?.map_or_else(|| PathBuf::from("routes.toml"), |c| c.routes.path),
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|e| CliError::usage(format!("`{}` cannot be read: {e}", path.display())))?;
    let files = NamedFiles::read(&parent(&path), &text);
    let (config, problems) = match config::parse(&path.display().to_string(), &text, &files) {
        Ok((config, warnings)) => (Some(config), warnings),
        Err(problems) => (None, problems),
    };
    let document = json!({
        "ok": config.is_some(), "problems": problems, "routes": config.as_ref().map(routes_json).unwrap_or_default(),
    });
    context.out.show(&document, || {
        let mut text = listed(&problems);
        if let Some(config) = &config {
            text.push_str(&table(config));
            text.push_str(&paint(GOOD, "routes are fine"));
        }
        text
    })?;
    Ok(if config.is_some() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Problems, one a line, as compilers write them.
pub fn listed(problems: &[Problem]) -> String {
    let line = |p: &Problem| match p.severity {
        Severity::Error => format!("{}: {p}\n", paint(BAD, "error")),
        Severity::Warning => format!("{}: {p}\n", paint(WARN, "warning")),
    };
    problems.iter().map(line).collect()
}

fn routes_json(config: &RouteConfig) -> Vec<Value> {
    let route = |r: &std::sync::Arc<config::Route>| {
        json!({
            "name": r.name, "connector": r.connector, "upstream": r.upstream.origin(), "credential": r.credential,
            "default_trust": r.default_trust.as_str(), "hosts": r.hosts, "listen": r.listen,
        })
    };
    config.routes.iter().map(route).collect()
}

fn table(config: &RouteConfig) -> String {
    let mut table = Table::new(&["route", "upstream", "credential", "trust", "also by"]);
    for route in &config.routes {
        let credential = match &route.credential {
            Some(name) => {
                config.credentials.get(name).map_or_else(|| name.clone(), |c| format!("{name} ({})", c.vault))
            }
            None => "none".into(),
        };
        let mut also = route.hosts.clone();
        also.extend(route.listen.map(|at| at.to_string()));
        table.row([
            route.name.clone(),
            format!("{}{}", route.upstream.origin(), route.upstream.base_path),
            credential,
            route.default_trust.as_str().to_owned(),
            also.join(", "),
        ]);
    }
    table.render("there are no routes\n")
}

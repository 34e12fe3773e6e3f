//! `aegis dev`: a gateway with everything it needs made on the first start.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{Context, serve};
use crate::{
    config::Config,
    error::CliError,
    gateway::{self, Gateway, Parts},
    logging,
    output::{BOLD, DIM, paint},
    process::{self, Signals},
    reload::{self, Files},
    shipped,
    state::{self, Held},
};

/// Makes keys, an admin token, an approver with a token, routes and policies in a folder of its own,
/// keeps what is there, and serves. The folder is a complete installation: `aegis serve --config
/// <folder>/aegis.toml` serves the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aegis dev
  aegis dev --state /tmp/try --listen 127.0.0.1:0")]
pub struct Args {
    /// Folder for keys, record, routes and policies
    #[arg(long, default_value = ".aegis", value_name = "FOLDER")]
    state: PathBuf,
    /// Address for agents [default: as in the folder's aegis.toml, at first 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Address for admins and approvers, on loopback [default: likewise, at first 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
}

/// Serves until a signal.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let file = prepare(&args.state)?;
    let mut config = Config::load(Some(&file))?;
    config.listen = args.listen.unwrap_or(config.listen);
    config.admin_listen = args.admin_listen.unwrap_or(config.admin_listen);
    if !config.admin_listen.ip().is_loopback() && !config.danger_admin_non_loopback {
        return Err(CliError::usage(format!("`{}` is not a loopback address", config.admin_listen)));
    }
    let mut signals = Signals::catch()?;
    logging::start(config.log);
    process::survive_file_size_limit()?;
    process::raise_open_files();
    let sources = Files::of(&config).read().map_err(CliError::Problems)?;
    let held = Held::alone(&config.state)?;
    let gateway = Gateway::open(&config, held, Parts { sources, decisions: logging::decisions(config.log) }).await?;
    gateway.ensure_admin(&config).await?;
    gateway.ensure_approver(&config, "local", APPROVER_GROUP).await?;
    reload::report(&gateway.warnings);
    let running = gateway::serve(gateway, &config).await?;
    serve::announce(&running, context)?;
    if !context.out.json {
        anstream::print!("{}", next_commands(&file, running.listen));
    }
    signals.stop().await;
    serve::stop(running).await
}

/// Writes what is missing in the folder; the configuration file.
fn prepare(folder: &Path) -> Result<PathBuf, CliError> {
    let failed =
        |doing: &str, e: std::io::Error| CliError::failed(format!("cannot {doing} `{}`: {e}", folder.display()));
    state::make_private_folder(folder).map_err(|e| failed("make", e))?;
    let routes = folder.join("routes.toml");
    if !routes.exists() {
        fs::write(&routes, shipped::ROUTES).map_err(|e| failed("write routes.toml in", e))?;
    }
    let policies = folder.join("policies");
    if !policies.exists() {
        fs::create_dir(&policies).map_err(|e| failed("make policies in", e))?;
        shipped::write_policies(&policies).map_err(|e| failed("write policies in", e))?;
    }
    let config = folder.join("aegis.toml");
    if !config.exists() {
        fs::write(&config, CONFIG).map_err(|e| failed("write aegis.toml in", e))?;
    }
    Ok(config)
}

/// What to type next, for somebody who sees this for the first time.
fn next_commands(file: &Path, listen: SocketAddr) -> String {
    // The folder's own name is found without being told.
    let config =
        if file == Path::new(".aegis/aegis.toml") { String::new() } else { format!(" --config {}", file.display()) };
    let mut text = format!("\n{}\n", paint(BOLD, "Next, in another terminal:"));
    for (command, why) in [
        (format!("aegis credential add github{config}"), "store your GitHub token; it is asked for, not shown"),
        (format!("aegis agent add my-agent{config}"), "enrol an agent; prints its token once"),
        (
            format!("curl -H \"Authorization: Bearer $AGENT_TOKEN\" http://{listen}/github/user"),
            "call GitHub as that agent",
        ),
    ] {
        text.push_str(&format!("  {}\n  {command}\n\n", paint(DIM, &format!("# {why}"))));
    }
    text.push_str(&format!(
        "  {}\n  github.Github(base_url=\"http://{listen}/github\", auth=github.Auth.Token(AGENT_TOKEN))\n\n",
        paint(DIM, "# or with PyGithub")
    ));
    text
}

const APPROVER_GROUP: &str = "platform-leads";
const CONFIG: &str = r#"# Made by `aegis dev`. Every key and its default: docs/operator-guide.md.
[state]
dir = "."

[files]
routes = "routes.toml"
policies = "policies"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_an_installation_and_what_was_edited_stays() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("s");
        let file = prepare(&state).unwrap();
        let config = Config::load(Some(&file)).unwrap();
        assert_eq!(config.routes.path, state.join("routes.toml"));
        assert!(!Files::of(&config).read().unwrap().policies.is_empty());
        fs::write(state.join("routes.toml"), "# mine").unwrap();
        prepare(&state).unwrap();
        assert_eq!(fs::read_to_string(state.join("routes.toml")).unwrap(), "# mine");
    }

    #[test]
    fn the_printed_commands_find_the_folder() {
        let at = "127.0.0.1:8080".parse().unwrap();
        assert!(!next_commands(Path::new(".aegis/aegis.toml"), at).contains("--config"));
        assert!(next_commands(Path::new("/x/aegis.toml"), at).contains("credential add github --config /x/aegis.toml"));
    }
}

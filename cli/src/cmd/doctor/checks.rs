//! The checks, from what everything rests on to what is merely unwise.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aegis_broker::{
    config::Severity,
    snapshot::{Grammars, Snapshot},
};
use aegis_receipts::verify::{Report, Verdict, verify_dir};
use serde_json::Value;
use tokio::{net::lookup_host, time::timeout};

use super::Finding;
use crate::{
    client::As,
    cmd::{Context, items},
    config::{Config, MasterSource},
    error::CliError,
    gateway::RECEIPTS,
    output::text,
    reload::Files,
    state::{self, Held},
};

/// All of them, in order. Where one makes the next pointless, it ends there.
pub async fn all(context: &Context, offline: bool) -> Vec<Finding> {
    let config = match context.config() {
        Ok(config) => config,
        Err(error) => return vec![unusable("configuration", &error)],
    };
    let mut found = vec![Finding::ok("configuration", config.file.display().to_string())];
    let snapshot = snapshot(&config, &mut found);
    found.push(clock());
    if !config.state.exists() {
        let detail = format!("`{}` does not exist yet", config.state.display());
        found.push(Finding::warn(
            "state folder",
            detail,
            "nothing to do: the first start makes it, with keys and an admin token",
        ));
    } else {
        found.push(private("state folder", &config.state, "700"));
        found.push(space(&config.state));
        found.push(master_key(&config));
        found.push(admin_token(&config));
        found.extend(super::ca::authority(&config));
    }
    found.extend(doors(&config, snapshot.as_ref()));
    found.extend(process(&config, snapshot.as_ref()));
    if config.state.exists() {
        found.extend(log(&config));
        installed(context, snapshot.as_ref(), &mut found).await;
    }
    if let Some(snapshot) = &snapshot {
        upstreams(snapshot, offline, &mut found).await;
    }
    found
}

fn unusable(check: &'static str, error: &CliError) -> Finding {
    let detail = match error {
        CliError::Problems(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    };
    Finding::fail(check, detail, "correct the file; every key is in docs/operator-guide.md")
}

fn snapshot(config: &Config, found: &mut Vec<Finding>) -> Option<Snapshot> {
    let sources = match Files::of(config).read() {
        Ok(sources) => sources,
        Err(problems) => {
            found.push(unusable("routes and policies", &CliError::Problems(problems)));
            return None;
        }
    };
    match Snapshot::build(&sources, &Grammars::load()) {
        Ok((snapshot, warnings)) => {
            let (routes, policies) = (snapshot.config.routes.len(), snapshot.engine.len());
            found.push(Finding::ok("routes and policies", format!("{routes} routes, {policies} policies")));
            for warning in warnings {
                found.push(Finding::warn("routes and policies", warning.to_string(), "see whether it is meant"));
            }
            Some(snapshot)
        }
        Err(problems) => {
            for problem in problems.iter().filter(|p| p.severity == Severity::Error) {
                let fix = "correct it; `aegis routes check` and `aegis policy check` show all at once";
                found.push(Finding::fail("routes and policies", problem.to_string(), fix));
            }
            None
        }
    }
}

/// Tokens and certificates end by the clock; receipts are ordered by it.
fn clock() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match jiff::Timestamp::from_second(i64::try_from(now).unwrap_or_default()) {
        Ok(now) if now.as_second() > EARLIEST => Finding::ok("clock", now.to_string()),
        _ => {
            Finding::fail("clock", "it stands before this version was made", "set the clock, e.g. with an NTP service")
        }
    }
}

/// Only the owner may read, write or enter.
pub(super) fn private(check: &'static str, path: &Path, mode: &str) -> Finding {
    match std::fs::metadata(path).map(|m| m.permissions().mode() & 0o777) {
        Ok(found) if found & 0o077 == 0 => Finding::ok(check, path.display().to_string()),
        Ok(found) => {
            let detail = format!("`{}` has mode {found:04o}, so others can use it", path.display());
            Finding::fail(check, detail, format!("chmod {mode} {}", path.display()))
        }
        Err(e) => Finding::fail(check, format!("`{}`: {e}", path.display()), "check that it exists and is yours"),
    }
}

fn space(state: &Path) -> Finding {
    let Ok(disk) = rustix::fs::statvfs(state) else {
        return Finding::warn("disk space", "it cannot be told", "check it by hand");
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize) >> 20;
    let detail = format!("{free} MiB free");
    match free {
        0..64 => {
            Finding::fail("disk space", detail, "free some; without room for receipts every request is answered 503")
        }
        64..1024 => {
            Finding::warn("disk space", detail, "free some before it is full: then every request is answered 503")
        }
        _ => Finding::ok("disk space", detail),
    }
}

fn master_key(config: &Config) -> Finding {
    let variable = |name: &str| match std::env::var_os(name) {
        Some(value) if !value.is_empty() => Finding::ok("master key", format!("in the variable `{name}`")),
        _ => Finding::fail(
            "master key",
            format!("the variable `{name}` is not set here"),
            "set it as it is set for the gateway",
        ),
    };
    match &config.master {
        MasterSource::File(path) if path.exists() => private("master key", path, "600"),
        MasterSource::File(path) if config.in_state("vault").exists() => Finding::fail(
            "master key",
            format!("the vault is there, but its key `{}` is not", path.display()),
            "restore the file from your backup; without it the vault cannot be opened",
        ),
        MasterSource::File(path) => Finding::ok("master key", format!("`{}` is made with the vault", path.display())),
        MasterSource::Env(name) | MasterSource::Passphrase(name) => variable(name),
    }
}

fn admin_token(config: &Config) -> Finding {
    let path = config.in_state(state::ADMIN_TOKEN);
    if path.exists() {
        return private("admin token", &path, "600");
    }
    if std::env::var_os("AEGIS_ADMIN_TOKEN").is_some() {
        return Finding::ok("admin token", "in the variable `AEGIS_ADMIN_TOKEN`");
    }
    let fix = "set `AEGIS_ADMIN_TOKEN`, or stop the gateway and run `aegis admin reset`";
    Finding::warn("admin token", format!("there is no `{}`", path.display()), fix)
}

/// Who can reach what.
fn doors(config: &Config, snapshot: Option<&Snapshot>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut agents = vec![config.listen];
    agents.extend(snapshot.iter().flat_map(|s| s.listeners()).map(|(_, at)| at));
    for at in agents.into_iter().filter(|at| !at.ip().is_loopback()) {
        let detail = format!("`{at}` is plain HTTP and can be reached by others, who could read agents' tokens");
        found.push(Finding::warn("agents' door", detail, "listen on loopback, behind a proxy that ends TLS"));
    }
    if !config.admin_listen.ip().is_loopback() {
        let detail = format!("`{}` is plain HTTP and can be reached by others", config.admin_listen);
        found.push(Finding::warn("admins' door", detail, "use a loopback address and a tunnel"));
    }
    found
}

/// Whether a gateway runs, and if not, whether one could.
fn process(config: &Config, snapshot: Option<&Snapshot>) -> Vec<Finding> {
    if config.state.exists() {
        match Held::take(&config.state) {
            Ok(Some(_)) => {}
            Ok(None) => {
                return vec![match state::admin_address(&config.state) {
                    Some(at) => Finding::ok("gateway", format!("runs, admin API at {at}")),
                    None => Finding::warn(
                        "gateway",
                        "something holds the state folder and serves nothing",
                        "wait, or stop that process",
                    ),
                }];
            }
            Err(error) => return vec![unusable("gateway", &error)],
        }
    }
    let mut found = vec![Finding::ok("gateway", "does not run")];
    let mut wanted = vec![config.listen, config.admin_listen];
    wanted.extend(snapshot.iter().flat_map(|s| s.listeners()).map(|(_, at)| at));
    found.extend(wanted.into_iter().filter(|at| at.port() != 0).map(port));
    found
}

fn port(at: SocketAddr) -> Finding {
    match TcpListener::bind(at) {
        Ok(_) => Finding::ok("port", format!("{at} is free")),
        Err(e) => Finding::fail("port", format!("{at}: {e}"), "stop what has it, or choose another address"),
    }
}

fn log(config: &Config) -> Vec<Finding> {
    let dir = config.in_state(RECEIPTS);
    if !dir.exists() {
        return vec![Finding::ok("receipts", "none yet")];
    }
    let report = verify_dir(&dir);
    let mut found = vec![match &report.verdict {
        Verdict::Verified => Finding::ok("receipts", format!("{} leaves verify", report.leaves)),
        Verdict::Tampered { seq, file, why } => Finding::fail(
            "receipts",
            format!("leaf {seq} in `{file}` does not hold: {why}"),
            "keep the files as they are and find out who changed them",
        ),
        Verdict::Unreadable { why } => Finding::fail("receipts", why.clone(), "check the folder's owner and mount"),
    }];
    found.extend(from_the_future(&report));
    found
}

fn from_the_future(report: &Report) -> Option<Finding> {
    let now = jiff::Timestamp::now().as_millisecond();
    let ahead = report.last_ts?.0 - now;
    (ahead > 5000).then(|| {
        let detail = format!("the last receipt is {} s ahead of the clock", ahead / 1000);
        Finding::fail("clock", detail, "set the clock; tokens and approvals end by it")
    })
}

/// What only the gateway knows: credentials and people.
async fn installed(context: &Context, snapshot: Option<&Snapshot>, found: &mut Vec<Finding>) {
    let asked = context.with_client(&As::AdminAnyway, async |client| {
        let credentials = client.call("GET", "/v1/credentials", None).await?;
        let approvers = crate::cmd::all(client, "/v1/approvers", "approvers").await?;
        let agents = crate::cmd::all(client, "/v1/agents", "agents").await?;
        Ok((credentials, approvers, agents))
    });
    let (credentials, approvers, agents) = match asked.await {
        Ok(answers) => answers,
        Err(error) => {
            found.push(Finding::fail("installation", error.to_string(), "correct what stands above first"));
            return;
        }
    };
    for credential in items(&credentials, "credentials") {
        found.push(held(credential));
    }
    if let Some(snapshot) = snapshot {
        found.extend(people(snapshot, &approvers));
    }
    let active = items(&agents, "agents").iter().filter(|a| text(a, "state") == "active").count();
    found.push(match active {
        0 => Finding::warn("agents", "none is active", "enrol one with `aegis agent add NAME`"),
        n => Finding::ok("agents", format!("{n} active")),
    });
}

fn held(credential: &Value) -> Finding {
    let (name, vault) = (text(credential, "name"), text(credential, "vault"));
    let routes = text(credential, "routes");
    let webhooks = text(credential, "webhooks");
    if text(credential, "stored") == "true" {
        return match routes.as_str() {
            "" if !webhooks.is_empty() => Finding::ok("credential", format!("`{name}` for webhook {webhooks}")),
            "" => Finding::warn(
                "credential",
                format!("`{name}` is used by no route"),
                format!("aegis credential remove {name}"),
            ),
            routes => Finding::ok("credential", format!("`{name}` for {routes}")),
        };
    }
    let detail = format!("`{name}` has no value in vault `{vault}`: {}", text(credential, "problem"));
    match vault.as_str() {
        "embedded" => Finding::fail("credential", detail, format!("aegis credential add {name}")),
        _ => Finding::fail(
            "credential",
            detail,
            format!("put it where vault `{vault}` looks: key `{}`", text(credential, "key")),
        ),
    }
}

/// Every group that a policy asks has somebody in it.
fn people(snapshot: &Snapshot, approvers: &Value) -> Vec<Finding> {
    let asked: BTreeSet<&str> =
        snapshot.engine.policies().filter_map(|p| p.annotations.get("require_approval")).map(String::as_str).collect();
    let active = items(approvers, "approvers").iter().filter(|p| text(p, "revoked") != "true");
    let there: BTreeSet<String> = active
        .filter_map(|p| p.get("groups")?.as_array())
        .flatten()
        .filter_map(|g| g.as_str().map(str::to_owned))
        .collect();
    let finding = |group: &str| {
        if there.contains(group) {
            Finding::ok("approvers", format!("group `{group}` has somebody"))
        } else {
            let detail = format!("nobody is in group `{group}`, which policies ask");
            Finding::warn("approvers", detail, format!("aegis approver add NAME --group {group}"))
        }
    };
    asked.into_iter().map(finding).collect()
}

async fn upstreams(snapshot: &Snapshot, offline: bool, found: &mut Vec<Finding>) {
    for route in &snapshot.config.routes {
        let to = &route.upstream;
        if !to.tls {
            let detail = format!("route `{}` sends its credential to {} in the clear", route.name, to.origin());
            found.push(Finding::warn("upstream", detail, "use https:// wherever it is not this very machine"));
        }
        if !offline {
            found.push(resolves(&route.name, &to.host, to.port).await);
        }
    }
}

async fn resolves(route: &str, host: &str, port: u16) -> Finding {
    let found = timeout(RESOLVE, lookup_host((host, port))).await;
    match found.ok().and_then(Result::ok).and_then(|mut addresses| addresses.next()) {
        Some(_) => Finding::ok("upstream", format!("`{host}` resolves (route `{route}`)")),
        None => Finding::fail(
            "upstream",
            format!("`{host}` cannot be resolved (route `{route}`)"),
            "check the name and this machine's DNS",
        ),
    }
}

/// 2025-01-01.
const EARLIEST: i64 = 1_735_689_600;
const RESOLVE: Duration = Duration::from_secs(5);

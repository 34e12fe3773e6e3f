//! `aegis.toml`: as written, and as meant. Every problem is reported at once, with its line.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use aegis_broker::{
    config::{Problem, Severity},
    decision_log::LogFormat,
};
use aegis_proxy::Limits;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::error::CliError;

/// The whole file, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// The agents' door. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// The door of admins and approvers. Default `127.0.0.1:8081`; loopback unless said otherwise.
    pub admin_listen: SocketAddr,
    /// Lets the admin door, which is plain HTTP, be reached from other machines. Default false.
    pub danger_admin_non_loopback: bool,
    /// What one client can hold on to.
    pub limits: Limits,
    /// How long requests in flight may take after a stop was asked for. Default 10 s.
    pub drain: Duration,
    /// How long requests in flight may take after another process took over. Default 1 h.
    pub upgrade_drain: Duration,
    /// Keys, log, database, vault. Default `state`.
    pub state: PathBuf,
    /// Name of this process in receipts, 1 to 32 of `a-z0-9-`. Default `n1`.
    pub node: String,
    /// Routes file. Default `routes.toml`.
    pub routes: Named,
    /// Folder of `*.cedar` files. Default `policies`.
    pub policies: Named,
    /// Format of what goes to stderr: `text`, `json`, or `off` for warnings only. Default `text`.
    pub log: LogFormat,
    /// Where the master key is. Default `file:<state>/master.key`.
    pub master: MasterSource,
    /// A listener that ends TLS. Default none.
    pub tls: Option<TlsConfig>,
    /// An intermediate of the operator's own. Default: a root of the installation's own.
    pub intermediate: Option<KeyFiles>,
}

/// A listener that ends TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Where.
    pub listen: SocketAddr,
    /// The gateway's own certificate. Default: one is minted for each of `names`.
    pub own: Option<KeyFiles>,
    /// Names and addresses of the gateway itself, lower case. Default: the listener's address alone.
    pub names: Vec<String>,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFiles {
    /// Certificate, with what stands above it.
    pub certificate: PathBuf,
    /// Key.
    pub key: PathBuf,
}

/// A path with the name that messages and hashes use, which does not depend on where the folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// As written.
    pub name: String,
    /// As opened.
    pub path: PathBuf,
}

/// Where the master key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterSource {
    /// A file of the owner's; made with a new vault.
    File(PathBuf),
    /// A variable that holds 32 bytes in hex or base64.
    Env(String),
    /// A variable that holds a passphrase.
    Passphrase(String),
}

/// What was typed; `None` where nothing was.
#[derive(Default)]
struct Written {
    listen: Option<SocketAddr>,
    admin_listen: Option<(SocketAddr, usize)>,
    danger_admin_non_loopback: bool,
    numbers: BTreeMap<&'static str, u32>,
    state: Option<String>,
    node: Option<String>,
    routes: Option<String>,
    policies: Option<String>,
    log: Option<LogFormat>,
    master: Option<String>,
    tls_listen: Option<SocketAddr>,
    tls_names: Vec<String>,
    /// Line of the last key of a section, for what is missing in it.
    tls: Pair,
    ca: Pair,
}

/// Two keys that are written together or not at all.
#[derive(Default)]
struct Pair {
    certificate: Option<String>,
    key: Option<String>,
    line: usize,
}

impl Config {
    /// Finds and reads the file: the one named, else `./aegis.toml`, else `./.aegis/aegis.toml`.
    pub fn load(named: Option<&Path>) -> Result<Self, CliError> {
        let file = match named {
            Some(file) => file.to_owned(),
            None => Self::find().ok_or_else(|| {
                CliError::usage(
                    "there is no `aegis.toml` here; name one with `--config`, or run `aegis dev`, which makes one",
                )
            })?,
        };
        let text = std::fs::read_to_string(&file)
            .map_err(|e| CliError::usage(format!("`{}` cannot be read: {e}", file.display())))?;
        Self::parse(&file, &text).map_err(CliError::Problems)
    }

    /// The file that is read where none is named.
    pub fn find() -> Option<PathBuf> {
        ["aegis.toml", ".aegis/aegis.toml"].iter().map(PathBuf::from).find(|f| f.is_file())
    }

    /// Reads the text of a file. Relative paths are relative to the file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let mut reading = Reading { file: file.display().to_string(), text, problems: Vec::new() };
        let written = reading.read();
        let config = Self::meant(file, written, &mut reading);
        reading.problems.sort_by_key(|p| p.line);
        if reading.problems.is_empty() { Ok(config) } else { Err(reading.problems) }
    }

    /// `<state>/<name>`.
    pub fn in_state(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    fn meant(file: &Path, written: Written, reading: &mut Reading<'_>) -> Self {
        let base = file.parent().map(Path::to_owned).unwrap_or_default();
        let named = |written: Option<String>, default: &str| {
            let name = written.unwrap_or_else(|| default.to_owned());
            // Without the `.` in `base/./name`, which only shows up in messages.
            Named { path: base.join(&name).components().collect(), name }
        };
        let (admin_listen, line) = written.admin_listen.unwrap_or((ADMIN_LISTEN, 0));
        if !admin_listen.ip().is_loopback() && !written.danger_admin_non_loopback {
            reading.problem(
                line,
                format!(
                    "`admin_listen` is `{admin_listen}`, which other machines can reach without TLS; \
                     use a loopback address, or set `danger_admin_non_loopback = true`"
                ),
            );
        }
        let default = |name: &str| NUMBERS.iter().find(|n| n.0 == name).map_or(0, |n| n.1);
        let number = |name: &'static str| written.numbers.get(name).copied().unwrap_or_else(|| default(name));
        let seconds = |name| Duration::from_secs(u64::from(number(name)));
        let state = named(written.state, "state").path;
        let master = match written.master {
            None => MasterSource::File(state.join("master.key")),
            Some(text) => match text.split_once(':') {
                Some(("file", path)) if !path.is_empty() => MasterSource::File(base.join(path)),
                Some(("env", name)) if !name.is_empty() => MasterSource::Env(name.to_owned()),
                Some(("passphrase-env", name)) if !name.is_empty() => MasterSource::Passphrase(name.to_owned()),
                _ => MasterSource::File(PathBuf::new()),
            },
        };
        let files =
            |pair: Pair, (first, second): (&str, &str), reading: &mut Reading<'_>| match (pair.certificate, pair.key) {
                (Some(certificate), Some(key)) => {
                    Some(KeyFiles { certificate: base.join(certificate), key: base.join(key) })
                }
                (None, None) => None,
                _ => {
                    reading.problem(pair.line, format!("`{first}` and `{second}` are written together"));
                    None
                }
            };
        let line = written.tls.line;
        let own = files(written.tls, ("certificate", "key"), reading);
        let intermediate = files(written.ca, ("intermediate_certificate", "intermediate_key"), reading);
        let tls = match written.tls_listen {
            Some(listen) => Some(TlsConfig { listen, own, names: written.tls_names }),
            None if line > 0 => {
                reading.problem(line, "[tls]: `listen` is required".to_owned());
                None
            }
            None => None,
        };
        Self {
            file: file.to_owned(),
            tls,
            intermediate,
            listen: written.listen.unwrap_or(LISTEN),
            admin_listen,
            danger_admin_non_loopback: written.danger_admin_non_loopback,
            limits: Limits {
                head: seconds("head_timeout_seconds"),
                keepalive: seconds("keepalive_timeout_seconds"),
                write: seconds("write_timeout_seconds"),
                per_source: number("max_connections_per_source") as usize,
                total: number("max_connections") as usize,
            },
            drain: seconds("drain_seconds"),
            upgrade_drain: seconds("upgrade_drain_seconds"),
            state,
            node: written.node.unwrap_or_else(|| "n1".to_owned()),
            routes: named(written.routes, "routes.toml"),
            policies: named(written.policies, "policies"),
            log: written.log.unwrap_or(LogFormat::Text),
            master,
        }
    }
}

struct Reading<'t> {
    file: String,
    text: &'t str,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn read(&mut self) -> Written {
        let mut written = Written::default();
        let root = match DeTable::parse(self.text) {
            Ok(root) => root.into_inner(),
            Err(e) => {
                let line = self.line(e.span().map_or(0, |s| s.start));
                self.problem(line, e.message().to_owned());
                return written;
            }
        };
        for (name, section) in &root {
            let line = self.line(name.span().start);
            let name = name.get_ref().as_ref();
            let Some((_, keys)) = SECTIONS.iter().find(|(section, _)| *section == name) else {
                let sections: Vec<&str> = SECTIONS.iter().map(|(s, _)| *s).collect();
                self.problem(line, format!("unknown section `[{name}]`, expected {}", listed(&sections)));
                continue;
            };
            let DeValue::Table(table) = section.get_ref() else {
                self.problem(line, format!("`{name}` must be a section, written `[{name}]`"));
                continue;
            };
            for (key, value) in table {
                let line = self.line(key.span().start);
                if let Err(message) = take(&mut written, name, key.get_ref().as_ref(), keys, value, line) {
                    self.problem(line, format!("[{name}]: {message}"));
                }
            }
        }
        written
    }

    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
    }

    fn problem(&mut self, line: usize, message: String) {
        self.problems.push(Problem { file: self.file.clone(), line, message, severity: Severity::Error });
    }
}

/// Puts one key where it belongs.
fn take(
    written: &mut Written,
    section: &str,
    key: &str,
    keys: &[&str],
    value: &Spanned<DeValue<'_>>,
    line: usize,
) -> Result<(), String> {
    let value = value.get_ref();
    if section == "server"
        && let Some((name, _, most)) = NUMBERS.iter().find(|n| n.0 == key)
    {
        written.numbers.insert(name, whole(key, value, *most)?);
        return Ok(());
    }
    match (section, key) {
        ("server", "listen") => written.listen = Some(address(key, value)?),
        ("server", "admin_listen") => written.admin_listen = Some((address(key, value)?, line)),
        ("server", "danger_admin_non_loopback") => match value {
            DeValue::Boolean(yes) => written.danger_admin_non_loopback = *yes,
            other => return Err(format!("`{key}` must be true or false, not {}", other.type_str())),
        },
        ("state", "dir") => written.state = Some(path(key, value)?),
        ("state", "node") => {
            let node = string(key, value)?;
            if !(1..=32).contains(&node.len())
                || !node.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            {
                return Err(format!("`{key}` must be 1 to 32 of `a-z`, `0-9`, `-`"));
            }
            written.node = Some(node);
        }
        ("files", "routes") => written.routes = Some(path(key, value)?),
        ("files", "policies") => written.policies = Some(path(key, value)?),
        ("log", "format") => {
            written.log = Some(match string(key, value)?.as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                "off" => LogFormat::Off,
                other => return Err(format!("`{key}` is `{other}`, expected `text`, `json` or `off`")),
            });
        }
        ("keys", "master") => {
            let text = string(key, value)?;
            match text.split_once(':') {
                Some(("file" | "env" | "passphrase-env", rest)) if !rest.is_empty() => written.master = Some(text),
                // The text itself could be a key that was put into the wrong place.
                _ => return Err(format!("`{key}` must be `file:PATH`, `env:NAME` or `passphrase-env:NAME`")),
            }
        }
        ("tls", "listen") => written.tls_listen = Some(address(key, value)?),
        ("tls", "names") => written.tls_names = names(key, value)?,
        ("tls", "certificate") => written.tls.certificate = Some(path(key, value)?),
        ("tls", "key") => written.tls.key = Some(path(key, value)?),
        ("ca", "intermediate_certificate") => written.ca.certificate = Some(path(key, value)?),
        ("ca", "intermediate_key") => written.ca.key = Some(path(key, value)?),
        _ => return Err(format!("unknown key `{key}`, expected {}", listed(keys))),
    }
    match section {
        "tls" => written.tls.line = line,
        "ca" => written.ca.line = line,
        _ => {}
    }
    Ok(())
}

/// Host names and addresses, lower case.
fn names(key: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let DeValue::Array(items) = value else {
        return Err(format!("`{key}` must be an array of strings, not {}", value.type_str()));
    };
    let name = |item: &Spanned<DeValue<'_>>| {
        let text = string(key, item.get_ref())?;
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Ok(address.to_string());
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match text.len() <= 253 && text.split('.').all(label) {
            true => Ok(text),
            false => Err(format!("`{key}` holds `{text}`, which is not a lower-case host name or an address")),
        }
    };
    items.iter().map(name).collect()
}

fn string(key: &str, value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("`{key}` must be a string, not {}", other.type_str())),
    }
}

fn whole(key: &str, value: &DeValue<'_>, most: u32) -> Result<u32, String> {
    let found = match value {
        DeValue::Integer(text) => u32::from_str_radix(text.as_str(), text.radix()).ok(),
        other => return Err(format!("`{key}` must be a number, not {}", other.type_str())),
    };
    found.filter(|n| (1..=most).contains(n)).ok_or_else(|| format!("`{key}` must be 1 to {most}"))
}

fn path(key: &str, value: &DeValue<'_>) -> Result<String, String> {
    string(key, value)
        .and_then(|text| if text.is_empty() { Err(format!("`{key}` must not be empty")) } else { Ok(text) })
}

fn address(key: &str, value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let text = string(key, value)?;
    text.parse().map_err(|_| format!("`{key}` is `{text}`, expected an address and port such as `127.0.0.1:8080`"))
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// Every section with its keys.
const SECTIONS: [(&str, &[&str]); 7] = [
    (
        "server",
        &[
            "listen",
            "admin_listen",
            "danger_admin_non_loopback",
            "head_timeout_seconds",
            "keepalive_timeout_seconds",
            "write_timeout_seconds",
            "max_connections_per_source",
            "max_connections",
            "drain_seconds",
            "upgrade_drain_seconds",
        ],
    ),
    ("state", &["dir", "node"]),
    ("files", &["routes", "policies"]),
    ("log", &["format"]),
    ("keys", &["master"]),
    ("tls", &["listen", "certificate", "key", "names"]),
    ("ca", &["intermediate_certificate", "intermediate_key"]),
];
/// Numbers of `[server]`: name, default, most.
const NUMBERS: [(&str, u32, u32); 7] = [
    ("head_timeout_seconds", 10, 600),
    ("keepalive_timeout_seconds", 75, 3600),
    ("write_timeout_seconds", 60, 3600),
    ("max_connections_per_source", 1024, 1_000_000),
    ("max_connections", 16_384, 1_000_000),
    ("drain_seconds", 10, 3600),
    ("upgrade_drain_seconds", 3600, 604_800),
];
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8081);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        Config::parse(Path::new("conf/aegis.toml"), text).map_err(|p| p.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn an_empty_file_means_the_documented_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.admin_listen.to_string(), "127.0.0.1:8081");
        assert_eq!(config.state, Path::new("conf/state"));
        assert_eq!((config.limits.head, config.drain), (Duration::from_secs(10), Duration::from_secs(10)));
        assert_eq!((config.limits.per_source, config.limits.total), (1024, 16_384));
        assert_eq!(config.routes, Named { name: "routes.toml".into(), path: "conf/routes.toml".into() });
        assert_eq!(config.policies.path, Path::new("conf/policies"));
        assert_eq!((config.node.as_str(), config.log), ("n1", LogFormat::Text));
        assert_eq!(config.master, MasterSource::File("conf/state/master.key".into()));
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_line() {
        let text = "[server]\nlisten = \"here\"\nadmin_listen = \"0.0.0.0:1\"\nport = 1\n[stat]\n[log]\nformat = \"xml\"\n\
                    [keys]\nmaster = \"0f0f0f\"\n";
        let problems = parse(text).unwrap_err();
        for (line, needle) in [
            (2, "`here`"),
            (3, "danger_admin_non_loopback"),
            (4, "unknown key `port`"),
            (5, "`[stat]`"),
            (7, "`xml`"),
            (9, "`master`"),
        ] {
            let place = format!("conf/aegis.toml:{line}: ");
            assert!(
                problems.iter().any(|p| p.starts_with(&place) && p.contains(needle)),
                "{line} {needle}: {problems:#?}"
            );
        }
        assert_eq!(problems.len(), 6, "{problems:#?}");
        assert!(!problems.iter().any(|p| p.contains("0f0f0f")), "a key in the wrong place is not repeated");
    }

    #[test]
    fn a_listener_for_tls_and_its_files() {
        let text = "[tls]\nlisten = \"127.0.0.1:8443\"\nnames = [\"gw.internal\", \"::1\"]\n\
                    certificate = \"gw.crt\"\nkey = \"/k/gw.key\"\n";
        let tls = parse(text).unwrap().tls.unwrap();
        assert_eq!(tls.names, ["gw.internal", "::1"]);
        let own = tls.own.unwrap();
        assert_eq!((own.certificate, own.key), ("conf/gw.crt".into(), "/k/gw.key".into()));
        let text = "[tls]\nnames = [\"GW\"]\ncertificate = \"c\"\n[ca]\nintermediate_key = \"k\"\n";
        let problems = parse(text).unwrap_err();
        for (line, needle) in [
            (2, "`GW`"),
            (3, "`certificate` and `key`"),
            (3, "`listen` is required"),
            (5, "`intermediate_certificate`"),
        ] {
            let place = format!("conf/aegis.toml:{line}: ");
            let found = problems.iter().any(|p| p.starts_with(&place) && p.contains(needle));
            assert!(found, "{line} {needle}: {problems:#?}");
        }
    }

    #[test]
    fn limits_are_numbers_within_reason() {
        let config = parse("[server]\nhead_timeout_seconds = 3\nmax_connections_per_source = 5\n").unwrap();
        assert_eq!((config.limits.head, config.limits.per_source), (Duration::from_secs(3), 5));
        for bad in ["0", "601", "-1", "1.5", "\"10\""] {
            let problems = parse(&format!("[server]\nhead_timeout_seconds = {bad}\n")).unwrap_err();
            assert!(
                problems[0].starts_with("conf/aegis.toml:2: ") && problems[0].contains("head_timeout"),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn the_admin_door_opens_to_others_only_when_the_file_says_danger() {
        assert!(parse("[server]\nadmin_listen = \"10.0.0.1:8081\"\n").is_err());
        let config = parse("[server]\nadmin_listen = \"10.0.0.1:8081\"\ndanger_admin_non_loopback = true\n").unwrap();
        assert_eq!(config.admin_listen.to_string(), "10.0.0.1:8081");
        assert!(parse("[server]\nadmin_listen = \"[::1]:8081\"\n").is_ok());
    }

    #[test]
    fn paths_are_relative_to_the_file_unless_absolute() {
        let config =
            parse("[state]\ndir = \".\"\n[keys]\nmaster = \"file:/keys/k\"\n[files]\npolicies = \"/p\"\n").unwrap();
        assert_eq!(config.state.display().to_string(), "conf");
        assert_eq!(config.master, MasterSource::File("/keys/k".into()));
        assert_eq!(config.policies.path, Path::new("/p"));
        let config = parse("[keys]\nmaster = \"passphrase-env:P\"\n").unwrap();
        assert_eq!(config.master, MasterSource::Passphrase("P".into()));
    }
}

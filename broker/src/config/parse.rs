//! `routes.toml` as written: read strictly, every problem at once.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use aegis_action::SourceTrust;
use http::HeaderName;
use ipnet::IpNet;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    egress,
    files::NamedFiles,
    read::{Problem, Reader, Severity, line},
    route::{
        ApiDefaults, ConnectorKind, CredentialKind, CredentialSpec, ProxyAuth, Route, RouteConfig, TunnelDefaults,
        Unmapped, Upstream,
    },
    tool, webhook,
};

/// Reads the file. All errors at once, in line order; warnings come with a usable result.
pub fn parse(file: &str, text: &str, files: &NamedFiles) -> Result<(RouteConfig, Vec<Problem>), Vec<Problem>> {
    let mut problems = Vec::new();
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(e) => {
            let at = e.span().map_or(0, |s| s.start);
            let message = e.message().to_owned();
            return Err(vec![Problem { file: file.into(), line: line(text, at), message, severity: Severity::Error }]);
        }
    };
    let at = root.span();
    let table = root.into_inner();
    let mut config = RouteConfig {
        routes: Vec::new(),
        credentials: BTreeMap::new(),
        tools: Vec::new(),
        api: ApiDefaults {
            default_trust: SourceTrust::UntrustedExternal,
            approval_ttl: APPROVAL_TTL,
            max_pending: MAX_PENDING,
        },
        tunnel: TunnelDefaults {
            default_trust: SourceTrust::UntrustedExternal,
            allow_internal: Vec::new(),
            idle_timeout: TUNNEL_IDLE,
        },
        webhooks: Vec::new(),
    };
    let mut sections: Vec<(&'static str, Spanned<DeValue<'_>>)> = Vec::new();
    {
        let mut top = Reader::new(file, text, &table, at, "the file", &mut problems);
        for section in ["credential", "route", "tool", "webhook"] {
            match top.get(section) {
                None => {}
                Some(value) if matches!(value.get_ref(), DeValue::Array(_)) => sections.push((section, value.clone())),
                Some(_) => top.error_at(section, format!("write `[[{section}]]`, once per {section}")),
            }
        }
        for section in ["api", "tunnel"] {
            if let Some(value) = top.get(section) {
                sections.push((section, value.clone()));
            }
        }
        top.finish();
    }
    // Also those with an error of their own: a route that names one is not wrong for it.
    let declared: Vec<String> = sections
        .iter()
        .filter(|(section, _)| *section == "credential")
        .flat_map(|(_, value)| tables(value))
        .filter_map(|(table, _)| match table.get("name")?.get_ref() {
            DeValue::String(name) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    for (section, value) in &sections {
        for (table, at) in tables(value) {
            let reader = Reader::new(file, text, table, at, section, &mut problems);
            match *section {
                "credential" => read_credential(reader, &mut config),
                "route" => read_route(reader, &mut config, &declared, files),
                "tool" => tool::read(reader, &mut config),
                "tunnel" => read_tunnel(reader, &mut config),
                "webhook" => webhook::read(reader, &mut config, &declared),
                _ => read_api(reader, &mut config),
            }
        }
    }
    cross_check(file, &config, &mut problems);
    problems.sort_by_key(|p| p.line);
    if problems.iter().any(|p| p.severity == Severity::Error) { Err(problems) } else { Ok((config, problems)) }
}

fn tables<'v>(value: &'v Spanned<DeValue<'v>>) -> Vec<(&'v DeTable<'v>, std::ops::Range<usize>)> {
    match value.get_ref() {
        DeValue::Table(table) => vec![(table, value.span())],
        DeValue::Array(items) => items
            .iter()
            .filter_map(|item| match item.get_ref() {
                DeValue::Table(table) => Some((table, item.span())),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn read_credential(mut r: Reader<'_, '_>, config: &mut RouteConfig) {
    let name = r.required("name");
    r.named(format!("credential `{name}`"));
    check_label(&mut r, "name", &name);
    let vault = r.word("vault", "`embedded`, `env` or `file`", |w| {
        ["embedded", "env", "file"].contains(&w).then(|| w.to_owned())
    });
    let key = r.string("key");
    if vault.as_deref().is_some_and(|v| v != "embedded") && key.is_none() {
        r.error_at("vault", "`key` is required: the variable's name or the file's path".into());
    }
    let kind_word = r.string("kind").unwrap_or_else(|| "bearer".into());
    let kind = match kind_word.as_str() {
        "bearer" => Some(CredentialKind::Bearer { scheme: r.string("scheme").unwrap_or_else(|| "Bearer".into()) }),
        "basic" => Some(CredentialKind::Basic { username: r.required("username") }),
        "header" => {
            let text = r.required("header");
            match HeaderName::from_bytes(text.to_ascii_lowercase().as_bytes()) {
                Ok(header) if !FRAMING.contains(&header.as_str()) => {
                    Some(CredentialKind::Header { name: header, prefix: r.string("prefix").unwrap_or_default() })
                }
                _ => {
                    r.error_at("header", format!("`{text}` cannot carry a credential"));
                    None
                }
            }
        }
        "query" => Some(CredentialKind::Query { name: r.required("parameter") }),
        "client_key" => Some(CredentialKind::ClientKey),
        "signing_key" => Some(CredentialKind::SigningKey),
        "webhook_url" => Some(CredentialKind::WebhookUrl),
        other => {
            let known = "`bearer`, `basic`, `header`, `query`, `client_key`, `signing_key` or `webhook_url`";
            r.error_at("kind", format!("`kind` is `{other}`, expected {known}"));
            None
        }
    };
    let at = r.line_of("name");
    if config.credentials.contains_key(&name) {
        r.error_at("name", format!("`{name}` is declared twice"));
    }
    r.finish();
    if let Some(kind) = kind {
        let vault = vault.unwrap_or_else(|| "embedded".into());
        let spec =
            CredentialSpec { key: key.unwrap_or_else(|| name.clone()), name: name.clone(), vault, kind, line: at };
        config.credentials.insert(name, Arc::new(spec));
    }
}

fn read_route(mut r: Reader<'_, '_>, config: &mut RouteConfig, declared: &[String], files: &NamedFiles) {
    let name = r.required("name");
    r.named(format!("route `{name}`"));
    check_label(&mut r, "name", &name);
    if RESERVED.contains(&name.as_str()) {
        r.error_at("name", format!("`{name}` is a path or label of the gateway's own"));
    }
    let connector = r
        .word("connector", "`github` or `http`", |w| match w {
            "github" => Some(ConnectorKind::Github),
            "http" => Some(ConnectorKind::Http),
            _ => None,
        })
        .unwrap_or(ConnectorKind::Http);
    let plaintext = r.boolean("danger_plaintext_upstream").unwrap_or(false);
    let url = r.required("upstream");
    let upstream = match parse_upstream(&url, plaintext) {
        Ok(upstream) => Some(upstream),
        Err(message) if !url.is_empty() => {
            r.error_at("upstream", message);
            None
        }
        Err(_) => None,
    };
    let credential = r.string("credential");
    let default_trust = r
        .word("default_trust", "a source trust label such as `semi_trusted_customer`", SourceTrust::parse)
        .unwrap_or(SourceTrust::Unknown);
    let mut hosts = Vec::new();
    for host in r.strings("hosts") {
        if is_host_name(&host) {
            hosts.push(host);
        } else {
            r.error_at("hosts", format!("`{host}` is not a lower-case host name without port or final dot"));
        }
    }
    let listen = r.word("listen", "an address and port such as `127.0.0.1:8090`", |w| w.parse::<SocketAddr>().ok());
    let unmapped = r
        .word("unmapped", "`deny` or `http`", |w| match w {
            "deny" => Some(Unmapped::Deny),
            "http" => Some(Unmapped::Http),
            _ => None,
        })
        .unwrap_or(Unmapped::Deny);
    let allow_internal = networks(&mut r, "allow_internal");
    let proxy_auth = r
        .word("proxy_auth", "`challenge` or `inner`", |w| match w {
            "challenge" => Some(ProxyAuth::Challenge),
            "inner" => Some(ProxyAuth::Inner),
            _ => None,
        })
        .unwrap_or(ProxyAuth::Challenge);
    // Where the upstream is unusable the other keys are still read, as if it were any server.
    let any = Upstream { tls: true, host: String::new(), port: 443, base_path: String::new() };
    let egress =
        egress::read(&mut r, &egress::Of { upstream: upstream.as_ref().unwrap_or(&any), connector, unmapped, files });
    let body_timeout = seconds(&mut r, "body_timeout_seconds", 30);
    let upstream_timeout = seconds(&mut r, "upstream_timeout_seconds", 60);
    let approval_ttl = r.integer("approval_ttl_seconds", (10, 7 * 86_400)).map_or(APPROVAL_TTL, Duration::from_secs);
    let approval_hold = approval_hold(&mut r);
    let max_body = r.integer("max_body_bytes", (1, 256 << 20)).unwrap_or(64 << 20) as usize;
    let at = r.line_of("name");
    if config.routes.iter().any(|other| other.name == name) {
        r.error_at("name", format!("`{name}` is declared twice"));
    }
    for host in &hosts {
        if let Some(other) = config.routes.iter().find(|other| other.hosts.contains(host)) {
            let message = format!("host `{host}` belongs to route `{}` already", other.name);
            r.error_at("hosts", message);
        }
    }
    if let Some(addr) = listen.filter(|a| a.port() != 0)
        && let Some(other) = config.routes.iter().find(|other| other.listen == Some(addr))
    {
        let message = format!("`{addr}` is the listener of route `{}` already", other.name);
        r.error_at("listen", message);
    }
    let named = [
        ("credential", credential.as_ref()),
        ("client_key_credential", egress.client_key_credential()),
        ("upstream_proxy_credential", egress.proxy.as_ref().and_then(|p| p.credential.as_ref())),
    ];
    for (key, name) in named {
        if let Some(name) = name.filter(|name| !declared.contains(name)) {
            r.error_at(key, format!("credential `{name}` is not declared; add a `[[credential]]` of that name"));
        }
    }
    r.finish();
    let Some(upstream) = upstream else { return };
    config.routes.push(Arc::new(Route {
        name,
        connector,
        upstream,
        credential,
        default_trust,
        hosts,
        listen,
        unmapped,
        allow_internal,
        egress,
        body_timeout,
        upstream_timeout,
        max_body,
        approval_ttl,
        approval_hold,
        proxy_auth,
        line: at,
    }));
}

fn read_api(mut r: Reader<'_, '_>, config: &mut RouteConfig) {
    r.named("[api]".into());
    if let Some(trust) = r.word("default_trust", "a source trust label", SourceTrust::parse) {
        config.api.default_trust = trust;
    }
    if let Some(ttl) = r.integer("approval_ttl_seconds", (10, 7 * 86_400)) {
        config.api.approval_ttl = Duration::from_secs(ttl);
    }
    if let Some(most) = r.integer("max_pending_approvals", (1, 10_000)) {
        config.api.max_pending = u32::try_from(most).unwrap_or(MAX_PENDING);
    }
    r.finish();
}

/// `approvals = "hold"` keeps the connection while people are asked, `"return"` answers at once.
fn approval_hold(r: &mut Reader<'_, '_>) -> Duration {
    let hold = r.word("approvals", "`return` or `hold`", |w| match w {
        "return" => Some(false),
        "hold" => Some(true),
        _ => None,
    });
    let seconds = r.integer("approval_hold_seconds", (1, 3600));
    match (hold, seconds) {
        (Some(true), seconds) => seconds.map_or(HOLD, Duration::from_secs),
        (_, Some(_)) => {
            r.error_at("approval_hold_seconds", "only with `approvals = \"hold\"`".into());
            Duration::ZERO
        }
        (_, None) => Duration::ZERO,
    }
}

fn read_tunnel(mut r: Reader<'_, '_>, config: &mut RouteConfig) {
    r.named("[tunnel]".into());
    if let Some(trust) = r.word("default_trust", "a source trust label", SourceTrust::parse) {
        config.tunnel.default_trust = trust;
    }
    config.tunnel.allow_internal = networks(&mut r, "allow_internal");
    if let Some(idle) = r.integer("idle_timeout_seconds", (1, 86_400)) {
        config.tunnel.idle_timeout = Duration::from_secs(idle);
    }
    r.finish();
}

fn networks(r: &mut Reader<'_, '_>, key: &'static str) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for block in r.strings(key) {
        match block.parse::<IpNet>() {
            Ok(net) => networks.push(net),
            Err(_) => r.error_at(key, format!("`{block}` is not a CIDR block such as `10.1.0.0/16`")),
        }
    }
    networks
}

fn cross_check(file: &str, config: &RouteConfig, problems: &mut Vec<Problem>) {
    let mut used: HashSet<&str> = config.routes.iter().flat_map(|r| credentials_of(r)).map(|(_, name)| name).collect();
    used.extend(config.webhooks.iter().flat_map(|w| w.credentials()).map(|(_, name, _)| name));
    for route in &config.routes {
        for (key, name) in credentials_of(route) {
            let Some(spec) = config.credentials.get(name) else { continue };
            if let Some(expected) = unsuitable(key, &spec.kind) {
                let message = format!(
                    "route `{}`: `{key}` names `{name}`, which is of kind `{}`, not {expected}",
                    route.name,
                    spec.kind.word()
                );
                problems.push(Problem { file: file.to_owned(), line: route.line, message, severity: Severity::Error });
            }
        }
    }
    webhook::cross_check(file, config, problems);
    for spec in config.credentials.values().filter(|spec| !used.contains(spec.name.as_str())) {
        problems.push(Problem {
            file: file.to_owned(),
            line: spec.line,
            message: format!("credential `{}` is used by no route and no webhook", spec.name),
            severity: Severity::Warning,
        });
    }
}

/// The credentials that a route names, with the keys that name them.
fn credentials_of(route: &Route) -> impl Iterator<Item = (&'static str, &str)> {
    let proxy = route.egress.proxy.as_ref().and_then(|p| p.credential.as_deref());
    [
        ("credential", route.credential.as_deref()),
        ("client_key_credential", route.egress.client_key_credential().map(String::as_str)),
        ("upstream_proxy_credential", proxy),
    ]
    .into_iter()
    .filter_map(|(key, name)| Some((key, name?)))
}

/// What a key would take instead of a credential of this kind.
fn unsuitable(key: &str, kind: &CredentialKind) -> Option<&'static str> {
    match (key, kind) {
        ("client_key_credential", CredentialKind::ClientKey)
        | ("upstream_proxy_credential", CredentialKind::Basic { .. }) => None,
        ("client_key_credential", _) => Some("`client_key`"),
        ("upstream_proxy_credential", _) => Some("`basic`"),
        (_, kind) if !kind.is_injected() => Some("one that can be sent"),
        _ => None,
    }
}

pub(super) fn parse_upstream(url: &str, plaintext: bool) -> Result<Upstream, String> {
    let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) if plaintext => (false, rest),
        (None, Some(_)) => {
            return Err("`http://` sends the credential in the clear; use `https://`, or set `danger_plaintext_upstream = true`".into());
        }
        _ => return Err(format!("`{url}` is not an `https://` URL")),
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if authority.contains('@') || rest.contains(['?', '#', '\\']) {
        return Err(format!("`{url}` must be scheme, host, port and path only"));
    }
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or_else(|| format!("`{authority}` lacks `]`"))?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("`{host}` is not an IPv6 address"))?;
        (host, after.strip_prefix(':'))
    } else {
        authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
    };
    if !host.contains(':') && !is_host_name(host) {
        return Err(format!("`{host}` is not a lower-case host name"));
    }
    if !egress::is_plain_host(host) {
        return Err(format!("`{host}` is neither a name nor an address of four plain numbers"));
    }
    let port = match port {
        None => {
            if tls {
                443
            } else {
                80
            }
        }
        Some(text) => text.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| format!("`{text}` is not a port"))?,
    };
    let base_path = path.trim_end_matches('/').to_owned();
    if base_path.split('/').any(|s| s == "." || s == "..") || base_path.contains("//") || base_path.contains('%') {
        return Err(format!("`{path}` is not a plain path"));
    }
    Ok(Upstream { tls, host: host.to_owned(), port, base_path })
}

fn is_host_name(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

pub(super) fn check_label(r: &mut Reader<'_, '_>, key: &'static str, name: &str) {
    if !name.is_empty() && !is_label(name) {
        r.error_at(key, format!("`{name}` must be 1 to 64 of a-z, 0-9, `_` and `-`"));
    }
}

pub(super) fn is_label(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

fn seconds(r: &mut Reader<'_, '_>, key: &'static str, default: u64) -> Duration {
    Duration::from_secs(r.integer(key, (1, 3600)).unwrap_or(default))
}

/// Questions of one agent that may be open.
const MAX_PENDING: u32 = 50;
const HOLD: Duration = Duration::from_secs(60);
const APPROVAL_TTL: Duration = Duration::from_secs(900);
const TUNNEL_IDLE: Duration = Duration::from_secs(300);
/// Headers that frame a message or name its target.
const FRAMING: [&str; 8] =
    ["host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect"];
/// First path segments that the gateway answers itself, and labels that stand for no route.
const RESERVED: [&str; 9] = ["v1", "log", "health", "ready", "metrics", "openapi.json", "console", "sdk", "tunnel"];

#[cfg(test)]
mod tests;

//! Hosts by which routes are reached under names that are not the gateway's: through the forward
//! proxy, or steered to the TLS listener.
//!
//! A route is reached by each of its `hosts`, and by the host and port of its own upstream. An entry
//! of `hosts` goes before another route's upstream; of several routes with the same upstream the first
//! in the file counts, unless their base paths tell them apart.

use std::{collections::HashMap, sync::Arc};

use crate::{config::Route, snapshot::Scope};

/// Routes by the hosts that lead to them.
pub struct Hosts(HashMap<String, Vec<Entry>>);

/// A route under one of its names.
pub struct Entry {
    /// Where it leads.
    pub scope: Arc<Scope>,
    /// What requests carry in front of their path: the base path, where the name is the upstream's own.
    pub base_path: String,
    port: u16,
    alias: bool,
    plain: bool,
}

/// What a client speaks behind the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// TLS, that the gateway ends.
    Tls,
    /// HTTP in the clear, which only routes take whose upstream does.
    Plain,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// No route has this host.
    Unrouted,
    /// A route has it, but at another port.
    Port,
    /// A route has it, but over TLS only.
    TlsOnly,
    /// A route has it, but below another path.
    Path,
}

impl Hosts {
    pub(crate) fn new(scopes: &[Arc<Scope>]) -> Self {
        let mut hosts: HashMap<String, Vec<Entry>> = HashMap::new();
        for (scope, route) in scopes.iter().filter_map(|s| Some((s, s.route.as_deref()?))) {
            for host in &route.hosts {
                hosts.entry(host.clone()).or_default().push(Entry::new(scope, route, true));
            }
            hosts.entry(canonical(&route.upstream.host)).or_default().push(Entry::new(scope, route, false));
        }
        for entries in hosts.values_mut() {
            // Stable: the file's order within each kind.
            entries.sort_by_key(|e| !e.alias);
        }
        Self(hosts)
    }

    /// The route behind a name. `host` is lower case, an address without brackets and as Rust prints
    /// it; `port` is `None` where the name came without one, as in SNI. With a path, the entry whose
    /// base path fits best.
    pub fn find(&self, host: &str, port: Option<u16>, spoken: Spoken, path: Option<&str>) -> Result<&Entry, Miss> {
        let entries = self.0.get(host).ok_or(Miss::Unrouted)?;
        let mut miss = Miss::Port;
        let mut best: Option<&Entry> = None;
        for entry in entries {
            if !port.is_none_or(|port| entry.takes(port, spoken)) {
                continue;
            }
            if spoken == Spoken::Plain && !entry.plain {
                miss = Miss::TlsOnly;
                continue;
            }
            if !path.is_none_or(|path| entry.holds(path)) {
                miss = Miss::Path;
                continue;
            }
            // An alias is somebody's word; base paths only tell upstreams of the same name apart.
            if best.is_none_or(|b| !b.alias && !entry.alias && entry.base_path.len() > b.base_path.len()) {
                best = Some(entry);
            }
        }
        best.ok_or(miss)
    }

    /// All names, for certificates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Entry {
    fn new(scope: &Arc<Scope>, route: &Route, alias: bool) -> Self {
        let base_path = if alias { String::new() } else { route.upstream.base_path.clone() };
        Self { scope: scope.clone(), base_path, port: route.upstream.port, alias, plain: !route.upstream.tls }
    }

    /// An alias stands for the API's public name, which has the scheme's own port.
    fn takes(&self, port: u16, spoken: Spoken) -> bool {
        let own = if spoken == Spoken::Tls { 443 } else { 80 };
        port == self.port || (self.alias && port == own)
    }

    fn holds(&self, path: &str) -> bool {
        path.strip_prefix(self.base_path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// An address in its one spelling; a name as it is.
fn canonical(host: &str) -> String {
    host.parse::<std::net::IpAddr>().map_or_else(|_| host.to_owned(), |ip| ip.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::PolicySource,
        snapshot::{Grammars, Snapshot, Sources},
    };

    const ROUTES: &str = r#"
[[route]]
name = "github"
connector = "github"
upstream = "https://api.github.com"
[[route]]
name = "second"
connector = "http"
upstream = "https://api.github.com"
hosts = ["api.alias.test"]
[[route]]
name = "v1"
connector = "http"
upstream = "https://apps.test:8443/one"
[[route]]
name = "v2"
connector = "http"
upstream = "https://apps.test:8443/one/two"
[[route]]
name = "plain"
connector = "http"
upstream = "http://[::1]:9000"
danger_plaintext_upstream = true
hosts = ["plain.test", "apps.test"]
"#;

    fn snapshot() -> Snapshot {
        let routes = ROUTES.replace("name = \"v1\"", "name = \"one\"");
        let policies = vec![PolicySource { file: "p.cedar".into(), text: String::new() }];
        let sources = Sources { routes_file: "routes.toml".into(), routes, policies, files: Default::default() };
        let built = Snapshot::build(&sources, &Grammars::load());
        built.map_err(|p| format!("{p:?}")).unwrap().0
    }

    #[test]
    fn a_host_leads_to_one_route_at_its_own_port_only() {
        let snapshot = snapshot();
        let find = |host: &str, port: Option<u16>, spoken, path: Option<&str>| {
            snapshot.hosts.find(host, port, spoken, path).map(|e| e.scope.label().to_owned())
        };
        let tls = Spoken::Tls;
        assert_eq!(find("api.github.com", Some(443), tls, None).unwrap(), "github", "the first in the file");
        assert_eq!(find("api.github.com", Some(8443), tls, None), Err(Miss::Port));
        assert_eq!(find("api.github.com", Some(443), Spoken::Plain, None), Err(Miss::TlsOnly));
        assert_eq!(find("api.github.com", Some(80), Spoken::Plain, None), Err(Miss::Port));
        assert_eq!(find("api.github.com", None, tls, Some("/x")).unwrap(), "github");
        assert_eq!(find("other.test", Some(443), tls, None), Err(Miss::Unrouted));
        assert_eq!(find("api.alias.test", Some(443), tls, Some("/x")).unwrap(), "second");
        assert_eq!(find("plain.test", Some(80), Spoken::Plain, Some("/x")).unwrap(), "plain");
        assert_eq!(find("plain.test", Some(443), tls, Some("/x")).unwrap(), "plain");
        assert_eq!(find("::1", Some(9000), Spoken::Plain, Some("/")).unwrap(), "plain");
    }

    #[test]
    fn base_paths_tell_routes_of_one_upstream_apart() {
        let snapshot = snapshot();
        let find = |path: &str| {
            let found = snapshot.hosts.find("apps.test", Some(8443), Spoken::Tls, Some(path));
            found.map(|e| (e.scope.label().to_owned(), e.base_path.clone()))
        };
        assert_eq!(find("/one/x").unwrap(), ("one".into(), "/one".into()));
        assert_eq!(find("/one/two/x").unwrap(), ("v2".into(), "/one/two".into()));
        assert_eq!(find("/one/twofold").unwrap(), ("one".into(), "/one".into()));
        assert_eq!(find("/three"), Err(Miss::Path));
        // Somebody's own word for the host goes first.
        let alias = snapshot.hosts.find("apps.test", Some(443), Spoken::Tls, Some("/one/x")).map(|e| e.scope.label());
        assert_eq!(alias, Ok("plain"));
    }
}

//! Routes, policies, schema and tools as one validated value, pinned by each request.

use std::{net::SocketAddr, sync::Arc};

use aegis_action::{Digest, sha256};
use aegis_connectors::{
    Connector,
    declared::DeclaredTools,
    github::GithubConnector,
    http_generic::HttpConnector,
    tunnel::{self, TunnelConnector},
};
use foldhash::HashMap;
use http::HeaderValue;

use crate::{
    config::{self, ConnectorKind, NamedFiles, Problem, Route, RouteConfig, Severity, Unmapped},
    hosts::Hosts,
    policy::{self, PolicyEngine, PolicySource},
};

/// What an admin edits, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Name of the routes file, for messages.
    pub routes_file: String,
    /// Its text.
    pub routes: String,
    /// The files that the routes name.
    pub files: NamedFiles,
    /// The policy files, in name order.
    pub policies: Vec<PolicySource>,
}

/// One validated configuration. Immutable; requests in flight keep the one they started with.
pub struct Snapshot {
    /// SHA-256 over all sources; every leaf names it.
    pub hash: Digest,
    /// Routes, credentials, tools.
    pub config: RouteConfig,
    /// Policies.
    pub engine: PolicyEngine,
    /// What it was made from.
    pub sources: Sources,
    /// Routes by the names of others: the forward proxy and SNI.
    pub hosts: Hosts,
    /// Opaque tunnels to hosts that no route serves.
    pub tunnel: Arc<Scope>,
    scopes: Vec<Arc<Scope>>,
    by_name: HashMap<String, Arc<Scope>>,
    by_host: HashMap<String, Arc<Scope>>,
    declared: Arc<Scope>,
}

/// Where an action belongs: its route (none for declared tools) and the grammar that speaks for it.
pub struct Scope {
    /// The route, or `None` for SDK calls of declared tools and for opaque tunnels.
    pub route: Option<Arc<Route>>,
    /// The system's grammar.
    pub connector: Arc<dyn Connector>,
    /// Grammar for what the first does not know, where the route says `unmapped = "http"`.
    pub fallback: Option<Arc<dyn Connector>>,
    /// `Host` for the route's upstream.
    pub upstream_host: Option<HeaderValue>,
}

impl Scope {
    /// Label for leaves, metrics and policies.
    pub fn label(&self) -> &str {
        self.route.as_ref().map_or(if self.is_tunnel() { tunnel::SYSTEM } else { "sdk" }, |r| &r.name)
    }

    /// Whether this is about opaque tunnels.
    pub fn is_tunnel(&self) -> bool {
        self.connector.system() == tunnel::SYSTEM
    }
}

/// Grammars that are built once a process and shared by all snapshots.
#[derive(Clone)]
pub struct Grammars {
    /// GitHub REST.
    pub github: Arc<GithubConnector>,
    /// Opaque tunnels.
    pub tunnel: Arc<TunnelConnector>,
}

impl Grammars {
    /// Reads the embedded catalogs.
    pub fn load() -> Self {
        Self { github: Arc::new(GithubConnector::new()), tunnel: Arc::new(TunnelConnector::new()) }
    }

    /// Every embedded catalog, by system, for `aegis actions`.
    pub fn catalogs(&self) -> Vec<Arc<dyn Connector>> {
        vec![self.github.clone(), Arc::new(HttpConnector::new("https://example.com", "http")), self.tunnel.clone()]
    }
}

impl Snapshot {
    /// Validates everything together; all problems of all files at once.
    pub fn build(sources: &Sources, grammars: &Grammars) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut problems = Vec::new();
        let config = match config::parse(&sources.routes_file, &sources.routes, &sources.files) {
            Ok((config, warnings)) => {
                problems.extend(warnings);
                Some(config)
            }
            Err(errors) => {
                problems.extend(errors);
                None
            }
        };
        // Policies are checked even when routes are broken, so that an admin sees everything in one go.
        let routes: Vec<String> = config.iter().flat_map(|c| c.routes.iter().map(|r| r.name.clone())).collect();
        let tools = config.as_ref().map_or_else(Vec::new, |c| c.tools.clone());
        let engine = match PolicyEngine::load(&sources.policies, &grammars.catalogs(), &tools, &routes) {
            Ok((engine, warnings)) => {
                problems.extend(warnings.into_iter().map(|w| located(w.0, Severity::Warning)));
                Some(engine)
            }
            Err(errors) => {
                problems.extend(errors.into_iter().map(|e| located(e, Severity::Error)));
                None
            }
        };
        match (config, engine) {
            (Some(config), Some(engine)) if !problems.iter().any(|p| p.severity == Severity::Error) => {
                Ok((Self::assemble(sources, config, engine, grammars), problems))
            }
            _ => Err(problems),
        }
    }

    /// The route whose base URL starts with this segment.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Scope>> {
        self.by_name.get(name)
    }

    /// The route that is selected by this `Host`, lower case and without port.
    pub fn by_host(&self, host: &str) -> Option<&Arc<Scope>> {
        self.by_host.get(host)
    }

    /// Where an SDK call of this tool belongs: the first route of that system, else the declared tools.
    pub fn for_tool(&self, tool: &str) -> Option<&Arc<Scope>> {
        if tool == tunnel::SYSTEM {
            return Some(&self.tunnel);
        }
        let routed = self.scopes.iter().find(|s| s.connector.system() == tool);
        routed.or_else(|| self.config.tools.iter().any(|t| t.tool.as_ref() == tool).then_some(&self.declared))
    }

    /// Listeners that belong to a route of their own.
    pub fn listeners(&self) -> Vec<(String, SocketAddr)> {
        self.config.routes.iter().filter_map(|r| Some((r.name.clone(), r.listen?))).collect()
    }

    fn assemble(sources: &Sources, config: RouteConfig, engine: PolicyEngine, grammars: &Grammars) -> Self {
        let scopes: Vec<Arc<Scope>> = config.routes.iter().map(|route| Arc::new(scope(route, grammars))).collect();
        let mut by_name = HashMap::default();
        let mut by_host = HashMap::default();
        for scope in &scopes {
            let Some(route) = &scope.route else { continue };
            by_name.insert(route.name.clone(), scope.clone());
            for host in &route.hosts {
                by_host.insert(host.clone(), scope.clone());
            }
        }
        let declared = Arc::new(Scope {
            route: None,
            connector: Arc::new(DeclaredTools::new(config.tools.clone())),
            fallback: None,
            upstream_host: None,
        });
        let tunnel =
            Arc::new(Scope { route: None, connector: grammars.tunnel.clone(), fallback: None, upstream_host: None });
        let mut text = Vec::new();
        // Of the files that routes name, what others get to see: a certificate stands for its key.
        let egress = config.routes.iter().map(|r| &r.egress);
        let shown = egress
            .flat_map(|e| [e.roots.as_ref().map(|r| r.fingerprint), e.client.as_ref().map(|c| c.fingerprint)])
            .flatten()
            .collect::<Vec<_>>();
        let policies = engine.hash();
        let parts = [sources.routes.as_bytes(), &policies.0].into_iter();
        for part in parts.chain(shown.iter().map(|d| d.0.as_slice())) {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part);
        }
        let hosts = Hosts::new(&scopes);
        let (hash, sources) = (sha256(&text), sources.clone());
        Self { hash, config, engine, sources, hosts, tunnel, scopes, by_name, by_host, declared }
    }
}

fn located(problem: policy::Problem, severity: Severity) -> Problem {
    let help = problem.help.map(|h| format!("; {h}")).unwrap_or_default();
    Problem { file: problem.file, line: problem.line as usize, message: format!("{}{help}", problem.message), severity }
}

fn scope(route: &Arc<Route>, grammars: &Grammars) -> Scope {
    let generic = || {
        let origin = format!("{}{}", route.upstream.origin(), route.upstream.base_path);
        let mut connector = HttpConnector::new(&origin, &route.name);
        if route.egress.grpc {
            connector = connector.allow_grpc();
        }
        if route.egress.websocket {
            connector = connector.allow_websocket();
        }
        Arc::new(connector)
    };
    let connector: Arc<dyn Connector> = match route.connector {
        ConnectorKind::Github => grammars.github.clone(),
        ConnectorKind::Http => generic(),
    };
    let fallback: Option<Arc<dyn Connector>> = match (route.connector, route.unmapped) {
        (ConnectorKind::Github, Unmapped::Http) => Some(generic()),
        (ConnectorKind::Github, Unmapped::Deny) | (ConnectorKind::Http, _) => None,
    };
    let upstream_host = HeaderValue::from_str(&route.upstream.authority()).ok();
    Scope { route: Some(route.clone()), connector, fallback, upstream_host }
}

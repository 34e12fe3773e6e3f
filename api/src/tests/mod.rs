//! Both doors over a real broker: log on disk, database in memory, embedded vault.

mod agents;
mod approvals;
mod authorize;
mod ca;
mod credentials;
mod disk;
mod doors;
mod evidence;
mod schema;
mod sessions;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use aegis_action::{Clock, Timestamp};
use aegis_broker::{
    Broker, Parts,
    config::{NamedFiles, Route},
    credential::Secrets,
    decision_log::{DecisionLog, LogFormat},
    env::{Env, SystemRandom},
    facts::{Upstream, UpstreamError},
    metrics::Metrics,
    policy::PolicySource,
    sealer::Sealer,
    secret::Secret,
    snapshot::{Grammars, Sources},
    store::PersonRole,
    token::TokenHasher,
    vault::Vault,
};
use aegis_connectors::UpstreamRequest;
use aegis_receipts::{LogOptions, ReceiptLog};
use aegis_store::SqliteStore;
use aegis_vault_adapters::{EmbeddedVault, MasterKey};
use async_trait::async_trait;
use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{AdminOptions, Peer, ReloadError, admin_router, agent_router};

/// A gateway without listeners.
pub(crate) struct Rig {
    pub broker: Arc<Broker>,
    pub clock: Arc<TestClock>,
    pub admin: String,
    pub disk: Arc<disk::FullDisk>,
    /// What `POST /v1/reload` finds; `None` cannot be read.
    pub sources: Arc<Mutex<Option<Sources>>>,
    agents: Router,
    admins: Router,
    _folder: tempfile::TempDir,
}

/// Which router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Agents,
    Admins,
}

/// An answer, already held against the OpenAPI document.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(1_767_225_600_000)));
        let env = Env { clock: clock.clone(), random: Arc::new(SystemRandom) };
        let disk = Arc::new(disk::FullDisk::default());
        let options = LogOptions { preallocate: 1 << 20, ..LogOptions::new(folder.path().join("receipts"), "n1") };
        let (log, _) = ReceiptLog::open(options, clock.clone(), disk.clone()).unwrap();
        let vault = EmbeddedVault::open(
            &folder.path().join("vault"),
            &MasterKey::from_env(&aegis_action::sha256(b"master").to_hex()).unwrap(),
            clock.clone(),
        )
        .unwrap();
        let root = vault.root_key();
        let parts = Parts {
            env,
            log,
            store: Arc::new(SqliteStore::in_memory().await.unwrap()),
            vaults: BTreeMap::from([("embedded", Arc::new(vault) as Arc<dyn Vault>)]),
            sealer: Arc::new(Sealed(root.sealer("payload"))),
            hasher: TokenHasher::new(root.derive_key("tokens")),
            upstream: Arc::new(NoUpstream),
            grammars: Grammars::load(),
            metrics: Metrics::new().unwrap(),
            decisions_log: DecisionLog::new(LogFormat::Off, Box::new(std::io::sink())),
            tenant: "default".into(),
        };
        let (broker, _) = Broker::start(parts, &sources(ROUTES)).await.unwrap();
        let (_, token) = broker.add_person("root", PersonRole::Admin, Vec::new(), None, None, None).await.unwrap();
        let on_disk = Arc::new(Mutex::new(Some(sources(ROUTES))));
        let (reloaded, files) = (broker.clone(), on_disk.clone());
        let reload: crate::ReloadFn = Arc::new(move || {
            let (broker, sources) = (reloaded.clone(), files.lock().clone());
            Box::pin(async move {
                let sources = sources.ok_or_else(|| ReloadError::Unreadable("routes.toml: no such file".into()))?;
                Ok(broker.reload(&sources).await?)
            })
        });
        Self {
            agents: agent_router(broker.clone(), Arc::new(ca::FixedCa)),
            admins: admin_router(
                broker.clone(),
                AdminOptions { reload, ca: Arc::new(ca::FixedCa), slack_reply: Arc::new(|_, _| {}) },
            ),
            admin: text(&token),
            broker,
            clock,
            disk,
            sources: on_disk,
            _folder: folder,
        }
    }

    /// One request with a JSON body, checked against the document on its way back.
    pub(crate) async fn call(&self, to: To, method: Method, path: &str, token: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.send(to, request.unwrap(), "203.0.113.7").await
    }

    pub(crate) async fn send(&self, to: To, mut request: Request<Body>, peer: &str) -> Answer {
        request.extensions_mut().insert(Peer(Some(peer.parse::<IpAddr>().unwrap())));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let router = if to == To::Agents { &self.agents } else { &self.admins };
        let (head, body) = router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let answer = Answer {
            status: head.status,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            headers: head.headers,
            text,
        };
        assert_eq!(answer.header("cache-control"), "no-store");
        schema::check(&method, &path, &answer);
        answer
    }

    pub(crate) async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.call(To::Admins, method, path, &self.admin, body).await
    }

    /// Id and token of a new agent.
    pub(crate) async fn enrol(&self, key: &str) -> (String, String) {
        let answer = self.admin(Method::POST, "/v1/agents/register", Some(enrolment(key))).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        (answer.str("/agent_id"), answer.str("/agent_token"))
    }

    /// Id and token of a new approver.
    pub(crate) async fn approver(&self, groups: &[&str]) -> (String, String) {
        let answer = self.admin(Method::POST, "/v1/approvers", Some(json!({"name":"Lee","groups":groups}))).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        (answer.str("/person_id"), answer.str("/approver_token"))
    }

    pub(crate) async fn authorize(&self, token: &str, body: Value) -> Answer {
        self.call(To::Agents, Method::POST, "/v1/authorize", token, Some(body)).await
    }

    /// All leaves so far.
    pub(crate) fn leaves(&self) -> Vec<Value> {
        let stored = self.broker.log.read(0, 10_000).unwrap();
        stored.iter().map(|l| serde_json::from_slice(&l.bytes).unwrap()).collect()
    }

    /// Reasons of all refusals so far.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let leaves = self.leaves();
        let refused = leaves.iter().filter(|l| l["type"] == "refused.v1");
        refused.map(|l| l["reason"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.leaves().iter().filter_map(|l| Some(l.get("kind")?.as_str()?.to_owned())).collect()
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub(crate) fn str(&self, pointer: &str) -> String {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no {pointer} in {}", self.text))
            .to_owned()
    }

    /// Asserts a problem of this status and code.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.body["type"], format!("urn:aegis:problem:{code}"), "{}", self.text);
        assert_eq!(self.body["status"], status);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("aegis-reason"), code);
    }
}

pub(crate) fn enrolment(key: &str) -> Value {
    json!({"agent_key": key, "name": "Test", "owner_team": "platform", "owner_email": "a@example.test",
        "environment": "test", "risk_tier": "medium"})
}

pub(crate) fn write_note() -> Value {
    json!({"tool_call": {"tool": "desk", "action": "write_note", "resource": "n1", "mutates_state": true, "parameters": {"text": "a"}}})
}

pub(crate) fn deploy(parameters: Value) -> Value {
    json!({"tool_call": {"tool": "desk", "action": "deploy", "resource": "shop", "mutates_state": true, "parameters": parameters}})
}

pub(crate) fn sources(routes: &str) -> Sources {
    let policies = vec![PolicySource { file: "test.cedar".into(), text: POLICIES.into() }];
    Sources { routes_file: "routes.toml".into(), routes: routes.into(), files: NamedFiles::default(), policies }
}

pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

struct Sealed(aegis_vault_adapters::Sealer);

impl Sealer for Sealed {
    fn seal(&self, label: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        self.0.seal(label, plain).ok()
    }
    fn open(&self, label: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.0.open(label, sealed).ok().map(|plain| plain.to_vec())
    }
}

struct NoUpstream;

#[async_trait]
impl Upstream for NoUpstream {
    async fn fetch(
        &self,
        _: &Route,
        _: UpstreamRequest,
        _: &Secrets,
        _: usize,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        Err(UpstreamError("there is no network here".into()))
    }
}

fn text(secret: &Secret) -> String {
    String::from_utf8(secret.expose().to_vec()).unwrap()
}

pub(crate) const ROUTES: &str = r#"
[[route]]
name = "shop"
connector = "http"
upstream = "https://shop.example"
credential = "shop"
default_trust = "semi_trusted_customer"

[[credential]]
name = "shop"
vault = "embedded"
kind = "bearer"

[[credential]]
name = "elsewhere"
vault = "env"
key = "AEGIS_TEST_NOT_SET"
kind = "bearer"

[[tool]]
name = "desk.write_note"
class = "write"
risk = "medium"
resource = "{note}"
description = "writes a note"
[tool.parameters]
text = "string"

[[tool]]
name = "desk.shred"
class = "delete"
risk = "critical"
resource = "{note}"

[[tool]]
name = "desk.deploy"
class = "write"
risk = "high"
resource = "{service}"

[[tool]]
name = "desk.raze"
class = "delete"
risk = "critical"

[[tool]]
name = "desk.launch"
class = "write"
risk = "high"

[api]
max_pending_approvals = 3
"#;

const POLICIES: &str = r#"
@id("write")
permit (principal, action in [Action::"desk.write_note", Action::"desk.deploy", Action::"desk.raze", Action::"desk.launch"], resource);

@id("deploy-asks")
@description("a deployment takes a person's agreement")
@require_approval("leads")
forbid (principal, action == Action::"desk.deploy", resource)
unless { context.approval.groups.contains("leads") };

@id("launch-asks-two")
@require_approval("leads")
@quorum("2")
forbid (principal, action == Action::"desk.launch", resource)
unless { context.approval.groups.contains("leads") };

@id("raze-asks")
@require_approval("leads")
forbid (principal, action == Action::"desk.raze", resource)
unless { context.approval.groups.contains("leads") };
"#;

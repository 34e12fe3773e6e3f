//! A small system for the tests: a few actions of every kind, and no wire.

use std::{collections::BTreeMap, sync::Arc};

use aegis_action::{AccessClass, Action, Risk, SourceTrust, Timestamp, ToolCall};
use aegis_connectors::{
    Call, Connector, Denial, EntityRef, Entry, ErrorReply, Head, Mapped, ParamType, Parameter, Plan, Refusal,
};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::policy::{Evaluation, Input, PolicyEngine, PolicySource, Principal, Problem, Slice, Warning};

pub struct Fake {
    entries: Vec<Arc<Entry>>,
}

impl Fake {
    pub fn shared() -> Arc<dyn Connector> {
        let pull = ["GitHub::PullRequest", "GitHub::Repository", "GitHub::Organization"].as_slice();
        let repo = pull.get(1..).unwrap();
        let record = ParamType::Record(BTreeMap::from([parameter("name", ParamType::String, false)]));
        let numbers = ParamType::List(Box::new(ParamType::Integer));
        let mut entries = vec![
            entry(
                "create_issue",
                AccessClass::Write,
                Risk::Medium,
                repo,
                [
                    parameter("title", ParamType::String, true),
                    parameter("labels", ParamType::List(Box::new(ParamType::String)), false),
                    parameter("author", record, false),
                    parameter("milestone", ParamType::Integer, false),
                    parameter("draft", ParamType::Boolean, false),
                    parameter("ids", numbers, false),
                    parameter("shape", ParamType::Opaque, false),
                ],
            ),
            entry("create_token", AccessClass::Mint, Risk::Critical, &[], []),
            entry("delete_repository", AccessClass::Delete, Risk::Critical, repo, []),
            entry("list_issues", AccessClass::Read, Risk::Low, repo, [parameter("state", ParamType::String, false)]),
            entry(
                "merge_pull_request",
                AccessClass::Write,
                Risk::High,
                pull,
                [parameter("merge_method", ParamType::String, false), parameter("sha", ParamType::String, false)],
            ),
            entry("refund", AccessClass::Money, Risk::High, &[], [parameter("amount", ParamType::Integer, false)]),
            entry("write_file", AccessClass::Write, Risk::Medium, repo, [parameter("path", ParamType::String, true)]),
        ];
        for entry in &mut entries {
            let facts: &[(&str, ParamType)] = match entry.name.as_str() {
                "merge_pull_request" => &[("base_branch", ParamType::String), ("base_protected", ParamType::Boolean)],
                "refund" => &[("amount", ParamType::Integer)],
                _ => &[],
            };
            entry.facts = facts.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
        }
        Arc::new(Self { entries: entries.into_iter().map(Arc::new).collect() })
    }
}

fn parameter(name: &str, ty: ParamType, required: bool) -> (String, Parameter) {
    (name.to_owned(), Parameter { ty, required })
}

pub fn entry<const N: usize>(
    name: &str,
    class: AccessClass,
    risk: Risk,
    types: &[&str],
    parameters: [(String, Parameter); N],
) -> Entry {
    Entry {
        tool: "github".into(),
        name: name.into(),
        operation: name.into(),
        summary: name.into(),
        wire: String::new(),
        class,
        risk,
        mutates_state: class != AccessClass::Read,
        resource: types.first().map(|_| "{owner}/{repo}".into()),
        resource_types: types.iter().map(|t| Arc::from(*t)).collect(),
        parameters: BTreeMap::from(parameters),
        facts: BTreeMap::new(),
        aliases: BTreeMap::new(),
    }
}

impl Connector for Fake {
    fn system(&self) -> &str {
        "github"
    }
    fn plan(&self, _: &Head<'_>) -> Result<Plan, Refusal> {
        Err(refusal())
    }
    fn map(&self, _: Plan, _: Option<Bytes>) -> Result<Mapped, Refusal> {
        Err(refusal())
    }
    fn validate(&self, call: ToolCall) -> Result<Call, Refusal> {
        let entry = self.entry(&call.action).ok_or_else(refusal)?;
        let mut resource = Vec::new();
        if let Some(id) = &call.resource {
            let mut id = id.as_str();
            for ty in &entry.resource_types {
                resource.push(EntityRef { ty: ty.clone(), id: id.to_owned() });
                id = id.rsplit_once(['#', '/']).map_or(id, |(above, _)| above);
            }
        }
        let planted = call.parameters.get("path").and_then(Value::as_str).is_some_and(|p| p.starts_with(".github/"));
        let class = if planted { AccessClass::Persist } else { entry.class };
        let action = Action::new(call).map_err(|_| refusal())?;
        Ok(Call { action, entry, class, resource, sending: BTreeMap::new() })
    }
    fn catalog(&self) -> &[Arc<Entry>] {
        &self.entries
    }
    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries.iter().find(|e| e.name == name).cloned()
    }
    fn denial(&self, _: &Denial) -> ErrorReply {
        self.challenge()
    }
    fn challenge(&self) -> ErrorReply {
        ErrorReply { status: StatusCode::FORBIDDEN, headers: Vec::new(), body: Bytes::new() }
    }
}

fn refusal() -> Refusal {
    Refusal { reason: "unknown_operation", detail: "not in the fake".into(), status: StatusCode::NOT_FOUND }
}

pub fn load(text: &str) -> Result<(PolicyEngine, Vec<Warning>), Vec<Problem>> {
    let source = PolicySource { file: "p.cedar".into(), text: text.into() };
    PolicyEngine::load(&[source], &[Fake::shared()], &[], &["github".into(), "internal".into()])
}

pub fn engine(text: &str) -> PolicyEngine {
    match load(text) {
        Ok((engine, _)) => engine,
        Err(problems) => panic!("{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>()),
    }
}

pub fn call(action: &str, resource: Option<&str>, parameters: Value) -> Call {
    let fake = Fake::shared();
    let mutates = fake.entry(action).unwrap().mutates_state;
    let call = json!({"tool": "github", "action": action, "resource": resource, "mutates_state": mutates, "parameters": parameters});
    fake.validate(serde_json::from_value(call).unwrap()).unwrap()
}

/// A question with everything set to something harmless.
pub struct Question {
    pub principal: Principal,
    pub call: Call,
    pub trust: SourceTrust,
    pub facts: Map<String, Value>,
    pub groups: Vec<String>,
    pub now: Timestamp,
    pub sensitive: Option<bool>,
    pub route: String,
}

pub fn ask(action: &str, resource: Option<&str>, parameters: Value) -> Question {
    let principal = Principal {
        agent_id: "agt_1".into(),
        team: "payments".into(),
        owner: "o@example.com".into(),
        environment: "production".into(),
        risk_tier: "low".into(),
        framework: None,
        binding: "bearer".into(),
        version: 1,
    };
    Question {
        principal,
        call: call(action, resource, parameters),
        trust: SourceTrust::TrustedInternalSigned,
        facts: Map::new(),
        groups: Vec::new(),
        now: Timestamp(1_704_115_800_000),
        sensitive: None,
        route: "github".into(),
    }
}

impl Question {
    pub fn input(&self) -> Input<'_> {
        Input {
            principal: &self.principal,
            call: &self.call,
            trust: self.trust,
            facts: &self.facts,
            now: self.now,
            route: &self.route,
            identity: "bearer",
            approval_groups: &self.groups,
            contains_sensitive_data: self.sensitive,
            door: "route",
        }
    }

    pub fn fact(mut self, name: &str, value: Value) -> Self {
        self.facts.insert(name.into(), value);
        self
    }

    pub fn approved_by(mut self, group: &str) -> Self {
        self.groups.push(group.into());
        self
    }

    pub fn slice(&self, engine: &PolicyEngine) -> Arc<Slice> {
        engine.slice(&self.principal, &self.call)
    }

    pub fn put_to(&self, engine: &PolicyEngine) -> Evaluation {
        engine.evaluate(&self.slice(engine), &self.input())
    }
}

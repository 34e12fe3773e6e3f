//! What a merge or a write does to which branch: learned by reading, never from the agent.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value};

use super::GithubConnector;
use crate::{Call, Connector, FactRead, FactStep, Head, ParamType, UpstreamBody, UpstreamRequest, wire::path::encode};

/// The facts that an operation can have.
pub(super) fn of(operation: &str) -> BTreeMap<String, ParamType> {
    let facts: &[(&str, ParamType)] = match subject(operation) {
        Some(Subject::Merge) => &[
            ("author", ParamType::String),
            ("base_branch", ParamType::String),
            ("base_protected", ParamType::Boolean),
            ("draft", ParamType::Boolean),
            ("head_branch", ParamType::String),
            ("head_sha", ParamType::String),
        ],
        Some(Subject::Branch { .. }) => &[("branch", ParamType::String), ("branch_protected", ParamType::Boolean)],
        None => &[],
    };
    facts.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect()
}

/// The fact that names the version an approval covers.
pub(super) fn version(operation: &str) -> Option<&'static str> {
    matches!(subject(operation), Some(Subject::Merge)).then_some("head_sha")
}

/// What to read next for a fact.
pub(super) fn step(github: &GithubConnector, call: &Call, fact: &str, known: &Map<String, Value>) -> FactStep {
    let Some(subject) = subject(&call.entry.operation) else { return FactStep::Unknown };
    if !call.entry.facts.contains_key(fact) {
        return FactStep::Unknown;
    }
    if known.contains_key(fact) {
        return FactStep::Known;
    }
    let Some(repository) = call.resource.iter().find(|r| &*r.ty == "GitHub::Repository").map(|r| r.id.as_str()) else {
        return FactStep::Unknown;
    };
    let read = match subject {
        Subject::Merge => match (fact, known.get("base_branch")) {
            ("base_protected", Some(Value::String(base))) => branch_read(github, repository, base, BASE),
            // The pull request could not be read, so neither can its base.
            ("base_protected", Some(_)) => None,
            _ => call
                .action
                .resource()
                .and_then(|id| id.rsplit_once('#'))
                .and_then(|(_, number)| read(github, &format!("/repos/{repository}/pulls/{number}"), PULL)),
        },
        Subject::Branch { parameter } => match (known.get(BRANCH_FACT), named_branch(call, parameter)) {
            (Some(Value::String(branch)), _) => branch_read(github, repository, branch, BRANCH),
            (Some(_), _) | (None, Named::Nothing) => None,
            (None, Named::Branch(branch)) => branch_read(github, repository, &branch, BRANCH),
            (None, Named::Default) => read(github, &format!("/repos/{repository}"), REPOSITORY),
        },
    };
    read.map_or(FactStep::Unknown, |read| FactStep::Read(Box::new(read)))
}

/// Takes the facts from an answer. What it does not hold is known to be absent, so that
/// nothing is read twice and policies that need it deny.
pub(super) fn learn(read: &FactRead, status: StatusCode, body: &Value, known: &mut Map<String, Value>) {
    let body = if status.is_success() { body } else { &Value::Null };
    let text = |pointer: &str| body.pointer(pointer).filter(|v| v.is_string()).cloned().unwrap_or_default();
    let flag = |pointer: &str| body.pointer(pointer).filter(|v| v.is_boolean()).cloned().unwrap_or_default();
    let facts: &[(&str, Value)] = match read.tag {
        PULL => &[
            // A login is the same in any case, and lower case in all that policies read.
            ("author", text("/user/login").as_str().map(str::to_lowercase).into()),
            ("base_branch", text("/base/ref")),
            ("draft", flag("/draft")),
            ("head_branch", text("/head/ref")),
            ("head_sha", text("/head/sha")),
        ],
        BASE => &[("base_protected", flag("/protected"))],
        REPOSITORY => &[(BRANCH_FACT, text("/default_branch"))],
        BRANCH => &[(BRANCH_FACT, text("/name")), ("branch_protected", flag("/protected"))],
        _ => &[],
    };
    for (name, value) in facts {
        known.insert((*name).to_owned(), value.clone());
    }
}

/// Makes GitHub refuse the merge if the head is no longer the one that was judged.
pub(super) fn add_precondition(operation: &str, version: &Value, upstream: &mut UpstreamRequest) {
    let (Some(Subject::Merge), Value::String(judged)) = (subject(operation), version) else { return };
    let mut body = match &upstream.body {
        UpstreamBody::Bytes(bytes) => match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => map,
            Ok(_) | Err(_) => Map::new(),
        },
        UpstreamBody::Empty | UpstreamBody::Stream => Map::new(),
    };
    let sha = match body.get("sha").and_then(Value::as_str) {
        // The agent insists on another head than the one that was judged: neither may be merged.
        Some(other) if other != judged => NO_COMMIT,
        _ => judged,
    };
    body.insert("sha".into(), sha.into());
    upstream.body = UpstreamBody::Bytes(Bytes::from(Value::Object(body).to_string()));
    if !upstream.headers.iter().any(|(name, _)| name == header::CONTENT_TYPE) {
        upstream.headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
    }
}

/// What an operation's facts are about.
#[derive(Clone, Copy)]
enum Subject {
    /// The pull request of the resource.
    Merge,
    /// The branch that this parameter names, or the default one.
    Branch { parameter: &'static str },
}

fn subject(operation: &str) -> Option<Subject> {
    match operation {
        "pulls/merge" | "pulls/merge-async" => Some(Subject::Merge),
        "repos/create-or-update-file-contents" | "repos/delete-file" | "repos/merge-upstream" => {
            Some(Subject::Branch { parameter: "branch" })
        }
        "repos/merge" => Some(Subject::Branch { parameter: "base" }),
        "git/update-ref" | "git/delete-ref" => Some(Subject::Branch { parameter: "ref" }),
        _ => None,
    }
}

enum Named {
    Branch(String),
    Default,
    Nothing,
}

fn named_branch(call: &Call, parameter: &str) -> Named {
    match call.action.parameters().get(parameter) {
        None | Some(Value::Null) => Named::Default,
        // The API takes `heads/…`; a tag is no branch, so its facts cannot be had.
        Some(Value::String(name)) if parameter == "ref" => {
            name.strip_prefix("heads/").map_or(Named::Nothing, |b| Named::Branch(b.to_owned()))
        }
        Some(Value::String(name)) => {
            let plain = name.strip_prefix("refs/heads/").unwrap_or(name);
            Named::Branch(plain.to_owned())
        }
        Some(_) => Named::Nothing,
    }
}

fn branch_read(github: &GithubConnector, repository: &str, branch: &str, tag: &'static str) -> Option<FactRead> {
    read(github, &format!("/repos/{repository}/branches/{}", encode(branch)), tag)
}

/// A read through our own grammar, so that it is judged and receipted like any other.
fn read(github: &GithubConnector, path: &str, tag: &'static str) -> Option<FactRead> {
    let headers = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static("aegis"))]);
    let head = Head {
        method: &Method::GET,
        path,
        query: None,
        headers: &headers,
        content_length: None,
        has_body: false,
        websocket: false,
    };
    let mapped = github.plan(&head).and_then(|plan| github.map(plan, None)).ok()?;
    let call = mapped.calls.into_iter().next()?;
    Some(FactRead { call, upstream: mapped.upstream, tag })
}

const BRANCH_FACT: &str = "branch";
const PULL: &str = "pull_request";
const BASE: &str = "base_branch";
const REPOSITORY: &str = "repository";
const BRANCH: &str = "branch";
/// No commit has this id, so a merge that requires it never happens.
const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

//! What webhooks are told about events of the log, and how it is signed.

mod clicks;
mod sign;
mod slack;

use std::sync::Arc;

use aegis_action::Timestamp;
use aegis_receipts::Event;
use http::{HeaderValue, Request, header};
use serde_json::{Map, Value, json};

use crate::{
    Broker,
    config::{Webhook, WebhookFormat},
    permit::LeaseError,
    secret::Secret,
    store::{AgentRecord, ApprovalRecord, ApprovalStatus, PersonRecord, StoreError},
};

pub(crate) use clicks::Clicks;

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The credential cannot be had.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Its value is not what it is for; says what it has to be.
    #[error("credential `{name}`: {problem}")]
    Unusable {
        /// Credential.
        name: String,
        /// What is wrong, never the value.
        problem: &'static str,
    },
}

/// An event with what people want to know about it.
struct Told<'a> {
    event: &'a Event,
    receipt_id: &'a str,
    agent: Option<AgentRecord>,
    approval: Option<ApprovalRecord>,
    /// Each action that is about to be done: `tool.action`, resource, in plain words.
    actions: Vec<(String, Option<String>, String)>,
    /// Id and words of each policy that asks.
    policies: Vec<(String, String)>,
    /// Who did it: by name, or by id where nobody of that id is left.
    people: Vec<PersonRecord>,
    link: Option<String>,
}

impl Broker {
    /// The body for one event. Parameters of actions are never in it: they are on the page that it links to.
    pub async fn webhook_body(
        &self,
        webhook: &Webhook,
        receipt_id: &str,
        event: &Event,
    ) -> Result<Vec<u8>, StoreError> {
        let told = self.told(webhook, receipt_id, event).await?;
        let body = match &webhook.format {
            WebhookFormat::Standard { .. } => told.standard(),
            WebhookFormat::Slack { signing_secret } => slack::message(&told, signing_secret.is_some()),
        };
        Ok(body.to_string().into_bytes())
    }

    /// The request that delivers a body, signed as of now. Its address may be a secret: it must not be printed.
    pub async fn webhook_request(
        &self,
        webhook: &Webhook,
        event_id: &str,
        body: Vec<u8>,
    ) -> Result<Request<Vec<u8>>, WebhookError> {
        let secret = self.webhook_secret(&webhook.credential).await?;
        let unusable = |problem| WebhookError::Unusable { name: webhook.credential.clone(), problem };
        let request = match &webhook.format {
            WebhookFormat::Standard { url } => {
                let now = self.env.clock.now().0 / 1000;
                let signature = sign::standard(&secret, event_id, now, &body)
                    .ok_or_else(|| unusable("the key must be `whsec_` and base64, or other bytes"))?;
                Request::post(url)
                    .header("webhook-id", event_id)
                    .header("webhook-timestamp", now)
                    .header("webhook-signature", signature)
            }
            WebhookFormat::Slack { .. } => {
                let url = std::str::from_utf8(secret.expose()).unwrap_or_default();
                let plain = webhook.danger_plaintext && url.starts_with("http://");
                if !plain && !url.starts_with("https://") {
                    return Err(unusable("the address must start with `https://`"));
                }
                Request::post(url)
            }
        };
        request
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(header::USER_AGENT, HeaderValue::from_static("aegis-webhooks"))
            .body(body)
            .map_err(|_| unusable("the address is not a URL"))
    }

    /// Keys of webhooks belong to no request of an agent, so no permit opens them; and nothing else is opened here.
    async fn webhook_secret(&self, name: &str) -> Result<Secret, WebhookError> {
        let unusable = |problem| WebhookError::Unusable { name: name.to_owned(), problem };
        let spec = self.snapshot().config.credentials.get(name).cloned();
        let spec = spec.ok_or_else(|| unusable("it is not declared any more"))?;
        let credential: Arc<_> = self.open_credential(&spec).await?;
        credential.for_webhooks().cloned().ok_or_else(|| unusable("it is not of a kind for webhooks"))
    }

    async fn told<'a>(&self, webhook: &Webhook, receipt_id: &'a str, event: &'a Event) -> Result<Told<'a>, StoreError> {
        let text = |key: &str| event.body.get(key).and_then(Value::as_str);
        let agent = match text("agent_id") {
            Some(id) => self.store.agent(id).await?,
            None => None,
        };
        let approval = match text("approval_id") {
            Some(id) => self.store.approval(id, self.env.clock.now()).await?,
            None => None,
        };
        let mut ids: Vec<&str> = text("person_id").into_iter().collect();
        ids.extend(
            event.body.get("approvers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str),
        );
        let mut people = if ids.is_empty() { Vec::new() } else { self.store.people().await? };
        people.retain(|p| ids.contains(&p.person_id.as_str()));
        let snapshot = self.snapshot();
        let words = |id: &String| snapshot.engine.policy(id).map_or_else(|| id.clone(), |policy| policy.words());
        let policies = approval.iter().flat_map(|a| a.policies.iter()).map(|id| (id.clone(), words(id))).collect();
        let link = match (&webhook.link, &approval) {
            (Some(base), Some(approval)) => Some(format!("{base}/approvals/{}", approval.approval_id)),
            _ => None,
        };
        let actions = self.actions_of(event, approval.as_ref());
        Ok(Told { event, receipt_id, agent, approval, actions, policies, people, link })
    }

    /// All actions of an approval that waits; afterwards its payload is erased and only the first is known.
    fn actions_of(&self, event: &Event, approval: Option<&ApprovalRecord>) -> Vec<(String, Option<String>, String)> {
        let payload = approval.and_then(|a| self.approval_payload(a));
        let calls: Vec<(String, Option<String>)> = match payload.as_ref().and_then(Value::as_array) {
            Some(calls) => calls.iter().filter_map(|call| call_of(call.get("tool_call")?)).collect(),
            None => match approval {
                Some(approval) => vec![(approval.action.clone(), approval.resource.clone())],
                None => {
                    let text = |key: &str| event.body.get(key).and_then(Value::as_str).map(str::to_owned);
                    text("action").map(|action| (action, text("resource"))).into_iter().collect()
                }
            },
        };
        let named = |(action, resource): (String, Option<String>)| {
            let said = self.entry(&action).map(|entry| entry.summary.clone()).filter(|s| !s.is_empty());
            let words = said.unwrap_or_else(|| plain(&action));
            (action, resource, words)
        };
        calls.into_iter().map(named).collect()
    }
}

impl Told<'_> {
    fn standard(&self) -> Value {
        let mut data: Map<String, Value> = self.event.body.clone();
        let mut add = |key: &str, value: Value| data.insert(key.to_owned(), value);
        add("receipt_id", json!(self.receipt_id));
        if let Some(agent) = &self.agent {
            let agent = json!({"id": agent.agent_id, "name": agent.name, "owner_team": agent.owner_team});
            add("agent", agent);
        }
        if let Some(approval) = &self.approval {
            add("resource", json!(approval.resource));
            add("risk", json!(approval.risk));
            add("status", json!(approval.status));
            add("groups", json!(approval.groups));
            add("action_hash", json!(approval.action_hash));
            let policies: Vec<Value> =
                self.policies.iter().map(|(id, words)| json!({"id": id, "words": words})).collect();
            add("policies", policies.into());
        }
        let actions: Vec<Value> = self
            .actions
            .iter()
            .map(|(action, resource, words)| json!({"action": action, "resource": resource, "words": words}))
            .collect();
        if let Some(first) = actions.first() {
            add("words", first.get("words").cloned().unwrap_or_default());
            add("actions", actions.into());
        }
        for key in ["expires_at", "until"] {
            if let Some(at) = self.event.body.get(key).and_then(Value::as_i64) {
                add(key, json!(instant(Timestamp(at))));
            }
        }
        let people: Vec<Value> = self.people.iter().map(|p| json!({"id": p.person_id, "name": p.name})).collect();
        if !people.is_empty() {
            add("people", people.into());
        }
        if let Some(link) = &self.link {
            add("link", json!(link));
        }
        let event = self.event;
        json!({"id": event.event_id, "type": event.kind, "timestamp": instant(event.at), "data": data})
    }

    fn pending(&self) -> Option<&ApprovalRecord> {
        self.approval.as_ref().filter(|a| a.status == ApprovalStatus::Pending)
    }
}

fn call_of(call: &Value) -> Option<(String, Option<String>)> {
    let text = |key: &str| call.get(key).and_then(Value::as_str);
    Some((format!("{}.{}", text("tool")?, text("action")?), text("resource").map(str::to_owned)))
}

/// `github.merge_pull_request` as words.
fn plain(action: &str) -> String {
    let (tool, name) = action.split_once('.').unwrap_or(("", action));
    format!("{} ({tool})", name.replace('_', " "))
}

fn instant(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

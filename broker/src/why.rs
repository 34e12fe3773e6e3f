//! `aegis why`: a receipt explained to the one who wonders.

use aegis_action::ToolCall;
use aegis_receipts::{Leaf, LeafBody, parse_receipt_id};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    Broker,
    identity::Identity,
    policy::{Explanation, Input},
};

/// An explained receipt.
#[derive(Debug, Clone, Serialize)]
pub struct Why {
    /// `rcp_…`
    pub receipt_id: String,
    /// The leaf as it is on record.
    pub leaf: Value,
    /// The action as mapped, secrets masked; absent where the payload was erased.
    pub action: Option<Value>,
    /// What the policies in force now say, and what would have to be true.
    pub explanation: Option<Explanation>,
    /// Whether the policies in force now are those of the decision.
    pub same_snapshot: bool,
    /// The outcome leaf, where there is one.
    pub outcome: Option<Value>,
    /// Whom to ask, and what to do next.
    pub next: Vec<String>,
}

impl Broker {
    /// Explains a receipt; for an agent only its own. `None` where there is none (to see).
    pub async fn why(&self, receipt_id: &str, asker: Option<&Identity>) -> Result<Option<Why>, String> {
        let Some((node, seq)) = parse_receipt_id(receipt_id) else { return Ok(None) };
        if node != self.log.node() {
            return Ok(None);
        }
        let Some(stored) = self.log.leaf(seq).map_err(|e| e.to_string())? else { return Ok(None) };
        let leaf = Leaf::parse(&stored.bytes).map_err(|e| e.to_string())?;
        let value: Value = serde_json::from_slice(&stored.bytes).map_err(|e| e.to_string())?;
        if let Some(agent) = asker
            && value.get("agent_id").and_then(Value::as_str) != Some(&agent.agent.agent_id)
        {
            return Ok(None);
        }
        let LeafBody::Intent(intent) = &leaf.body else {
            return Ok(Some(Why {
                receipt_id: receipt_id.to_owned(),
                next: refused_next(&value),
                leaf: value,
                action: None,
                explanation: None,
                same_snapshot: true,
                outcome: None,
            }));
        };
        let payload = self.log.payload(seq).map_err(|e| e.to_string())?;
        let action: Option<Value> = payload
            .and_then(|sealed| self.sealer.open(intent.decision_id.as_bytes(), &sealed))
            .and_then(|plain| serde_json::from_slice(&plain).ok());
        let snapshot = self.snapshot();
        let explanation = self.explain_again(intent.agent_id.as_deref(), intent, action.as_ref()).await;
        self.project().await.map_err(|e| e.to_string())?;
        let outcome = self.store.outcome_of(&intent.decision_id).await.map_err(|e| e.to_string())?.map(|p| p.leaf);
        Ok(Some(Why {
            receipt_id: receipt_id.to_owned(),
            same_snapshot: snapshot.hash == intent.snapshot,
            next: decided_next(intent, action.as_ref()),
            leaf: value,
            action: action.map(|mut a| {
                if let Value::Object(map) = &mut a {
                    map.remove("salt");
                }
                a
            }),
            explanation,
            outcome,
        }))
    }

    /// The decision made again without effect, under the policies in force now and with the facts that
    /// are known now. Facts are not fetched for an explanation.
    async fn explain_again(
        &self,
        agent_id: Option<&str>,
        intent: &aegis_receipts::Intent,
        action: Option<&Value>,
    ) -> Option<Explanation> {
        let agent = self.store.agent(agent_id?).await.ok()??;
        let principal = crate::identity::principal(&agent);
        let map = action?.as_object()?;
        let mut five = Map::new();
        for key in ["tool", "action", "resource", "mutates_state", "parameters"] {
            five.insert(key.into(), map.get(key)?.clone());
        }
        let tool_call: ToolCall = serde_json::from_value(Value::Object(five)).ok()?;
        let snapshot = self.snapshot();
        let scope = snapshot.by_name(&intent.route).or_else(|| snapshot.for_tool(&intent.tool))?.clone();
        let call = scope.connector.validate(tool_call).ok()?;
        let slice = snapshot.engine.slice(&principal, &call);
        let facts = Map::new();
        let groups: Vec<String> = Vec::new();
        Some(snapshot.engine.explain(
            &slice,
            &Input {
                principal: &principal,
                call: &call,
                trust: intent.source_trust,
                facts: &facts,
                now: self.env.clock.now(),
                route: &intent.route,
                identity: &intent.agent_binding,
                approval_groups: &groups,
                contains_sensitive_data: None,
                door: intent.door.as_str(),
            },
        ))
    }
}

fn decided_next(intent: &aegis_receipts::Intent, action: Option<&Value>) -> Vec<String> {
    let mut next = Vec::new();
    let what = format!("{}.{}", intent.tool, intent.action);
    match intent.decision {
        aegis_receipts::Decision::Allow => next.push("nothing: the call was allowed".into()),
        aegis_receipts::Decision::RequireApproval => {
            let id = intent.approval.as_ref().map_or("the approval", |a| a.id.as_str());
            next.push(format!("an approver runs `aegis approvals approve {id}`; then send the same request again"));
        }
        aegis_receipts::Decision::Deny => {
            let on = intent.resource.as_deref().map(|r| format!(" on `{r}`")).unwrap_or_default();
            next.push(format!(
                "ask an admin for a permit that covers `{what}`{on} (policies: {})",
                join(&intent.policies)
            ));
            next.push(format!("`aegis actions show {what}` shows its class, risk and parameters"));
        }
    }
    if action.is_none() {
        next.push("the action's parameters are erased or sealed elsewhere; only their commitment is left".into());
    }
    next
}

fn refused_next(leaf: &Value) -> Vec<String> {
    let reason = leaf.get("reason").and_then(Value::as_str).unwrap_or_default();
    let hint = match reason {
        "agent_frozen" => "an admin runs `aegis agent unfreeze`",
        "agent_revoked" => "revocation is final: register a new agent",
        "expired_token" => "rotate the agent's token",
        "unknown_token" | "no_credential" => "use the agent token that enrolment printed",
        _ => "correct the request; it was refused before there was an action to decide",
    };
    vec![hint.to_owned()]
}

fn join(ids: &[String]) -> String {
    if ids.is_empty() { "none applied".to_owned() } else { ids.join(", ") }
}

//! Fetching facts: each read has an intent, a lease and an outcome of its own.

use std::sync::Arc;

use aegis_action::{SourceTrust, sha256};
use aegis_connectors::{Call, FactRead};
use aegis_receipts::{OutcomeState, Transfer};
use http::StatusCode;
use serde_json::{Map, Value};

use crate::{
    Broker,
    admit::{ApprovalUse, Ask, Door, Judged},
    facts::{MAX_ANSWER, MAX_READS, next_read},
    permit::{Outcome, Permit},
    policy::{Decision, Evaluation, Reason},
    record::IntentContext,
};

impl Broker {
    /// Facts by name; `fresh` passes the cache by. An error names the fact that cannot be had.
    pub(crate) async fn learn(
        &self,
        ask: &Ask<'_>,
        call: &Call,
        wanted: &[String],
        fresh: bool,
    ) -> Result<Map<String, Value>, String> {
        let mut known = Map::new();
        if wanted.is_empty() {
            return Ok(known);
        }
        for _ in 0..MAX_READS {
            let Some(read) = next_read(ask.scope.connector.as_ref(), call, wanted, &known) else {
                return match wanted.iter().find(|fact| !known.contains_key(fact.as_str())) {
                    None => Ok(known),
                    Some(missing) => Err(format!("`{missing}` is unknown")),
                };
            };
            let answer = self.read_fact(ask, &read, fresh).await?;
            let before = known.len();
            ask.scope.connector.learn(&read, answer.0, &answer.1, &mut known);
            if known.len() == before {
                return Err(format!("`{}` answered {}", read.call.action.name(), answer.0.as_u16()));
            }
        }
        Err("too many reads for one decision".into())
    }

    async fn read_fact(&self, ask: &Ask<'_>, read: &FactRead, fresh: bool) -> Result<Arc<(StatusCode, Value)>, String> {
        let Some(route) = &ask.scope.route else { return Err("declared tools have no facts".into()) };
        if let Some(answer) = self.facts.get(route, read).filter(|_| !fresh) {
            return Ok(answer);
        }
        let permit = self.permit_read(ask, read)?;
        let (secrets, ticket) = self.lease(permit).await.map_err(|e| e.to_string())?;
        let fetched = self.upstream.fetch(route, read.upstream.clone(), &secrets, MAX_ANSWER).await;
        let ended = self.env.clock.now();
        match fetched {
            Ok((status, body)) => {
                let received = Some(Transfer { bytes: body.len() as u64, frames: None, sha256: Some(sha256(&body)) });
                let closed = Outcome::ended(OutcomeState::Completed, ended);
                ticket.close(Outcome { status: Some(status.as_u16()), received, ..closed });
                let value = if status.is_success() {
                    serde_json::from_slice(&body).unwrap_or(Value::Null)
                } else {
                    Value::Null
                };
                let answer = Arc::new((status, value));
                if status.is_success() {
                    self.facts.put(route, read, answer.clone());
                }
                Ok(answer)
            }
            Err(error) => {
                ticket.close(Outcome::ended(OutcomeState::Failed, ended));
                tracing::warn!(route = %route.name, %error, "fact read failed");
                Err("the upstream could not be read".into())
            }
        }
    }

    /// The gateway's own read: not asked of the policies (the agent sees nothing of the answer), but on record.
    fn permit_read(&self, ask: &Ask<'_>, read: &FactRead) -> Result<Permit, String> {
        if read.call.action.mutates_state() {
            return Err("a fact is never fetched by a write".into());
        }
        let calls = std::slice::from_ref(&read.call);
        let own = Ask {
            identity: ask.identity,
            snapshot: ask.snapshot,
            scope: ask.scope,
            calls,
            door: Door::Fact,
            declared_trust: None,
            contains_sensitive_data: None,
            trace: ask.trace,
            request_id: None,
            dry_run: false,
            approvals: ApprovalUse::None,
        };
        let evaluation = Evaluation {
            decision: Decision::Allow,
            policies: Vec::new(),
            reason: Reason::Fact,
            message: "read by the gateway for a decision".into(),
            errors: Vec::new(),
        };
        let judged = [Judged { evaluation: evaluation.clone(), facts: Map::new(), version: None }];
        let context = IntentContext {
            ask: &own,
            trust: SourceTrust::TrustedInternalUnsigned,
            overall: &evaluation,
            judged: &judged,
            lift: None,
            asked: None,
        };
        let (record, intents) = self.write_intents(&context).map_err(|e| e.to_string())?;
        Ok(Permit::new(self, &own, &record, intents, false, Vec::new()))
    }
}

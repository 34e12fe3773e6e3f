//! What lifts the gate of `@require_approval`: a person's yes to this very action, or a grant given in advance.

use std::collections::BTreeSet;

use aegis_action::{Digest, SourceTrust, Timestamp};
use aegis_receipts::ApprovalUse as ApprovalRef;

use crate::{
    Broker,
    admit::{AdmitError, ApprovalUse, Ask, Judged, waits},
    approvals::version_of,
    policy::{Decision, Evaluation},
    record::{ApprovalNote, hash_of},
    store::{ApprovalRecord, ApprovalStatus, GrantRecord},
};

/// People who agreed.
pub(crate) enum Lift {
    /// To exactly this request; used up with it.
    Approval(Box<ApprovalRecord>),
    /// In advance, to this action on this resource for some time; at least one.
    Grants(Vec<GrantRecord>),
}

impl Lift {
    /// As leaves name it.
    pub(crate) fn reference(&self) -> ApprovalRef {
        match self {
            Self::Approval(a) => ApprovalRef { id: a.approval_id.clone(), approvers: a.settled_by.clone() },
            Self::Grants(grants) => {
                let ids: Vec<&str> = grants.iter().map(|g| g.grant_id.as_str()).collect();
                let people: BTreeSet<String> = grants.iter().map(|g| g.person_id.clone()).collect();
                ApprovalRef { id: ids.join(","), approvers: people.into_iter().collect() }
            }
        }
    }

    /// As answers name it.
    pub(crate) fn note(&self, action_hash: Digest) -> ApprovalNote {
        match self {
            Self::Approval(record) => {
                ApprovalNote { status: ApprovalStatus::Consumed, ..ApprovalNote::from(&**record) }
            }
            Self::Grants(grants) => {
                let groups: BTreeSet<&str> = grants.iter().flat_map(|g| &g.groups).map(String::as_str).collect();
                ApprovalNote {
                    approval_id: self.reference().id,
                    status: ApprovalStatus::Approved,
                    approver_group: groups.into_iter().collect::<Vec<_>>().join(","),
                    expires_at: grants.iter().map(|g| g.expires_at).min().unwrap_or(Timestamp(0)),
                    action_hash,
                }
            }
        }
    }
}

impl Broker {
    /// What lifts all that waits, with the judgements under it; nothing is used up yet.
    pub(crate) async fn find_lift(
        &self,
        ask: &Ask<'_>,
        trust: SourceTrust,
        judged: &mut [Judged],
    ) -> Result<Option<Lift>, AdmitError> {
        if let Some(grants) = self.find_grants(ask, trust, judged).await? {
            return Ok(Some(Lift::Grants(grants)));
        }
        Ok(self.find_approval(ask, trust, judged).await?.map(|record| Lift::Approval(Box::new(record))))
    }

    /// Whether the one approval that may be used cannot be used any more: then nobody is asked again.
    pub(crate) async fn is_over(&self, approvals: ApprovalUse<'_>) -> Result<bool, AdmitError> {
        let ApprovalUse::Only(id) = approvals else { return Ok(false) };
        let record = self.store.approval(id, self.env.clock.now()).await?;
        Ok(record.is_none_or(|r| r.status != ApprovalStatus::Approved))
    }

    /// Grants for everything that waits. A gate that wants several people of a group is not lifted by one.
    async fn find_grants(
        &self,
        ask: &Ask<'_>,
        trust: SourceTrust,
        judged: &mut [Judged],
    ) -> Result<Option<Vec<GrantRecord>>, AdmitError> {
        if matches!(ask.approvals, ApprovalUse::Only(_)) {
            return Ok(None);
        }
        let agent = &ask.identity.agent.agent_id;
        let now = self.env.clock.now();
        let mut used: Vec<GrantRecord> = Vec::new();
        let mut lifted: Vec<(usize, Evaluation)> = Vec::new();
        for (at, (call, judgement)) in ask.calls.iter().zip(judged.iter()).enumerate() {
            let Decision::RequireApproval { groups: wanted, quorum } = &judgement.evaluation.decision else { continue };
            let (action, resource) = (call.action.qualified_name(), call.action.resource());
            let mut live = self.store.live_grants(agent, &action, resource, now).await?;
            live.retain(|g| g.groups.iter().any(|group| wanted.contains(group)));
            let spoken: BTreeSet<&String> = live.iter().flat_map(|g| &g.groups).collect();
            if *quorum > 1 || !wanted.iter().all(|group| spoken.contains(group)) {
                return Ok(None);
            }
            let slice = ask.snapshot.engine.slice(&ask.identity.principal, call);
            let groups: Vec<String> = wanted.to_vec();
            let evaluation = self.evaluate(ask, call, &slice, trust, &judgement.facts, &groups);
            if evaluation.decision != Decision::Allow {
                return Ok(None);
            }
            lifted.push((at, evaluation));
            used.extend(live);
        }
        for (at, evaluation) in lifted {
            if let Some(judgement) = judged.get_mut(at) {
                judgement.evaluation = evaluation;
            }
        }
        Ok((!used.is_empty()).then_some(used))
    }

    /// An approved, unexpired approval of this very request and version.
    async fn find_approval(
        &self,
        ask: &Ask<'_>,
        trust: SourceTrust,
        judged: &mut [Judged],
    ) -> Result<Option<ApprovalRecord>, AdmitError> {
        if ask.approvals == ApprovalUse::None || !judged.iter().any(waits) {
            return Ok(None);
        }
        let agent = &ask.identity.agent.agent_id;
        let now = self.env.clock.now();
        let granted = self.store.granted_approvals(agent, ask.scope.label(), &hash_of(ask.calls), now).await?;
        let version = version_of(judged);
        for record in granted {
            if matches!(ask.approvals, ApprovalUse::Only(id) if id != record.approval_id) || record.version != version {
                continue;
            }
            let lifted: Vec<_> = ask
                .calls
                .iter()
                .zip(judged.iter())
                .map(|(call, j)| {
                    let slice = ask.snapshot.engine.slice(&ask.identity.principal, call);
                    self.evaluate(ask, call, &slice, trust, &j.facts, &record.groups)
                })
                .collect();
            if lifted.iter().all(|e| e.decision == Decision::Allow) {
                for (judgement, evaluation) in judged.iter_mut().zip(lifted) {
                    judgement.evaluation = evaluation;
                }
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

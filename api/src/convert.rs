//! From what the broker knows to what the API says of it.

use aegis_action::Timestamp;
use aegis_broker::{
    admin_ops::CredentialStatus,
    agents::Enrolled,
    config::{Problem as ConfigProblem, Severity},
    record::{ApprovalNote, DecisionRecord, ReceiptRef},
    sessions::Session,
    store::{AgentRecord, ApprovalRecord, GrantRecord, PersonRecord, ProjectedLeaf},
};
use aegis_connectors::Entry;
use aegis_receipts::{StoredLeaf, receipt_id};
use jiff::fmt::temporal::DateTimePrinter;

use crate::answers::{
    Action, Agent, Approval, ApprovalSummary, Approver, ConfigFinding, Credential, Decision, Grant, IssuedSession,
    IssuedToken, Receipt, RecordedDecision, RecordedLeaf, RiskAnswer,
};

/// RFC 3339, UTC, milliseconds.
pub(crate) fn instant(at: Timestamp) -> String {
    let bound = if at.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or(bound);
    DateTimePrinter::new().precision(Some(3)).timestamp_to_string(&at)
}

impl From<DecisionRecord> for Decision {
    fn from(r: DecisionRecord) -> Self {
        Self {
            decision_id: r.decision_id,
            decision: r.decision,
            reason: r.reason,
            message: r.message,
            action_hash: r.action_hash.to_hex(),
            canon_version: r.canon_version,
            matched_policies: r.matched_policies,
            risk: RiskAnswer { level: r.risk.level, class: r.risk.class },
            effective_trust: r.effective_trust,
            approval: r.approval.map(ApprovalSummary::from),
            receipt: r.receipt.into(),
            dry_run: r.dry_run,
        }
    }
}

impl From<ApprovalNote> for ApprovalSummary {
    fn from(n: ApprovalNote) -> Self {
        Self {
            approval_id: n.approval_id,
            status: n.status,
            approver_group: n.approver_group,
            expires_at: instant(n.expires_at),
            action_hash: n.action_hash.to_hex(),
        }
    }
}

impl From<ReceiptRef> for Receipt {
    fn from(r: ReceiptRef) -> Self {
        Self {
            receipt_id: r.receipt_id,
            receipt_hash: r.receipt_hash.to_hex(),
            prev_receipt_hash: r.prev_receipt_hash.to_hex(),
        }
    }
}

impl From<Enrolled> for IssuedToken {
    fn from(e: Enrolled) -> Self {
        Self {
            agent_id: e.agent.agent_id,
            agent_token: String::from_utf8_lossy(e.token.expose()).into_owned(),
            expires_at: instant(e.expires_at),
        }
    }
}

impl From<Session> for IssuedSession {
    fn from(s: Session) -> Self {
        Self {
            session_id: s.session_id,
            agent_id: s.agent_id,
            agent_token: String::from_utf8_lossy(s.token.expose()).into_owned(),
            expires_at: instant(s.expires_at),
        }
    }
}

impl From<AgentRecord> for Agent {
    fn from(a: AgentRecord) -> Self {
        Self {
            agent_id: a.agent_id,
            agent_key: a.agent_key,
            tenant: a.tenant,
            name: a.name,
            owner_team: a.owner_team,
            owner_email: a.owner_email,
            environment: a.environment,
            risk_tier: a.risk_tier,
            framework: a.framework,
            purpose: a.purpose,
            model_provider: a.model_provider,
            model_name: a.model_name,
            bind_cidr: a.bind_cidr,
            state: a.state,
            created_at: instant(a.created_at),
            version: a.version,
        }
    }
}

impl From<PersonRecord> for Approver {
    fn from(p: PersonRecord) -> Self {
        Self {
            person_id: p.person_id,
            name: p.name,
            email: p.email,
            slack_user: p.slack_user,
            groups: p.groups,
            created_at: instant(p.created_at),
            expires_at: p.expires_at.map(instant),
            revoked: p.revoked,
        }
    }
}

impl Grant {
    pub(crate) fn at(g: GrantRecord, now: Timestamp) -> Self {
        Self {
            holds: g.revoked_at.is_none() && g.expires_at > now,
            grant_id: g.grant_id,
            agent_id: g.agent_id,
            action: g.action,
            resource: g.resource,
            groups: g.groups,
            person_id: g.person_id,
            reason: g.reason,
            created_at: instant(g.created_at),
            expires_at: instant(g.expires_at),
            revoked_at: g.revoked_at.map(instant),
        }
    }
}

impl From<ApprovalRecord> for Approval {
    fn from(a: ApprovalRecord) -> Self {
        Self {
            approval_id: a.approval_id,
            tenant: a.tenant,
            agent_id: a.agent_id,
            route: a.route,
            action_hash: a.action_hash.to_hex(),
            version: a.version,
            groups: a.groups,
            quorum: a.quorum,
            status: a.status,
            action: a.action,
            resource: a.resource,
            risk: a.risk,
            source_trust: a.source_trust,
            policies: a.policies,
            snapshot: a.snapshot.to_hex(),
            created_at: instant(a.created_at),
            expires_at: instant(a.expires_at),
            settled_at: a.settled_at.map(instant),
            settled_by: a.settled_by,
            payload: None,
        }
    }
}

impl From<ProjectedLeaf> for RecordedDecision {
    fn from(p: ProjectedLeaf) -> Self {
        Self {
            receipt_id: receipt_id(&p.node, p.seq),
            seq: p.seq,
            receipt_hash: p.receipt_hash.to_hex(),
            at: instant(p.at),
            decision_id: p.decision_id,
            agent_id: p.agent_id,
            action: p.action,
            resource: p.resource,
            decision: p.decision,
            leaf: p.leaf,
        }
    }
}

impl RecordedLeaf {
    pub(crate) fn new(node: &str, stored: StoredLeaf) -> Self {
        let leaf_text = String::from_utf8_lossy(&stored.bytes).into_owned();
        Self {
            receipt_id: receipt_id(node, stored.seq),
            seq: stored.seq,
            receipt_hash: stored.hash.to_hex(),
            leaf: serde_json::from_str(&leaf_text).unwrap_or_default(),
            leaf_text,
        }
    }
}

impl From<&Entry> for Action {
    fn from(e: &Entry) -> Self {
        Self {
            name: format!("{}.{}", e.tool, e.name),
            tool: e.tool.to_string(),
            summary: e.summary.clone(),
            operation: e.operation.clone(),
            wire: e.wire.clone(),
            class: e.class,
            risk: e.risk,
            mutates_state: e.mutates_state,
            resource: e.resource.clone(),
            parameters: e.parameters.clone(),
            facts: e.facts.clone(),
            aliases: e.argument_aliases().into_iter().map(|(alias, name)| (alias.into(), name.into())).collect(),
        }
    }
}

impl From<CredentialStatus> for Credential {
    fn from(c: CredentialStatus) -> Self {
        Self {
            name: c.name,
            vault: c.vault,
            key: c.key,
            kind: c.kind.map(str::to_owned),
            routes: c.routes,
            webhooks: c.webhooks,
            stored: c.version.is_some(),
            version: c.version,
            updated_at: c.updated_at.map(instant),
            problem: c.problem,
        }
    }
}

impl From<ConfigProblem> for ConfigFinding {
    fn from(p: ConfigProblem) -> Self {
        let severity = match p.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        Self { file: p.file, line: p.line, message: p.message, severity: severity.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_rfc_3339_with_milliseconds() {
        assert_eq!(instant(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(instant(Timestamp(1_767_225_600_001)), "2026-01-01T00:00:00.001Z");
        assert!(instant(Timestamp(i64::MAX)).starts_with("9999-12-30T"));
    }
}

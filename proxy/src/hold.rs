//! Requests that wait for people while their connection is kept.

use std::time::Duration;

use aegis_broker::{
    Broker,
    record::{DecisionRecord, DecisionWord},
    store::ApprovalStatus,
};
use pingora_proxy::Session;

/// Whether people said yes while the client waited. `false` as soon as they said no, the time is over, or the
/// client went away; the question stays open, and the same request sent again later goes by its answer.
pub(crate) async fn granted(broker: &Broker, session: &mut Session, record: &DecisionRecord, hold: Duration) -> bool {
    if record.decision != DecisionWord::RequireApproval || hold.is_zero() {
        return false;
    }
    let Some(approval) = &record.approval else { return false };
    let settled = broker.settlement(&approval.approval_id, hold);
    // A client that has more of its body to send cannot be watched: reading would take what the upstream gets.
    if !session.as_mut().is_body_done() {
        return settled.await == Some(ApprovalStatus::Approved);
    }
    tokio::select! {
        biased;
        status = settled => status == Some(ApprovalStatus::Approved),
        _ = session.as_mut().read_body_or_idle(true) => false,
    }
}

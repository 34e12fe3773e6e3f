//! Requests that wait for people while their connection is kept.

use std::time::Duration;

use aegis_broker::{
    Broker,
    record::{DecisionRecord, DecisionWord},
    store::ApprovalStatus,
};
use pingora_proxy::Session;
use tokio::time::sleep;

use crate::conn::ConnState;

/// Whether people said yes while the client waited. `false` as soon as they said no, the time is over, the
/// client went away, or this process stops serving; the question stays open, and the same request sent again later
/// goes by its answer.
pub(crate) async fn granted(
    broker: &Broker,
    session: &mut Session,
    record: &DecisionRecord,
    hold: Duration,
    conn: &ConnState,
) -> bool {
    if record.decision != DecisionWord::RequireApproval || hold.is_zero() {
        return false;
    }
    let Some(approval) = &record.approval else { return false };
    let settled = broker.settlement(&approval.approval_id, hold);
    // A client that has more of its body to send cannot be watched: reading would take what the upstream gets.
    let watched = session.as_mut().is_body_done();
    tokio::select! {
        biased;
        status = settled => status == Some(ApprovalStatus::Approved),
        _ = session.as_mut().read_body_or_idle(true), if watched => false,
        () = left(conn) => false,
    }
}

/// Returns once a stop or a successor waits for what is being decided.
async fn left(conn: &ConnState) {
    while !conn.stops() {
        sleep(LOOK).await;
    }
}

const LOOK: Duration = Duration::from_millis(200);

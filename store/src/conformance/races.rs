//! Of any number of racing calls exactly one succeeds.

use std::sync::Arc;

use aegis_broker::store::AgentState::{Active, Frozen};
use aegis_broker::store::{ApprovalRecord, ApprovalStatus, IdempotencyClaim, Store};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::*;

const RACERS: usize = 64;

/// Runs 64 calls from one barrier, half of them on each handle.
async fn race<T: Send + 'static, F: Future<Output = T> + Send>(
    made: &Made,
    call: impl Fn(usize, Arc<dyn Store>) -> F + Clone + Send + Sync + 'static,
) -> Vec<T> {
    let barrier = Arc::new(Barrier::new(RACERS));
    let mut racers = JoinSet::new();
    for n in 0..RACERS {
        let store = if n % 2 == 0 { made.one.clone() } else { made.two.clone() };
        let (barrier, call) = (barrier.clone(), call.clone());
        racers.spawn(async move {
            barrier.wait().await;
            call(n, store).await
        });
    }
    racers.join_all().await
}

pub async fn of_64_racing_consumptions_one_succeeds(made: &Made) {
    with_approved(&*made.one).await;
    let before = waiting(&*made.one).await.len();
    let won = race(made, |n, store| async move {
        let event = event(&format!("consume {n}"));
        store.consume_approval("q1", "a1", &hash("the action"), NOW, &event).await.unwrap()
    })
    .await;
    assert_eq!(won.into_iter().filter(|w| *w).count(), 1);
    assert_eq!(waiting(&*made.two).await.len(), before + 1);
}

pub async fn of_64_racing_transitions_one_succeeds(made: &Made) {
    with_agent(&*made.one, "a1").await;
    let answers = race(made, |n, store| async move {
        store.transition_agent("a1", &[Active], Frozen, &event(&format!("freeze {n}"))).await
    })
    .await;
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1);
    for lost in answers.into_iter().filter(Result::is_err) {
        conflict(lost, "`frozen`");
    }
    assert_eq!(made.two.agent("a1").await.unwrap().unwrap().version, 2);
    assert_eq!(waiting(&*made.two).await.len(), 2);
}

pub async fn of_64_racing_ends_of_a_session_one_succeeds(made: &Made) {
    with_agent(&*made.one, "a1").await;
    made.one.start_session(&session("a1", "run_1"), &event("start")).await.unwrap();
    let ended = race(made, |n, store| async move {
        store.end_session("a1", "run_1", later(1), &event(&format!("end {n}"))).await.unwrap()
    })
    .await;
    assert_eq!(ended.into_iter().filter(|e| *e).count(), 1);
    assert_eq!(waiting(&*made.two).await.len(), 3);
}

pub async fn of_64_racing_questions_one_is_asked(made: &Made) {
    with_agent(&*made.one, "a1").await;
    let ids = race(made, |n, store| async move {
        let event = event(&format!("ask {n}"));
        store.ask_approval(&approval(&format!("q{n}"), "a1"), NOW, MANY, &event).await.unwrap().approval_id
    })
    .await;
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(made.two.approvals(None, None, 100, NOW).await.unwrap().len(), 1);
    assert_eq!(waiting(&*made.two).await.len(), 2);
}

pub async fn of_64_racing_claims_one_is_fresh(made: &Made) {
    with_agent(&*made.one, "a1").await;
    let claims = race(made, |n, store| async move {
        let body = hash(&format!("body {}", n % 4));
        store.idempotency_claim("a1", "k", &body, NOW, later(60)).await.unwrap()
    })
    .await;
    let count = |c: IdempotencyClaim| claims.iter().filter(|x| **x == c).count();
    assert_eq!(count(IdempotencyClaim::Fresh), 1);
    assert_eq!(count(IdempotencyClaim::InFlight), RACERS / 4 - 1);
    assert_eq!(count(IdempotencyClaim::Mismatch), RACERS / 4 * 3);
}

pub async fn racing_votes_of_a_quorum_approve_once(made: &Made) {
    with_agent(&*made.one, "a1").await;
    for n in 0..RACERS {
        with_people(&*made.one, &[&format!("p{n}")]).await;
    }
    let asked = ApprovalRecord { quorum: 5, ..approval("q1", "a1") };
    made.one.ask_approval(&asked, NOW, MANY, &event("ask")).await.unwrap();
    let answers = race(made, |n, store| async move {
        store.settle_approval("q1", &format!("p{n}"), true, None, NOW, &event(&format!("yes {n}"))).await
    })
    .await;
    let (counted, late): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(counted.len(), 5);
    let approvals = counted.into_iter().filter(|a| a.as_ref().unwrap().status == ApprovalStatus::Approved).count();
    assert_eq!(approvals, 1);
    for lost in late {
        conflict(lost, "`approved`");
    }
    assert_eq!(made.two.approval("q1", NOW).await.unwrap().unwrap().settled_by.len(), 5);
}

pub async fn one_persons_racing_votes_count_once(made: &Made) {
    with_agent(&*made.one, "a1").await;
    with_people(&*made.one, &["p1"]).await;
    let asked = ApprovalRecord { quorum: 2, ..approval("q1", "a1") };
    made.one.ask_approval(&asked, NOW, MANY, &event("ask")).await.unwrap();
    let answers = race(made, |n, store| async move {
        store.settle_approval("q1", "p1", true, None, NOW, &event(&format!("yes {n}"))).await
    })
    .await;
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1);
    let read = made.two.approval("q1", NOW).await.unwrap().unwrap();
    assert_eq!((read.status, &read.settled_by[..]), (ApprovalStatus::Pending, &["p1".to_owned()][..]));
}

pub async fn health_holds_while_others_write(made: &Made) {
    let answers = race(made, |n, store| async move {
        match n % 4 {
            0 => store.health().await,
            _ => store.insert_person(&person(&format!("p{n}")), &event(&format!("e{n}"))).await,
        }
    })
    .await;
    answers.into_iter().for_each(|a| a.unwrap());
    assert_eq!(made.two.people().await.unwrap().len(), RACERS / 4 * 3);
}

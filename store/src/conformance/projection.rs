//! The projection of the receipt log.

use aegis_broker::store::{DecisionFilter, ProjectedLeaf};
use serde_json::json;

use super::*;

fn all() -> DecisionFilter {
    DecisionFilter { limit: 100, ..DecisionFilter::default() }
}

async fn seqs(made: &Made, filter: DecisionFilter) -> Vec<u64> {
    made.two.decisions(&filter).await.unwrap().into_iter().map(|leaf| leaf.seq).collect()
}

pub async fn a_replay_changes_nothing(made: &Made) {
    let rows: Vec<_> = (0..10).map(|seq| intent("n1", seq)).collect();
    made.one.project(&rows).await.unwrap();
    let before = made.two.decisions(&all()).await.unwrap();
    assert_eq!(before, rows.iter().rev().cloned().collect::<Vec<_>>());
    let forged: Vec<_> = rows.iter().map(|r| ProjectedLeaf { decision: Some("deny".into()), ..r.clone() }).collect();
    made.two.project(&forged).await.unwrap();
    made.two.project(&[]).await.unwrap();
    assert_eq!(made.two.decisions(&all()).await.unwrap(), before);
    assert_eq!(made.two.projected_through("n1").await.unwrap(), 10);
}

pub async fn progress_stops_at_the_first_gap(made: &Made) {
    let through = async |node: &str| made.two.projected_through(node).await.unwrap();
    assert_eq!(through("n1").await, 0);
    made.one.project(&[intent("n1", 0), intent("n1", 1), intent("n2", 0), intent("n1", 4)]).await.unwrap();
    assert_eq!((through("n1").await, through("n2").await, through("n3").await), (2, 1, 0));
    made.one.project(&[intent("n1", 3)]).await.unwrap();
    assert_eq!(through("n1").await, 2);
    made.one.project(&[intent("n1", 2)]).await.unwrap();
    assert_eq!(through("n1").await, 5);
}

pub async fn decisions_are_filtered_and_paged_newest_first(made: &Made) {
    let mut rows: Vec<_> = (0..6).map(|seq| intent("n1", seq)).collect();
    rows[1].agent_id = Some("a2".into());
    rows[2].decision = Some("deny".into());
    rows[3].action = Some("github.delete_repo".into());
    rows[4].kind = "event.v1".into();
    rows[5].kind = "intent".into();
    made.one.project(&rows).await.unwrap();
    assert_eq!(seqs(made, all()).await, [5, 3, 2, 1, 0]);
    assert_eq!(seqs(made, DecisionFilter { agent_id: Some("a2".into()), ..all() }).await, [1]);
    assert_eq!(seqs(made, DecisionFilter { decision: Some("deny".into()), ..all() }).await, [2]);
    assert_eq!(seqs(made, DecisionFilter { action: Some("github.delete_repo".into()), ..all() }).await, [3]);
    assert_eq!(seqs(made, DecisionFilter { limit: 2, ..all() }).await, [5, 3]);
    assert_eq!(seqs(made, DecisionFilter { limit: 2, before_seq: Some(3), ..all() }).await, [2, 1]);
    assert_eq!(seqs(made, DecisionFilter { before_seq: Some(0), ..all() }).await, Vec::<u64>::new());
    assert_eq!(seqs(made, DecisionFilter { before_seq: Some(u64::MAX), ..all() }).await.len(), 5);
    let none = DecisionFilter { decision: Some("deny".into()), agent_id: Some("a2".into()), ..all() };
    assert_eq!(seqs(made, none).await, Vec::<u64>::new());
}

pub async fn an_outcome_is_found_alone_or_merged_with_others(made: &Made) {
    let alone = ProjectedLeaf { kind: "outcome.v1".into(), decision_id: Some("d1".into()), ..intent("n1", 2) };
    let merged = ProjectedLeaf {
        kind: "outcomes.v1".into(),
        decision_id: None,
        leaf: json!({"entries": [{"decision_id": "d2"}, {"decision_id": "d3"}, {"other": 1}]}),
        ..intent("n1", 3)
    };
    let asked = ProjectedLeaf { decision_id: Some("d4".into()), ..intent("n1", 0) };
    made.one.project(&[asked, alone.clone(), merged.clone()]).await.unwrap();
    assert_eq!(made.two.outcome_of("d1").await.unwrap(), Some(alone));
    assert_eq!(made.two.outcome_of("d2").await.unwrap().as_ref(), Some(&merged));
    assert_eq!(made.two.outcome_of("d3").await.unwrap(), Some(merged));
    assert_eq!(made.two.outcome_of("d4").await.unwrap(), None, "an intent is no outcome");
}

pub async fn a_cleared_projection_replays(made: &Made) {
    let outcome = ProjectedLeaf { kind: "outcome".into(), decision_id: Some("d1".into()), ..intent("n1", 1) };
    let rows = [intent("n1", 0), outcome, intent("n2", 0)];
    made.one.project(&rows).await.unwrap();
    made.one.clear_projection("n1").await.unwrap();
    assert_eq!(made.two.projected_through("n1").await.unwrap(), 0);
    assert_eq!(made.two.outcome_of("d1").await.unwrap(), None);
    assert_eq!(made.two.decisions(&all()).await.unwrap(), [intent("n2", 0)], "another node's rows stay");
    made.two.project(&rows).await.unwrap();
    assert_eq!(made.one.projected_through("n1").await.unwrap(), 2);
    assert!(made.one.outcome_of("d1").await.unwrap().is_some());
}

pub async fn a_number_that_sql_cannot_hold_is_refused_whole(made: &Made) {
    conflict(made.one.project(&[intent("n1", 0), ProjectedLeaf { seq: u64::MAX, ..intent("n1", 1) }]).await, "seq");
    assert_eq!(made.two.projected_through("n1").await.unwrap(), 0);
    assert_eq!(seqs(made, all()).await, Vec::<u64>::new());
}

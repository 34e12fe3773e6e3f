//! The log as rows: replayed on demand and when the log is quiet, never on the request path.

use aegis_receipts::StoredLeaf;
use serde_json::Value;

use crate::{
    Broker,
    store::{ProjectedLeaf, StoreError},
};

impl Broker {
    /// Brings the projection up to the log's head as of now.
    pub async fn project(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.projecting.lock().await;
        let node = self.log.node().to_owned();
        let head = self.log.head().next_seq;
        let mut from = self.store.projected_through(&node).await?;
        while from < head {
            let log = self.log.clone();
            let leaves = tokio::task::spawn_blocking(move || log.read(from, BATCH))
                .await
                .map_err(|e| StoreError::Unavailable(e.to_string()))?
                .map_err(|e| StoreError::Unavailable(e.to_string()))?;
            let Some(last) = leaves.last() else { break };
            let next = last.seq + 1;
            let rows: Vec<ProjectedLeaf> = leaves.iter().map(|stored| row(&node, stored)).collect();
            self.store.project(&rows).await?;
            from = next;
        }
        Ok(())
    }
}

/// One row a leaf; a leaf that cannot be read is a row that says so, as a gap would hide it.
fn row(node: &str, stored: &StoredLeaf) -> ProjectedLeaf {
    let value: Value = serde_json::from_slice(&stored.bytes).unwrap_or(Value::Null);
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    ProjectedLeaf {
        node: node.to_owned(),
        seq: stored.seq,
        receipt_hash: stored.hash,
        kind: text("type").unwrap_or_else(|| "unreadable".into()),
        at: aegis_action::Timestamp(value.get("ts").and_then(Value::as_i64).unwrap_or_default()),
        decision_id: text("decision_id"),
        agent_id: text("agent_id"),
        action: text("tool").zip(text("action")).map(|(tool, action)| format!("{tool}.{action}")),
        resource: text("resource"),
        decision: text("decision"),
        leaf: value,
    }
}

const BATCH: usize = 1024;

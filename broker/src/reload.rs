//! Hot reload: one validated snapshot at a time, in force once its leaf is durable.

use std::sync::Arc;

use aegis_receipts::{Event, LeafBody};
use serde_json::{Map, json};

use crate::{
    Broker,
    admit::AdmitError,
    config::Problem,
    snapshot::{Snapshot, Sources},
};

/// What a reload did.
#[derive(Debug)]
pub enum Reload {
    /// The new configuration is in force.
    Swapped(Vec<Problem>),
    /// Nothing had changed.
    Unchanged,
    /// The new configuration is not usable; the old one stays.
    Kept(Vec<Problem>),
}

impl Broker {
    /// Validates and swaps. Requests in flight finish with the configuration they started with.
    pub async fn reload(&self, sources: &Sources) -> Result<Reload, AdmitError> {
        let _one_at_a_time = self.swapping.lock().await;
        if self.snapshot().sources == *sources {
            return Ok(Reload::Unchanged);
        }
        // Loading thousands of policies takes seconds, which requests must not wait for.
        let (theirs, grammars) = (sources.clone(), self.grammars.clone());
        let built = tokio::task::spawn_blocking(move || Snapshot::build(&theirs, &grammars)).await;
        let result = match built.map_err(|e| AdmitError::Unrecorded(e.to_string()))? {
            Err(problems) => Reload::Kept(problems),
            Ok((snapshot, _)) if snapshot.hash == self.snapshot().hash => Reload::Unchanged,
            Ok((snapshot, warnings)) => {
                let snapshot = Arc::new(snapshot);
                self.record_snapshot(&snapshot).await?;
                self.snapshot.store(snapshot);
                // A declaration that is gone leaves no value behind; the others are leased anew.
                self.credentials.write().clear();
                Reload::Swapped(warnings)
            }
        };
        let label = match result {
            Reload::Swapped(_) => "swapped",
            Reload::Unchanged => "unchanged",
            Reload::Kept(_) => "kept",
        };
        self.metrics.reloads.with_label_values(&[label]).inc();
        Ok(result)
    }

    /// Writes the leaf of a configuration, durable on return.
    pub(crate) async fn record_snapshot(&self, snapshot: &Snapshot) -> Result<(), AdmitError> {
        let unrecorded = |e: &dyn std::fmt::Display| AdmitError::Unrecorded(e.to_string());
        let mut body = Map::new();
        body.insert("snapshot".into(), json!(snapshot.hash));
        body.insert("routes".into(), json!(snapshot.config.routes.iter().map(|r| &r.name).collect::<Vec<_>>()));
        body.insert("policies".into(), json!(snapshot.engine.len()));
        body.insert("tenant".into(), json!(self.tenant));
        let event = Event {
            at: self.env.clock.now(),
            body,
            event_id: self.env.id("evt_").map_err(|e| unrecorded(&e))?,
            kind: "snapshot_loaded".into(),
        };
        let appended = self.log.append(vec![LeafBody::Event(event)]).map_err(|e| unrecorded(&e))?;
        match appended.last() {
            Some(last) => self.log.durable(last.seq).await.map_err(|e| unrecorded(&e)),
            None => Ok(()),
        }
    }
}

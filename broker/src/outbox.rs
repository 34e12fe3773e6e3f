//! Transitions become leaves: at least once, in order, each with its event id.

use aegis_receipts::{Event, LeafBody};

use crate::{Broker, admit::AdmitError};

impl Broker {
    /// Writes the leaves of all stored transitions and waits until they are durable.
    ///
    /// A crash before `outbox_done` writes a leaf again at the next start; readers tell by `event_id`.
    pub async fn drain_outbox(&self) -> Result<(), AdmitError> {
        let _one_at_a_time = self.draining.lock().await;
        loop {
            let events = self.store.outbox(256).await?;
            if events.is_empty() {
                return Ok(());
            }
            let leaves = events
                .iter()
                .map(|e| {
                    let mut body = e.body.as_object().cloned().unwrap_or_default();
                    body.insert("tenant".into(), self.tenant.clone().into());
                    LeafBody::Event(Event { at: e.at, body, event_id: e.event_id.clone(), kind: e.kind.clone() })
                })
                .collect();
            let appended = self.log.append(leaves).map_err(|e| AdmitError::Unrecorded(e.to_string()))?;
            if let Some(last) = appended.last() {
                self.log.durable(last.seq).await.map_err(|e| AdmitError::Unrecorded(e.to_string()))?;
            }
            let ids: Vec<String> = events.into_iter().map(|e| e.event_id).collect();
            self.store.outbox_done(&ids).await?;
        }
    }
}

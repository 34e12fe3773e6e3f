//! A new root: published beside the old one first, so that clients can install it before anything
//! depends on it, and signing once the overlap is over.

use std::{sync::Arc, time::Duration};

use aegis_action::Timestamp;
use serde_json::json;
use tokio::sync::MutexGuard;

use super::{
    Authority, CaError, CaStatus, Issuing, files,
    files::NEXT,
    published,
    root::{Next, Root, Roots},
};

impl Authority {
    /// Makes a root that takes over after `overlap`; until then the present one signs and both are published.
    pub async fn rotate(&self, overlap: Duration) -> Result<CaStatus, CaError> {
        let mut roots = self.roots.lock().await;
        let now = self.now();
        let known = roots.as_mut().ok_or(CaError::NotOurs)?;
        if known.next.is_some() {
            return Err(CaError::Rotating);
        }
        let from = now.plus_seconds(i64::try_from(overlap.as_secs()).unwrap_or(i64::MAX));
        let root = Root::generate(now)?;
        let body = json!({"root": root.fingerprint(), "expires_at": root.not_after().0, "signs_from": from.0});
        self.maker().record("ca_rotation_started", body).await?;
        root.seal_next(&self.folder, self.options.sealer.as_ref(), from)?;
        known.next = Some(Next { certificate: root.certificate(), from });
        self.publish(&roots)?;
        drop(roots);
        // What is due is counted anew.
        self.expire();
        self.cover(&self.broker.snapshot()).await?;
        self.status().await
    }

    /// Ends the overlap now: the new root signs, and the old one is published no more.
    pub async fn finish_rotation(&self) -> Result<CaStatus, CaError> {
        let mut roots = self.roots.lock().await;
        match roots.as_ref() {
            None => return Err(CaError::NotOurs),
            Some(Roots { next: None, .. }) => return Err(CaError::NotRotating),
            Some(Roots { next: Some(_), .. }) => {}
        }
        self.switch(&mut roots, self.now()).await?;
        drop(roots);
        self.expire();
        self.cover(&self.broker.snapshot()).await?;
        self.status().await
    }

    /// The new root takes over. The file of the active root is the moment: a crash before it leaves the
    /// rotation open, one after it leaves a second copy that the next start removes.
    pub(super) async fn switch(
        &self,
        roots: &mut MutexGuard<'_, Option<Roots>>,
        now: Timestamp,
    ) -> Result<(), CaError> {
        let sealer = self.options.sealer.as_ref();
        let root = Root::unseal_next(&self.folder, sealer)?.ok_or(CaError::NotRotating)?;
        let body = json!({"root": root.fingerprint(), "at": now.0});
        self.maker().record("ca_rotation_finished", body).await?;
        root.seal(&self.folder, sealer)?;
        self.folder.remove(NEXT)?;
        **roots = Some(Roots { active: root.certificate(), next: None });
        self.publish(roots)
    }

    fn publish(&self, roots: &Option<Roots>) -> Result<(), CaError> {
        let bundle = files::pem(&published(roots.as_ref(), &self.current.load().intermediate));
        self.folder.publish(&bundle)?;
        self.bundle.store(Arc::new(bundle));
        Ok(())
    }

    /// The next look finds something to do.
    fn expire(&self) {
        let current = self.current.load();
        self.current.store(Arc::new(Issuing { due: Timestamp(0), ..Issuing::clone(&current) }));
    }
}

//! Telling webhooks what happened: one task each, which follows the receipt log.
//!
//! The leaves are the queue. The cursor moves only after the receiver took the event, so whatever ends this
//! process, nothing is lost; what was delivered and not yet noted is delivered again, under the same id.

mod send;

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use aegis_api::SlackReply;
use aegis_broker::{Broker, config::Webhook};
use aegis_receipts::{Event, Leaf, LeafBody, receipt_id};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::reload::stopped;
use send::Sender;

/// Answers clicks in Slack, without waiting for it.
pub fn slack_reply() -> SlackReply {
    let sender = Arc::new(Sender::new());
    Arc::new(move |address, told| {
        let request = http::Request::post(address).header("content-type", "application/json");
        let Ok(request) = request.body(told.to_string().into_bytes()) else { return };
        let sender = sender.clone();
        tokio::spawn(async move {
            let sent = sender.send(request).await;
            if !sent.is_taken() {
                tracing::warn!("Slack did not take the answer to a click: {sent}");
            }
        });
    })
}

/// Keeps one task for each webhook of the configuration in force, until a stop is asked for.
pub async fn run(broker: Arc<Broker>, mut stopping: watch::Receiver<bool>) {
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    let mut seen = None;
    loop {
        let snapshot = broker.snapshot();
        if seen != Some(snapshot.hash) {
            match reconcile(&broker, &snapshot.config.webhooks, &mut running).await {
                Ok(()) => seen = Some(snapshot.hash),
                Err(error) => tracing::warn!(%error, "webhooks could not be started; it is tried again"),
            }
        }
        tokio::select! {
            () = stopped(&mut stopping) => break,
            () = sleep(LOOK) => {}
        }
    }
    // All are told before the first is waited for.
    for task in running.values() {
        let _ = task.stop.send(true);
    }
    for task in running.into_values() {
        let _ = task.ended.await;
    }
}

struct Running {
    webhook: Arc<Webhook>,
    stop: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

async fn reconcile(
    broker: &Arc<Broker>,
    webhooks: &[Arc<Webhook>],
    running: &mut BTreeMap<String, Running>,
) -> Result<(), String> {
    let wanted = |old: &Running| webhooks.iter().any(|new| old.webhook.same_as(new));
    let over: Vec<String> = running.iter().filter(|(_, old)| !wanted(old)).map(|(name, _)| name.clone()).collect();
    for name in over {
        if let Some(task) = running.remove(&name) {
            let _ = task.stop.send(true);
            let _ = task.ended.await;
            let _ = broker.metrics.webhook_behind.remove_label_values(&[&name]);
        }
    }
    // One that comes back later starts at the log's head, not where it once was.
    let names: Vec<String> = webhooks.iter().map(|w| w.name.clone()).collect();
    broker.store.keep_webhook_cursors(&names, broker.log.node()).await.map_err(|e| e.to_string())?;
    for webhook in webhooks.iter().filter(|w| !running.contains_key(&w.name)).cloned().collect::<Vec<_>>() {
        let next = start(broker, &webhook).await?;
        let (stop, stopping) = watch::channel(false);
        let follower = Follower { broker: broker.clone(), webhook: webhook.clone(), stopping, next, noted: next };
        running.insert(webhook.name.clone(), Running { webhook, stop, ended: tokio::spawn(follower.follow()) });
    }
    Ok(())
}

/// Where to go on: behind the last event that was taken, or at the log's head.
async fn start(broker: &Broker, webhook: &Webhook) -> Result<u64, String> {
    let (node, head) = (broker.log.node(), broker.log.head().next_seq);
    let cursor = broker.store.webhook_cursor(&webhook.name, node).await.map_err(|e| e.to_string())?;
    // Beyond the head it is of another log, whose leaves are not here.
    if let Some(next) = cursor.filter(|next| *next <= head) {
        return Ok(next);
    }
    broker.store.put_webhook_cursor(&webhook.name, node, head).await.map_err(|e| e.to_string())?;
    Ok(head)
}

/// One webhook's way along the log.
struct Follower {
    broker: Arc<Broker>,
    webhook: Arc<Webhook>,
    stopping: watch::Receiver<bool>,
    /// The next leaf to look at.
    next: u64,
    /// The cursor as it is stored.
    noted: u64,
}

impl Follower {
    async fn follow(mut self) {
        let name = self.webhook.name.clone();
        let sender = Sender::new();
        self.behind(None);
        loop {
            match self.step(&sender).await {
                Ok(ControlFlow::Break(())) => return,
                Ok(ControlFlow::Continue(true)) => {}
                Ok(ControlFlow::Continue(false)) => {
                    if self.wait(LOOK).await.is_break() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(webhook = name, error, "a webhook could not read what to tell; it is tried again");
                    if self.wait(SHORTEST).await.is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// Looks at what is new, and tells what is wanted of it; whether there may be more at once.
    async fn step(&mut self, sender: &Sender) -> Result<ControlFlow<(), bool>, String> {
        // A leaf that a power cut can still take would make the cursor point behind the log.
        let durable = self.broker.log.head().durable_through.map_or(0, |seq| seq + 1);
        if self.next >= durable {
            self.note_if(self.next >= self.noted + FAR).await?;
            return Ok(ControlFlow::Continue(false));
        }
        let most = usize::try_from(durable - self.next).unwrap_or(BATCH).min(BATCH);
        let (log, from) = (self.broker.log.clone(), self.next);
        let read = tokio::task::spawn_blocking(move || log.read(from, most)).await;
        let leaves = read.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        for stored in &leaves {
            if let Some(event) = wanted(&self.webhook, &stored.bytes)
                && self.tell(sender, stored.seq, &event).await?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            self.next = stored.seq + 1;
        }
        self.note_if(self.next >= self.noted + FAR).await?;
        Ok(ControlFlow::Continue(!leaves.is_empty()))
    }

    /// Delivers one event, however often it takes, and moves the cursor behind it.
    async fn tell(&mut self, sender: &Sender, seq: u64, event: &Event) -> Result<ControlFlow<()>, String> {
        let receipt = receipt_id(self.broker.log.node(), seq);
        let mut pause = SHORTEST;
        for attempt in 1u32.. {
            self.behind(Some(event));
            let result = self.attempt(sender, &receipt, event).await;
            let Some(result) = result else { return Ok(ControlFlow::Break(())) };
            self.count(result.label());
            if result.is_taken() {
                break;
            }
            let age = self.broker.env.clock.now().0.saturating_sub(event.at.0);
            let name = self.webhook.name.as_str();
            if attempt >= ENOUGH && age > GIVE_UP_MS {
                tracing::error!(webhook = name, event_id = event.event_id, "an event is given up: {result}");
                self.count("given_up");
                break;
            }
            if attempt == 1 {
                tracing::warn!(webhook = name, event_id = event.event_id, "not delivered, it is tried again: {result}");
            }
            if self.wait(pause).await.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            pause = (pause * 2).min(LONGEST);
        }
        self.behind(None);
        self.next = seq + 1;
        self.note_if(true).await?;
        Ok(ControlFlow::Continue(()))
    }

    /// One attempt; `None` where a stop was asked for before it came to an end.
    async fn attempt(&mut self, sender: &Sender, receipt: &str, event: &Event) -> Option<send::Sent> {
        let body = match self.broker.webhook_body(&self.webhook, receipt, event).await {
            Ok(body) => body,
            Err(error) => return Some(send::Sent::Unprepared(error.to_string())),
        };
        let request = match self.broker.webhook_request(&self.webhook, &event.event_id, body).await {
            Ok(request) => request,
            Err(error) => return Some(send::Sent::Unprepared(error.to_string())),
        };
        let mut sent = std::pin::pin!(sender.send(request));
        tokio::select! {
            result = &mut sent => return Some(result),
            () = stopped(&mut self.stopping) => {}
        }
        // What is under way may still be taken: then it need not be sent again.
        timeout(LAST, sent).await.ok()
    }

    async fn note_if(&mut self, far: bool) -> Result<(), String> {
        if far && self.next != self.noted {
            let (store, node) = (&self.broker.store, self.broker.log.node());
            // A crash before this line tells the receiver again, under the same id.
            store.put_webhook_cursor(&self.webhook.name, node, self.next).await.map_err(|e| e.to_string())?;
            self.noted = self.next;
        }
        Ok(())
    }

    async fn wait(&mut self, time: Duration) -> ControlFlow<()> {
        tokio::select! {
            () = stopped(&mut self.stopping) => ControlFlow::Break(()),
            () = sleep(time) => ControlFlow::Continue(()),
        }
    }

    fn count(&self, result: &str) {
        self.broker.metrics.webhook_deliveries.with_label_values(&[&self.webhook.name, result]).inc();
    }

    fn behind(&self, event: Option<&Event>) {
        let now = self.broker.env.clock.now().0;
        let age = event.map_or(0, |event| now.saturating_sub(event.at.0).max(0) / 1000);
        self.broker.metrics.webhook_behind.with_label_values(&[&self.webhook.name]).set(age);
    }
}

/// The event of a leaf, if it is one that the webhook wants.
fn wanted(webhook: &Webhook, leaf: &[u8]) -> Option<Event> {
    // Nearly all leaves are decisions and their outcomes: they are not parsed for this.
    if !leaf.windows(EVENT.len()).any(|window| window == EVENT) {
        return None;
    }
    match Leaf::parse(leaf).ok()?.body {
        LeafBody::Event(event) => webhook.events.contains(&event.kind).then_some(event),
        _ => None,
    }
}

const EVENT: &[u8] = br#""type":"event.v1""#;
/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(250);
const BATCH: usize = 256;
/// So many leaves that nobody wants to hear of move the cursor, too.
const FAR: u64 = 4096;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// How long a stop waits for a delivery under way.
const LAST: Duration = Duration::from_secs(3);
/// One event that a receiver will never take must not hold up the others for ever: three days and ten attempts.
const GIVE_UP_MS: i64 = 3 * 86_400_000;
const ENOUGH: u32 = 10;

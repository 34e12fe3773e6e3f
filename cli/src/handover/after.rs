//! What is left of a process that was taken over from: requests in flight, whose outcomes it brings
//! to whoever has the log now, and whose agents it asks about there.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aegis_action::{Clock, Timestamp};
use aegis_broker::{Broker, identity::FollowedSession, store::AgentState};
use aegis_receipts::{Heir, LogOptions, OutcomeEntry, RealDisk, ReceiptLog};
use parking_lot::Mutex;
use tokio::{
    net::UnixStream,
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Control, Message, Mouth,
    socket::{House, SOCKET, address},
};
use crate::{config::Config, gateway::RECEIPTS, reload::stopped, state::Held};

/// Outcomes that are not in the log yet, oldest first.
#[derive(Clone, Default)]
pub struct Owed {
    entries: Arc<Mutex<VecDeque<OutcomeEntry>>>,
    /// Of those, how many went out over the connection at hand.
    sent: Arc<AtomicUsize>,
}

impl Owed {
    /// Takes the outcomes that the log no longer does, and a note for each.
    pub fn heir(&self) -> (Heir, mpsc::UnboundedReceiver<()>) {
        let (note, notes) = mpsc::unbounded_channel();
        let entries = self.entries.clone();
        let heir = move |entry| {
            entries.lock().push_back(entry);
            let _ = note.send(());
        };
        (Box::new(heir), notes)
    }

    fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }

    fn next(&self) -> Option<OutcomeEntry> {
        self.entries.lock().get(self.sent.load(Ordering::Acquire)).cloned()
    }

    fn recorded(&self) {
        self.entries.lock().pop_front();
        self.sent.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Brings outcomes until the task is aborted, and hears what becomes of the agents that requests in flight are for.
///
/// Where nobody serves for five seconds, all of them count as contained: nobody could say which are not.
pub async fn bring(config: Config, broker: Arc<Broker>, owed: Owed, mut notes: mpsc::UnboundedReceiver<()>) {
    let mut alone_since = Instant::now();
    loop {
        if let Ok(control) = connect(&config, &broker).await {
            let error = talk(control, &broker, &owed, &mut notes).await;
            tracing::debug!(%error, "the process that serves now is gone");
            alone_since = Instant::now();
        }
        if alone_since.elapsed() > ALONE {
            broker.auth.contain_all();
        }
        sleep(RETRY).await;
    }
}

async fn connect(config: &Config, broker: &Broker) -> io::Result<Control> {
    let address = address(&config.state, SOCKET)?;
    let mut control = Control::new(UnixStream::connect(address.path()).await?)?;
    let (agents, sessions) = broker.auth.in_flight();
    control.say(&Message::Outcomes { agents, sessions }).await?;
    Ok(control)
}

/// Until the connection ends.
async fn talk(control: Control, broker: &Broker, owed: &Owed, notes: &mut mpsc::UnboundedReceiver<()>) -> io::Error {
    let (mut mouth, mut ears) = control.split();
    owed.sent.store(0, Ordering::Release);
    loop {
        while let Some(entry) = owed.next() {
            owed.sent.fetch_add(1, Ordering::AcqRel);
            if let Err(error) = mouth.say(&Message::Outcome { of_read: entry.of_read, entry }).await {
                return error;
            }
        }
        tokio::select! {
            Some(()) = notes.recv() => {}
            heard = ears.recv() => match heard {
                Some(Message::Recorded) => owed.recorded(),
                Some(Message::Agent { record }) => broker.auth.changed(&record),
                Some(Message::Session { id, until }) => broker.auth.session_changed(&id, until),
                Some(_) | None => return io::ErrorKind::UnexpectedEof.into(),
            },
        }
    }
}

/// Waits until all outcomes are in the log. Where nobody has it, they are put there.
pub async fn settle(config: &Config, owed: &Owed, clock: Arc<dyn Clock>) {
    let until = Instant::now() + LAST_PATIENCE;
    while !owed.is_empty() && Instant::now() < until {
        sleep(Duration::from_millis(10)).await;
    }
    let left: Vec<OutcomeEntry> = owed.entries.lock().drain(..).collect();
    if left.is_empty() {
        return;
    }
    let count = left.len();
    let (state, dir, node) = (config.state.clone(), config.in_state(RECEIPTS), config.node.clone());
    let recorded = tokio::task::spawn_blocking(move || {
        let held = Held::take(&state).ok().flatten()?;
        let (log, _) = ReceiptLog::open(LogOptions::new(dir, node), clock, Arc::new(RealDisk)).ok()?;
        left.into_iter().for_each(|entry| log.outcome(entry));
        log.shutdown();
        drop(held);
        Some(())
    });
    if !matches!(recorded.await, Ok(Some(()))) {
        tracing::error!(outcomes = count, "outcomes could not be recorded; their intents read `unknown`");
    }
}

/// The other side: puts outcomes into the log and tells what becomes of the agents.
pub async fn take_in(control: Control, agents: Vec<String>, sessions: Vec<(String, Timestamp)>, house: House) {
    let House { broker, mut stopping, .. } = house;
    let follow = |(id, until): (String, Timestamp)| (broker.auth.follow_session(&id, until), id, until);
    let mut sessions: Vec<_> = sessions.into_iter().map(follow).collect();
    let (mut mouth, mut ears) = control.split();
    let mut known: HashMap<String, AgentState> = HashMap::new();
    let mut every = interval(LOOK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let said = tokio::select! {
            // A log that closes takes nothing more; without an answer it is brought to whoever is next.
            biased;
            () = stopped(&mut stopping) => return,
            heard = ears.recv() => match heard {
                Some(Message::Outcome { of_read, mut entry }) => {
                    entry.of_read = of_read;
                    broker.log.outcome(entry);
                    mouth.say(&Message::Recorded).await
                }
                Some(_) | None => return,
            },
            _ = every.tick() => match tell(&broker, &agents, &mut known, &mut mouth).await {
                Ok(()) => tell_of_sessions(&mut sessions, &mut mouth).await,
                Err(error) => Err(error),
            },
        };
        if said.is_err() {
            return;
        }
    }
}

async fn tell(
    broker: &Broker,
    agents: &[String],
    known: &mut HashMap<String, AgentState>,
    mouth: &mut Mouth,
) -> io::Result<()> {
    for id in agents {
        // A store that does not answer is asked again; what it said last stands until then.
        let Ok(Some(record)) = broker.store.agent(id).await else { continue };
        let before = known.insert(id.clone(), record.state).unwrap_or(AgentState::Active);
        if before != record.state {
            mouth.say(&Message::Agent { record }).await?;
        }
    }
    Ok(())
}

async fn tell_of_sessions(sessions: &mut [(FollowedSession, String, Timestamp)], mouth: &mut Mouth) -> io::Result<()> {
    for (session, id, told) in sessions {
        let until = session.until();
        if until != *told {
            mouth.say(&Message::Session { id: id.clone(), until }).await?;
            *told = until;
        }
    }
    Ok(())
}

/// Between two looks at the agents' states.
const LOOK: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(50);
const ALONE: Duration = Duration::from_secs(5);
const LAST_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use aegis_action::Timestamp;
    use aegis_receipts::OutcomeState;

    fn entry(intent_seq: u64) -> OutcomeEntry {
        OutcomeEntry {
            credential: None,
            decision_id: "dec_1".into(),
            ended_at: Timestamp(1),
            intent_seq,
            of_read: false,
            received: None,
            sent: None,
            started_at: Timestamp(0),
            state: OutcomeState::Completed,
            tamper: None,
            upstream_status: Some(200),
        }
    }

    #[test]
    fn what_was_sent_and_not_answered_is_still_owed() {
        let owed = Owed::default();
        let (heir, _notes) = owed.heir();
        heir(entry(1));
        heir(entry(2));
        assert_eq!(owed.next().map(|e| e.intent_seq), Some(1));
        owed.sent.fetch_add(1, Ordering::AcqRel);
        assert_eq!(owed.next().map(|e| e.intent_seq), Some(2));
        owed.recorded();
        owed.sent.store(0, Ordering::Release);
        assert_eq!(owed.next().map(|e| e.intent_seq), Some(2), "another connection brings it again");
    }
}

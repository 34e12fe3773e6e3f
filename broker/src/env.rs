//! Clock and randomness, passed in so that a failing run can be replayed.

use std::{sync::Arc, time::SystemTime};

use aegis_action::{Clock, Timestamp};

/// Where random bytes come from.
pub trait Random: Send + Sync {
    /// Fills the whole buffer or fails; callers deny on failure.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError>;
}

/// The operating system has no randomness to give.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no randomness available")]
pub struct RandomError;

/// Clock and randomness.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl Env {
    /// The machine's own.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) }
    }

    /// A fresh id: prefix and 26 characters, 128 bits.
    pub fn id(&self, prefix: &str) -> Result<String, RandomError> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes)?;
        let mut n = u128::from_be_bytes(bytes);
        let mut out = String::with_capacity(prefix.len() + 26);
        out.push_str(prefix);
        for _ in 0..26 {
            out.push(char::from(CROCKFORD.get((n & 31) as usize).copied().unwrap_or(b'0')));
            n >>= 5;
        }
        Ok(out)
    }
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The operating system's generator.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        getrandom::fill(buffer).map_err(|_| RandomError)
    }
}

const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

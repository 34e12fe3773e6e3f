//! Clock and randomness, passed in so that a failing run can be replayed.

use std::{cell::RefCell, sync::Arc, time::SystemTime};

use aegis_action::{Clock, Timestamp};
use zeroize::Zeroizing;

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

/// The operating system's generator, asked for a little more at a time: a decision takes several small draws.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        if buffer.len() > POOL / 4 {
            return getrandom::fill(buffer).map_err(|_| RandomError);
        }
        DRAWN.with_borrow_mut(|(pool, left)| {
            if *left < buffer.len() {
                getrandom::fill(pool.as_mut_slice()).map_err(|_| RandomError)?;
                *left = POOL;
            }
            let from = POOL - *left;
            let drawn = pool.get_mut(from..from + buffer.len()).ok_or(RandomError)?;
            buffer.copy_from_slice(drawn);
            // What was given out is given out once, and is not kept.
            drawn.fill(0);
            *left -= buffer.len();
            Ok(())
        })
    }
}

thread_local! {
    /// Bytes drawn ahead, and how many of them are left at the end.
    static DRAWN: RefCell<(Zeroizing<[u8; POOL]>, usize)> = RefCell::new((Zeroizing::new([0; POOL]), 0));
}

const POOL: usize = 4096;

const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_draw_repeats_another() {
        let mut seen = std::collections::HashSet::new();
        for length in [16, 32, 24, 300, 7].into_iter().cycle().take(2000) {
            let mut bytes = vec![0; length];
            SystemRandom.fill(&mut bytes).unwrap();
            assert!(seen.insert(bytes), "a draw came twice");
        }
    }
}

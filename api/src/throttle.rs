//! Slows down whoever fails to authenticate again and again.

use std::{collections::HashMap, net::IpAddr};

use aegis_action::Timestamp;
use parking_lot::Mutex;

/// A token bucket for each address, of failures only: a credential that holds is let in whatever
/// its address did before, so nobody can lock the admin out of a freeze.
#[derive(Default)]
pub(crate) struct Throttle(Mutex<HashMap<Option<IpAddr>, Bucket>>);

struct Bucket {
    /// Failures left, in thousandths.
    left: i64,
    at: Timestamp,
}

impl Throttle {
    /// Counts one failure. `Err` says in how many seconds the next one is judged again.
    pub(crate) fn failed(&self, peer: Option<IpAddr>, now: Timestamp) -> Result<(), u64> {
        let mut buckets = self.0.lock();
        let mut key = peer.map(network);
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| bucket.refilled(now) < FULL);
            if buckets.len() >= MAX_BUCKETS {
                // More failing addresses than are kept apart: the further ones share a bucket.
                key = None;
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { left: FULL, at: now });
        *bucket = Bucket { left: bucket.refilled(now), at: bucket.at.max(now) };
        if bucket.left < ONE {
            let missing = (ONE - bucket.left).unsigned_abs();
            return Err(missing.div_ceil(REFILL_PER_SECOND.unsigned_abs()));
        }
        bucket.left -= ONE;
        Ok(())
    }
}

impl Bucket {
    fn refilled(&self, now: Timestamp) -> i64 {
        // A clock that goes back refills nothing.
        let elapsed = now.0.saturating_sub(self.at.0).max(0);
        self.left.saturating_add(elapsed.saturating_mul(REFILL_PER_SECOND) / 1000).min(FULL)
    }
}

/// One host may own a whole IPv6 network.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

const ONE: i64 = 1000;
const FULL: i64 = 20 * ONE;
const REFILL_PER_SECOND: i64 = ONE / 2;
const MAX_BUCKETS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn twenty_failures_then_one_every_two_seconds() {
        let throttle = Throttle::default();
        let start = Timestamp(1_000_000);
        for _ in 0..20 {
            assert_eq!(throttle.failed(ip("203.0.113.9"), start), Ok(()));
        }
        assert_eq!(throttle.failed(ip("203.0.113.9"), start), Err(2));
        assert_eq!(throttle.failed(ip("203.0.113.10"), start), Ok(()), "another address is not held liable");
        assert_eq!(throttle.failed(ip("203.0.113.9"), start.plus_seconds(-5)), Err(2), "time does not run backwards");
        assert_eq!(throttle.failed(ip("203.0.113.9"), start.plus_seconds(2)), Ok(()));
        assert!(throttle.failed(ip("203.0.113.9"), start.plus_seconds(2)).is_err());
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_the_table_is_bounded() {
        let throttle = Throttle::default();
        let now = Timestamp(0);
        for host in 0..20 {
            assert_eq!(throttle.failed(ip(&format!("2001:db8::{host:x}")), now), Ok(()));
        }
        assert!(throttle.failed(ip("2001:db8::ffff"), now).is_err());
        for n in 0..2 * MAX_BUCKETS as u32 {
            let _ = throttle.failed(Some(IpAddr::V4(n.into())), now);
        }
        assert!(throttle.0.lock().len() <= MAX_BUCKETS + 1);
    }
}

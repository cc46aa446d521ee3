//! How busy a relay is.

use std::time::Instant;

/// Datagrams a second between two looks.
pub struct Load {
    count: u64,
    at: Instant,
    last: u32,
}

impl Load {
    /// From now on; so many datagrams have been relayed before.
    pub fn new(count: u64) -> Self {
        Self {
            count,
            at: Instant::now(),
            last: 0,
        }
    }

    /// The rate at a time at which so many have been relayed.
    pub fn measure(&mut self, count: u64, now: Instant) -> u32 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        // A look soon after another has seen too little to say anything new.
        if seconds >= 5.0 {
            self.last = ((count - self.count) as f64 / seconds) as u32;
            (self.count, self.at) = (count, now);
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn load_is_a_rate() {
        let mut load = Load::new(100);
        let at = load.at;
        assert_eq!(load.measure(300, at + Duration::from_secs(1)), 0);
        assert_eq!(load.measure(1100, at + Duration::from_secs(10)), 100);
        assert_eq!(load.measure(1100, at + Duration::from_secs(20)), 0);
    }
}

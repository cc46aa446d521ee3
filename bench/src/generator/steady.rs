//! A steady load: datagrams that come one after the other, and how long they are inside the relay.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::feed::Feed;
use super::inside::Inside;
use super::kernel::{Generator, settings};

/// How long a relay has to work off what is in its queues.
const DRAIN: Duration = Duration::from_millis(20);

/// What a steady load has shown.
#[derive(Debug, Clone)]
pub struct Steady {
    /// Datagrams offered a second.
    pub offered: f64,
    /// The share of them that did not leave the relay.
    pub lost: f64,
    /// How long those that left were inside.
    pub inside: Inside,
}

impl Feed {
    /// Sends datagrams between `hops` neighbours, first `warm_up`, which do not count, and then `count`. The relay is
    /// asked before those and after: not meanwhile, since its answer takes time of its core.
    ///
    /// # Errors
    /// If the generator does not run, what is measured has ended, or it is no relay.
    pub fn steadily(
        &mut self,
        generator: &mut Generator,
        hops: usize,
        rate: f64,
        [warm_up, count]: [u32; 2],
    ) -> Result<Steady> {
        let all = warm_up + count;
        self.seal(generator, hops, all)?;
        let interval = Duration::from_secs_f64(1.0 / rate.max(1.0));
        let longest = interval * all * 4;
        let up_to = |frames| settings(self.node().device, interval, frames, 0);
        generator.run_steadily(up_to(warm_up), 0, longest)?;
        std::thread::sleep(DRAIN);
        let before = Inside::of(&self.status()?);
        let (sent, took) = generator.run_steadily(up_to(all), warm_up.into(), longest)?;
        std::thread::sleep(DRAIN);
        let inside = Inside::of(&self.status()?).since(&before);
        ensure!(
            sent == u64::from(count),
            "the generator sent {sent} of {count} datagrams"
        );
        Ok(Steady {
            offered: sent as f64 / took.as_secs_f64(),
            lost: 1.0 - (inside.count() as f64 / sent as f64).min(1.0),
            inside,
        })
    }
}

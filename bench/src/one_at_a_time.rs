//! How long a single datagram takes through a relay that does nothing else: a part of `forward`, on its wires.
//! [`latency`](crate::latency) is about relays at work.
//!
//! One datagram is under way at a time. It goes from a UDP socket through the relay and back to the
//! socket, and another goes by the same kind of wire to a bare AF_XDP echo and back. What the relay
//! takes longer than the echo is what a hop takes: waking up, link, replay filter, path and link
//! again, and the difference between the relay's port and the echo's.

use std::fmt;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::Plot;
use crate::generator::{Feed, Generator, there_and_back};
use crate::measure::{Samples, Summary};
use crate::outcome::{Bar, Bars};

/// Datagrams of a round: few, so that turns are short and what else the machine does falls on all.
const DATAGRAMS: usize = 500;
/// Rounds for each round of `forward`.
const ROUNDS: usize = 4;

/// What was measured, in microseconds.
#[derive(Debug, Serialize)]
pub struct OneAtATime {
    /// There and back by way of the echo.
    pub echo: Took,
    /// What a relay on AF_XDP takes longer, sending as it does by itself in the granted mode.
    pub xdp: Took,
    /// What a relay on UDP takes longer.
    pub udp: Took,
    /// What a relay on UDP behind the XDP filter takes longer.
    pub xdp_filter: Took,
}

/// Of one of them, in microseconds.
#[derive(Debug, Serialize)]
pub struct Took {
    /// At the median of a round's datagrams; the median of the rounds.
    pub p50: f64,
    /// At the 99th percentile of a round's datagrams; the median of the rounds.
    pub p99: f64,
    /// Both with the spread of the rounds.
    pub spread: Spread,
}

/// Medians and spreads.
#[derive(Debug, Serialize)]
pub struct Spread {
    /// Of the median.
    pub p50: Summary,
    /// Of the 99th percentile.
    pub p99: Summary,
}

/// What each round has shown of one of them, there and back, in microseconds.
#[derive(Default)]
struct Rounds {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// Measures in rounds, each time another one first; a first round does not count. `feeds` are the
/// echo and the relays on AF_XDP, on UDP and on UDP behind XDP; `rounds` are those of `forward`.
///
/// # Errors
/// If datagrams do not come back.
pub fn run(generator: &mut Generator, feeds: [&mut Feed; 4], rounds: usize) -> Result<OneAtATime> {
    let rounds = ROUNDS * rounds;
    let mut all: [Rounds; 4] = Default::default();
    for round in 0..=rounds {
        if round % ROUNDS == 0 {
            eprintln!("forward: one datagram at a time, round {round} of {rounds}");
        }
        for at in 0..feeds.len() {
            let at = (at + round) % feeds.len();
            let took = there_and_back(feeds[at], generator, DATAGRAMS)
                .with_context(|| format!("one datagram at a time to {at} of the feeds"))?;
            if round > 0 {
                all[at].add(took);
            }
        }
    }
    let [echo, xdp, udp, filter] = &all;
    let none = Rounds {
        p50: vec![0.0; rounds],
        p99: vec![0.0; rounds],
    };
    Ok(OneAtATime {
        echo: echo.longer_than(&none),
        xdp: xdp.longer_than(echo),
        udp: udp.longer_than(echo),
        xdp_filter: filter.longer_than(echo),
    })
}

impl Rounds {
    /// What a round's datagrams took, in nanoseconds.
    fn add(&mut self, mut took: Vec<f64>) {
        took.sort_by(f64::total_cmp);
        let at = |hundredths: usize| took.get((took.len() * hundredths).div_ceil(100).max(1) - 1);
        let micros = |nanos: Option<&f64>| nanos.map_or(f64::NAN, |nanos| nanos / 1e3);
        self.p50.push(micros(at(50)));
        self.p99.push(micros(at(99)));
    }

    /// Round by round.
    fn longer_than(&self, other: &Self) -> Took {
        let longer = |these: &[f64], those: &[f64]| {
            let pairs = these.iter().zip(those);
            pairs
                .map(|(this, that)| this - that)
                .collect::<Samples>()
                .summary()
        };
        let spread = Spread {
            p50: longer(&self.p50, &other.p50),
            p99: longer(&self.p99, &other.p99),
        };
        Took {
            p50: spread.p50.median,
            p99: spread.p99.median,
            spread,
        }
    }
}

impl OneAtATime {
    /// What the report draws.
    #[must_use]
    pub fn bars(&self) -> Plot {
        let bar = |name: &str, took: &Took| Bar::new(name, took.spread.p50);
        Plot::Bars(Bars {
            title: "One datagram at a time: what a hop takes longer than a bare echo".into(),
            note: format!(
                "Medians; the echo takes {:.0} us there and back.",
                self.echo.p50
            ),
            unit: "us".into(),
            bars: vec![
                bar("relay, AF_XDP", &self.xdp),
                bar("relay, UDP", &self.udp),
                bar("relay, UDP behind XDP", &self.xdp_filter),
            ],
        })
    }
}

impl fmt::Display for OneAtATime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  a hop, one datagram at a time, us: what it takes longer than the echo"
        )?;
        for (name, took) in [
            ("AF_XDP echo, there and back", &self.echo),
            ("relay, AF_XDP", &self.xdp),
            ("relay, UDP", &self.udp),
            ("relay, UDP behind XDP", &self.xdp_filter),
        ] {
            let Spread { p50, p99 } = took.spread;
            writeln!(f, "    {name:<38} p50 {p50:.1}, p99 {p99:.0}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_round_and_what_the_echo_takes() {
        let mut relay = Rounds::default();
        relay.add((1..=1000).rev().map(|n| f64::from(n) * 1e3).collect());
        assert_eq!((relay.p50[0], relay.p99[0]), (500.0, 990.0));
        relay.add(vec![7e3]);
        let echo = Rounds {
            p50: vec![100.0, 3.0],
            p99: vec![190.0, 4.0],
        };
        let hop = relay.longer_than(&echo);
        assert_eq!((hop.p50, hop.p99), (202.0, 401.5));
        assert!((hop.spread.p50.high - 360.4).abs() < 1e-9);
    }
}

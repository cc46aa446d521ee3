//! The ring in memory: how records spread over relays, and what is lost when relays are down, come, go or are an
//! adversary's.
//!
//! The places are those of the real code; services are random keys, since a blinded key looks like one. Relays stand in
//! networks of very different sizes, half of them with a second address, some in families, as they do in the world.
//! All is drawn from fixed seeds, so figures repeat from run to run.

use std::fmt;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Result, ensure};
use mixline_protocol::identity::RelayId;
use mixline_protocol::ring::{BlindedId, CAPACITY, COPIES, Member, RECORD, Ring, TAKERS};
use serde::Serialize;

use crate::outcome::{Axis, Lines, Point, Scale, Series};
use crate::{Goal, Options, Plot};

/// Relays and services, and of a quick run.
const SIZES: [[usize; 2]; 2] = [[10_000, 1_000_000], [2000, 100_000]];
/// How often relays are drawn that are down, or an adversary's.
const DRAWS: usize = 100;
/// Networks (/16) of relays.
const NETWORKS: usize = 3000;
/// The shares of relays that are down in the plot.
const SHARES: [f64; 6] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Relays.
    pub relays: usize,
    /// Services.
    pub services: usize,
    /// Making the ring, in milliseconds.
    pub build_ms: f64,
    /// Finding a service's relays, in nanoseconds.
    pub lookup_ns: f64,
    /// Records of each relay.
    pub load: Load,
    /// The same while two periods are kept.
    pub load_of_two_periods: Load,
    /// Services no two of whose relays are in one network or family.
    pub apart: f64,
    /// Keys that have to be tried for one that a given relay takes.
    pub tries: f64,
    /// Lookups while relays are down.
    pub down: Vec<Down>,
    /// What an adversary holds who has a tenth of all relays.
    pub adversary: Vec<Adversary>,
    /// What moves.
    pub churn: Vec<Churn>,
}

/// Records of each relay.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Load {
    /// Mean.
    pub mean: f64,
    /// One relay in a hundred has more.
    pub p99: u32,
    /// The most.
    pub max: u32,
    /// Where one relay of all is expected above, if relays were all apart: places are random, so that what is before
    /// the fourth next one has a gamma distribution.
    pub max_expected: f64,
}

/// Lookups while relays are down.
#[derive(Debug, Clone, Serialize)]
pub struct Down {
    /// Which ones: `relays` at random, or whole `networks`.
    pub which: &'static str,
    /// The share of all relays.
    pub share: f64,
    /// Of all services, those none of whose relays is up.
    pub failed: f64,
    /// The same if there were six copies.
    pub failed_of_six: f64,
    /// The share to the power of the number of copies.
    pub expected: f64,
}

/// What an adversary holds.
#[derive(Debug, Clone, Serialize)]
pub struct Adversary {
    /// Which relays are his: `relays` at random, or whole `networks`.
    pub which: &'static str,
    /// The share of all relays.
    pub share: f64,
    /// Services that he holds all copies of.
    pub all: f64,
    /// The same if there were six copies.
    pub all_of_six: f64,
    /// Services that he holds a copy of.
    pub any: f64,
    /// Lookups that ask one of his relays, of the two that are asked.
    pub seen: f64,
    /// His share of all copies.
    pub copies: f64,
}

/// What moves when relays come and go.
#[derive(Debug, Clone, Serialize)]
pub struct Churn {
    /// What happens.
    pub what: &'static str,
    /// Copies that have to be made anew.
    pub moved: f64,
    /// Services that are not found before their records have moved.
    pub lost: f64,
    /// Old copies that the relays would still take, by the new list.
    pub taken: f64,
}

/// The relays of a service, by their numbers.
type Holders = [u16; COPIES];

/// Relays and their rings.
struct World {
    ids: Vec<RelayId>,
    addresses: Vec<Vec<IpAddr>>,
    networks: Vec<u16>,
    families: Vec<Option<String>>,
}

/// Runs it.
///
/// # Errors
/// If a service has not as many relays as it should.
pub fn run(options: &Options) -> Result<Report> {
    let [relays, services] = SIZES[usize::from(options.quick)];
    // One in ten comes later.
    let world = World::new(relays + relays / 10);
    let all: Vec<u16> = (0..u16::try_from(relays)?).collect();
    let began = Instant::now();
    let ring = world.ring(&all, 1);
    let build_ms = began.elapsed().as_secs_f64() * 1e3;
    eprintln!("ring: {services} services on {relays} relays");
    let began = Instant::now();
    let holders = holders(&ring, &all, services)?;
    let lookup_ns = began.elapsed().as_secs_f64() * 1e9 / services as f64;
    eprintln!("ring: relays that are down, or an adversary's");
    let down = SHARES
        .iter()
        .flat_map(|share| ["relays", "networks"].map(|which| (which, *share)))
        .map(|(which, share)| world.down(&holders, &all, which, share))
        .collect();
    let adversary = ["relays", "networks"].map(|which| world.adversary(&holders, &all, which));
    eprintln!("ring: relays that come and go");
    let (churn, next) = churn(&world, &holders, &all)?;
    let loads = [counts(&holders, relays), counts(&next, relays)];
    let both: Vec<u32> = loads[0].iter().zip(&loads[1]).map(|(a, b)| a + b).collect();
    Ok(Report {
        relays,
        services,
        build_ms,
        lookup_ns,
        load: load(&loads[0], services),
        load_of_two_periods: load(&both, services),
        apart: world.apart(&holders),
        tries: relays as f64 / TAKERS as f64,
        down,
        adversary: adversary.into(),
        churn,
    })
}

impl World {
    /// Networks by Zipf's law, a family of ten for every third relay.
    fn new(relays: usize) -> Self {
        let mut random = Random(1);
        let weights: Vec<f64> = (0..NETWORKS).map(|n| 1.0 / (n + 10) as f64).collect();
        let mut up_to = 0.0;
        let sums: Vec<f64> = weights
            .iter()
            .map(|weight| {
                up_to += weight;
                up_to
            })
            .collect();
        let mut drawn = || {
            let at = random.share() * up_to;
            sums.partition_point(|sum| *sum <= at).min(NETWORKS - 1) as u16
        };
        let networks: Vec<u16> = (0..relays).map(|_| drawn()).collect();
        Self {
            ids: (0..relays as u64).map(|n| RelayId(key(n, 2))).collect(),
            addresses: networks
                .iter()
                .enumerate()
                .map(|(n, network)| addresses(n, *network))
                .collect(),
            families: (0..relays)
                .map(|n| (n % 3 == 0).then(|| format!("family-{}", n / 30)))
                .collect(),
            networks,
        }
    }

    /// The ring of some of its relays.
    fn ring(&self, of: &[u16], period: u64) -> Ring {
        let members: Vec<Member<'_>> = of
            .iter()
            .map(|n| usize::from(*n))
            .map(|n| Member {
                id: self.ids[n],
                addresses: &self.addresses[n],
                family: self.families[n].as_deref(),
            })
            .collect();
        Ring::new(&members, [7; 32], period)
    }

    /// So many relays, of which some are marked, whole networks or each by itself.
    fn draw(&self, of: &[u16], which: &str, share: f64, random: &mut Random) -> Vec<bool> {
        let mut marked = vec![false; self.ids.len()];
        let wanted = (of.len() as f64 * share) as usize;
        let mut count = 0;
        while count < wanted {
            let one = of[random.below(of.len())];
            if marked[usize::from(one)] {
                continue;
            }
            let network = self.networks[usize::from(one)];
            let with_it = |n: &&u16| self.networks[usize::from(**n)] == network;
            let of_network: Vec<u16> = match which {
                "networks" => of.iter().filter(with_it).copied().collect(),
                _ => vec![one],
            };
            for relay in of_network.into_iter().take(wanted - count) {
                marked[usize::from(relay)] = true;
                count += 1;
            }
        }
        marked
    }

    fn down(&self, holders: &[Holders], of: &[u16], which: &'static str, share: f64) -> Down {
        let mut random = Random(3);
        let (mut eight, mut six) = (0_u64, 0_u64);
        for _ in 0..DRAWS {
            let down = self.draw(of, which, share, &mut random);
            for relays in holders {
                let is_down = |n: &u16| down[usize::from(*n)];
                if relays[..6].iter().all(is_down) {
                    six += 1;
                    eight += u64::from(relays.iter().all(is_down));
                }
            }
        }
        let all = (DRAWS * holders.len()) as f64;
        Down {
            which,
            share,
            failed: eight as f64 / all,
            failed_of_six: six as f64 / all,
            expected: share.powi(COPIES as i32),
        }
    }

    fn adversary(&self, holders: &[Holders], of: &[u16], which: &'static str) -> Adversary {
        const SHARE: f64 = 0.1;
        let mut random = Random(4);
        // Services by how many of their copies he has, and of the first six.
        let mut by_copies = [0_u64; COPIES + 1];
        let mut six = 0_u64;
        for _ in 0..DRAWS {
            let his = self.draw(of, which, SHARE, &mut random);
            for relays in holders {
                let held = relays.iter().filter(|n| his[usize::from(**n)]).count();
                by_copies[held] += 1;
                six += u64::from(held >= 6 && relays[..6].iter().all(|n| his[usize::from(*n)]));
            }
        }
        let all = (DRAWS * holders.len()) as f64;
        let copies = COPIES as f64;
        let mean_of = |f: fn(f64, f64) -> f64| {
            let terms = by_copies.iter().enumerate();
            terms
                .map(|(k, n)| f(k as f64, copies) * *n as f64)
                .sum::<f64>()
                / all
        };
        Adversary {
            which,
            share: SHARE,
            all: by_copies[COPIES] as f64 / all,
            all_of_six: six as f64 / all,
            any: 1.0 - by_copies[0] as f64 / all,
            // One minus the chance that neither of two is his.
            seen: mean_of(|k, n| 1.0 - (n - k) * (n - k - 1.0) / (n * (n - 1.0))),
            copies: mean_of(|k, n| k / n),
        }
    }

    /// The share of services no two of whose relays share a network or a family.
    fn apart(&self, holders: &[Holders]) -> f64 {
        let apart = holders.iter().filter(|relays| {
            relays.iter().enumerate().all(|(at, a)| {
                relays[at + 1..].iter().all(|b| {
                    let [a, b] = [*a, *b].map(usize::from);
                    let one_family =
                        self.families[a].is_some() && self.families[a] == self.families[b];
                    self.networks[a] != self.networks[b] && !one_family
                })
            })
        });
        apart.count() as f64 / holders.len() as f64
    }
}

/// One of IPv4, and for every other relay one of IPv6 in a network that it shares with those of its /16.
fn addresses(number: usize, network: u16) -> Vec<IpAddr> {
    let [a, b] = network.to_be_bytes();
    let [c, d] = [number >> 8, number].map(|part| part as u8);
    let mut addresses = vec![IpAddr::from([11 + a, b, c, d])];
    if number.is_multiple_of(2) {
        let site = u16::from_be_bytes([c, d]);
        addresses.push(IpAddr::from([0x2a00, network, site, 0, 0, 0, 0, 1]));
    }
    addresses
}

/// The relays of so many services. The ring's members have these numbers.
fn holders(ring: &Ring, members: &[u16], services: usize) -> Result<Vec<Holders>> {
    let mut all = Vec::with_capacity(services);
    for service in 0..services as u64 {
        let found = ring.holders(black_box(&BlindedId(key(service, 5))));
        ensure!(found.is_full(), "a service has {} relays", found.len());
        let mut numbers = [0; COPIES];
        for (to, at) in numbers.iter_mut().zip(found) {
            *to = members[at];
        }
        all.push(numbers);
    }
    Ok(all)
}

/// What moves, and the relays of the next period.
fn churn(world: &World, before: &[Holders], all: &[u16]) -> Result<(Vec<Churn>, Vec<Holders>)> {
    let mut random = Random(6);
    let mut without = |share| {
        let gone = world.draw(all, "relays", share, &mut random);
        let stays = |n: &&u16| !gone[usize::from(**n)];
        all.iter().filter(stays).copied().collect::<Vec<u16>>()
    };
    let with = |parts: usize| {
        let more = all.len() + all.len() / parts;
        (0..more as u16).collect::<Vec<u16>>()
    };
    let cases = [
        ("1 % of the relays leave", without(0.01), 1),
        ("10 % leave", without(0.1), 1),
        ("1 % more come", with(100), 1),
        ("10 % more come", with(10), 1),
        ("the next period", all.to_vec(), 2),
    ];
    let mut told = Vec::new();
    let mut last = Vec::new();
    for (what, members, period) in cases {
        let ring = world.ring(&members, period);
        last = holders(&ring, &members, before.len())?;
        told.push(compared(what, before, &last, &ring, &members));
    }
    Ok((told, last))
}

fn compared(
    what: &'static str,
    before: &[Holders],
    after: &[Holders],
    ring: &Ring,
    members: &[u16],
) -> Churn {
    let (mut moved, mut lost) = (0_usize, 0_usize);
    for (old, new) in before.iter().zip(after) {
        let missing = new.iter().filter(|n| !old.contains(n)).count();
        moved += missing;
        lost += usize::from(missing == COPIES);
    }
    // A sample will do: it takes as long as finding the relays did.
    let sample = before.len().min(100_000);
    let (mut kept, mut taken) = (0_usize, 0_usize);
    for (service, old) in before[..sample].iter().enumerate() {
        let takers = ring.takers(&BlindedId(key(service as u64, 5)));
        for relay in old {
            if let Ok(at) = members.binary_search(relay) {
                kept += 1;
                taken += usize::from(takers.contains(&at));
            }
        }
    }
    let all = before.len() as f64;
    Churn {
        what,
        moved: moved as f64 / (all * COPIES as f64),
        lost: lost as f64 / all,
        taken: taken as f64 / kept.max(1) as f64,
    }
}

fn counts(holders: &[Holders], relays: usize) -> Vec<u32> {
    let mut counts = vec![0; relays];
    for relay in holders.iter().flatten() {
        counts[usize::from(*relay)] += 1;
    }
    counts
}

fn load(counts: &[u32], services: usize) -> Load {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    let relays = counts.len();
    let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    Load {
        mean: total as f64 / relays as f64,
        p99: sorted[relays - 1 - relays / 100],
        max: sorted[relays - 1],
        max_expected: max_expected(relays, services),
    }
}

/// `x` copies a place, in units of services for each relay, where `relays × P(Gamma(4) > x) = 1`.
fn max_expected(relays: usize, services: usize) -> f64 {
    let (mut low, mut high) = (0.0_f64, 100.0_f64);
    for _ in 0..60 {
        let x = f64::midpoint(low, high);
        let above = (-x).exp() * (1.0 + x + x * x / 2.0 + x * x * x / 6.0);
        if above * relays as f64 > 1.0 {
            low = x;
        } else {
            high = x;
        }
    }
    low * 2.0 * services as f64 / relays as f64
}

/// 32 bytes that look random, of a number and a seed.
fn key(number: u64, seed: u64) -> [u8; 32] {
    let mut random = Random(number.wrapping_mul(0x1_0001).wrapping_add(seed << 56));
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.next().to_be_bytes());
    }
    bytes
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers from run to run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// From 0 up to but not including 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Report {
    fn failed(&self, which: &str, share: f64) -> Option<f64> {
        let case = |case: &&Down| case.which == which && (case.share - share).abs() < 1e-9;
        self.down.iter().find(case).map(|case| case.failed)
    }
}

impl crate::Report for Report {
    fn goals(&self) -> Vec<Goal> {
        let moved = |what| {
            let case = self.churn.iter().find(|case| case.what == what);
            case.map(|case| case.moved)
        };
        vec![
            Goal::at_most(
                "records of the fullest relay, of what fits into it, two periods kept",
                Some(f64::from(self.load_of_two_periods.max) / CAPACITY as f64),
                0.5,
            ),
            Goal::at_most(
                "records of the fullest relay over the mean",
                Some(f64::from(self.load.max) / self.load.mean),
                6.0,
            ),
            Goal::at_most(
                "lookups of a million that fail with 20 % of the relays down",
                self.failed("relays", 0.2).map(|failed| failed * 1e6),
                10.0,
            ),
            Goal::at_most(
                "services of a million of which 10 % of the relays hold all copies",
                self.adversary.first().map(|case| case.all * 1e6),
                1.0,
            ),
            Goal::at_most(
                "copies that move when 1 % of the relays leave",
                moved("1 % of the relays leave"),
                0.02,
            ),
            Goal::at_least(
                "services whose relays are all in other networks and families",
                Some(self.apart),
                0.999,
            ),
        ]
    }

    fn plots(&self) -> Vec<Plot> {
        let line = |label: &str, of: &str, value: fn(&Down) -> f64| Series {
            label: label.into(),
            points: self
                .down
                .iter()
                .filter(|case| case.which == of && value(case) > 0.0)
                .map(|case| Point {
                    x: case.share * 100.0,
                    y: value(case) * 1e6,
                    spread: None,
                })
                .collect(),
        };
        vec![Plot::Lines(Lines {
            title: "Lookups that fail while relays are down".into(),
            note: format!("{} services on {} relays.", self.services, self.relays),
            x: Axis {
                label: "relays that are down (%)".into(),
                scale: Scale::Linear,
            },
            y: Axis {
                label: "lookups of a million".into(),
                scale: Scale::Logarithmic,
            },
            series: vec![
                line("eight copies", "relays", |case| case.failed),
                line("eight copies, whole networks down", "networks", |case| {
                    case.failed
                }),
                line("six copies", "relays", |case| case.failed_of_six),
                line("computed for eight", "relays", |case| case.expected),
            ],
            bounds: Vec::new(),
        })]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            relays,
            services,
            build_ms,
            lookup_ns,
            ..
        } = self;
        writeln!(
            f,
            "ring: {services} services on {relays} relays (the ring made in {build_ms:.0} ms, a service's relays found \
             in {lookup_ns:.0} ns)"
        )?;
        for (what, load) in [
            ("records of a relay", &self.load),
            ("two periods kept", &self.load_of_two_periods),
        ] {
            let megabytes = f64::from(load.max) * RECORD as f64 / 1e6;
            writeln!(
                f,
                "  {what}: mean {:.0}, 99 % below {}, most {} ({megabytes:.1} MB; computed {:.0} for one period)",
                load.mean, load.p99, load.max, load.max_expected
            )?;
        }
        writeln!(
            f,
            "  relays in networks and families of their own: {:.4} of the services; {:.0} keys tried for one that a \
             given relay takes",
            self.apart, self.tries
        )?;
        writeln!(
            f,
            "  {:<28} {:>10} {:>10} {:>10}",
            "down", "fail", "of six", "computed"
        )?;
        for case in &self.down {
            writeln!(
                f,
                "  {:<28} {:>10.1e} {:>10.1e} {:>10.1e}",
                format!("{:.0} %, {}", case.share * 100.0, case.which),
                case.failed,
                case.failed_of_six,
                case.expected
            )?;
        }
        for case in &self.adversary {
            writeln!(
                f,
                "  an adversary with {:.0} % ({}): all copies of {:.1e}, of six {:.1e}, one of {:.2}, sees {:.2} of the \
                 lookups, has {:.3} of the copies",
                case.share * 100.0,
                case.which,
                case.all,
                case.all_of_six,
                case.any,
                case.seen,
                case.copies
            )?;
        }
        for case in &self.churn {
            writeln!(
                f,
                "  {:<28} {:.4} of the copies move, {:.1e} of the services are lost meanwhile, {:.4} of the old copies \
                 are still taken",
                case.what, case.moved, case.lost, case.taken
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_small_network_are_those_that_are_computed() {
        let world = World::new(550);
        let all: Vec<u16> = (0..500).collect();
        let ring = world.ring(&all, 1);
        let holders = holders(&ring, &all, 20_000).unwrap();
        let load = load(&counts(&holders, 500), 20_000);
        assert!((load.mean - 320.0).abs() < 1e-9);
        let down = world.down(&holders, &all, "relays", 0.5);
        let over = down.failed / down.expected;
        assert!((0.8..1.2).contains(&over), "{over}");
        assert!(down.failed_of_six > 3.0 * down.failed);
        let his = world.adversary(&holders, &all, "relays");
        assert!(
            (his.any - 0.57).abs() < 0.02 && (his.seen - 0.19).abs() < 0.01,
            "{his:?}"
        );
        assert!((his.copies - 0.1).abs() < 0.01);
        let (churn, next) = churn(&world, &holders, &all).unwrap();
        let moved: Vec<f64> = churn.iter().map(|case| case.moved).collect();
        for (moved, expected) in moved.iter().zip([0.01, 0.1, 0.01, 0.09, 0.98]) {
            assert!((moved - expected).abs() < 0.03, "{moved} {expected}");
        }
        assert_eq!(next.len(), holders.len());
    }

    #[test]
    fn names_in_the_json() {
        let report = run_small();
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["load"]["mean"], 8.0);
        assert_eq!(json["down"][0]["which"], "relays");
        assert_eq!(json["adversary"][1]["which"], "networks");
        assert_eq!(json["churn"][4]["what"], "the next period");
        assert!(!crate::Report::plots(&report).is_empty());
        let goals = crate::Report::goals(&report);
        assert!(
            goals.iter().all(|goal| goal.reached() == Some(true)),
            "{goals:?}"
        );
        assert!(report.to_string().contains("1000 services on 1000 relays"));
    }

    /// What a report looks like.
    fn run_small() -> Report {
        let load = Load {
            mean: 8.0,
            p99: 20,
            max: 30,
            max_expected: 25.0,
        };
        let down = |which| Down {
            which,
            share: 0.2,
            failed: 2e-6,
            failed_of_six: 6e-5,
            expected: 2.56e-6,
        };
        let adversary = |which| Adversary {
            which,
            share: 0.1,
            all: 0.0,
            all_of_six: 1e-6,
            any: 0.57,
            seen: 0.19,
            copies: 0.1,
        };
        let churn = |what| Churn {
            what,
            moved: 0.01,
            lost: 0.0,
            taken: 1.0,
        };
        Report {
            relays: 1000,
            services: 1000,
            build_ms: 1.0,
            lookup_ns: 1000.0,
            load,
            load_of_two_periods: load,
            apart: 1.0,
            tries: 83.0,
            down: ["relays", "networks"].map(down).into(),
            adversary: ["relays", "networks"].map(adversary).into(),
            churn: [
                "1 % of the relays leave",
                "10 % leave",
                "1 % more come",
                "10 % more come",
                "the next period",
            ]
            .map(churn)
            .into(),
        }
    }
}

/// Tor's own code blinds keys as ours does, and takes our signatures.
#[cfg(all(test, feature = "peers"))]
mod beside_tor {
    use mixline_protocol::identity::{IdentityKey, SIGNATURE};
    use mixline_protocol::ring::{Credential, Record, STEP, Terms};
    use mixline_protocol::time::UnixTime;
    use ring::digest::{Context, SHA256};
    use tor_llcrypto::pk::ed25519::{ExpandedKeypair, Keypair, PublicKey, Signature};
    use tor_llcrypto::pk::keymanip::{blind_keypair, blind_pubkey};

    use super::{RECORD, key};

    #[test]
    fn keys_are_blinded_as_tor_does_it() {
        for number in 0..100 {
            let (seed, period) = (key(number, 10), u64::from_be_bytes([number as u8; 8]));
            let identity = IdentityKey::from_seed(seed);
            let id = identity.anonymous_id();
            let mut factor = Context::new(&SHA256);
            factor.update(b"mixline/v2/blind");
            factor.update(&id.0);
            factor.update(&period.to_be_bytes());
            let factor = factor.finish().as_ref().try_into().unwrap();

            let credential = Credential::of(id);
            let blinded = credential.blinded_id(period).unwrap();
            let theirs = blind_pubkey(&PublicKey::from_bytes(&id.0).unwrap(), factor).unwrap();
            assert_eq!(theirs.to_bytes(), blinded.0);
            let expanded = ExpandedKeypair::from(&Keypair::from_bytes(&seed));
            let pair = blind_keypair(&expanded, factor).unwrap();
            assert_eq!(pair.public().to_bytes(), blinded.0);

            let terms = Terms {
                revision: number,
                expires: UnixTime(number * STEP),
            };
            let own = credential.blinded_key(&identity, period).unwrap();
            let record = Record::seal_content(&own, terms, [1; 16], b"text").unwrap();
            let (body, signature) = record.as_bytes().split_at(RECORD - SIGNATURE);
            let message = [b"mixline/v2/ring record\0", body].concat();
            let signature = Signature::from_bytes(signature.try_into().unwrap());
            assert!(theirs.verify(&message, &signature).is_ok());
        }
    }
}

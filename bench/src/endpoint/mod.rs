//! One cell of an endpoint on one core: from IP packet to sealed datagram, and back.
//!
//! Measured are the engine's own functions, as the driver calls them for a batch of packets from the interface and
//! for a batch of datagrams from the sockets, of a client and of a service that have made handshakes over relays in
//! memory. Beside them are the bare primitives. What the engine allocates meanwhile is counted.

mod ends;
mod primitives;

use std::cell::RefCell;
use std::fmt;

use anyhow::{Result, anyhow};
use mixline_wide_crypto::Width;
use serde::Serialize;

use self::ends::{End, Ends, Length};
use self::primitives::{Parts, Primitives};
use crate::measure::{FirstError, Samples, Subject, Summary, run_rounds};
use crate::outcome::{Bar, Bars, Bound};
use crate::{Goal, Options, Plot, machine};

/// At most so many times the bare primitives.
const OVER_PRIMITIVES: f64 = 1.3;

/// What is measured of both ends: which, whether the cells come, and what it is called.
const WAYS: [(End, bool, &str); 4] = [
    (End::Client, false, "client, out"),
    (End::Client, true, "client, in"),
    (End::Service, false, "service, out"),
    (End::Service, true, "service, in"),
];

/// What was measured. Times are in nanoseconds, for one cell.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The processor's instructions that are used.
    pub cpu: String,
    /// From packets to datagrams at the client.
    pub client_out: Way,
    /// From datagrams to packets.
    pub client_in: Way,
    /// From packets to datagrams at the service.
    pub service_out: Way,
    /// From datagrams to packets.
    pub service_in: Way,
    /// The bare primitives.
    pub primitives: Floor,
}

/// One end, one direction.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Way {
    /// One cell, with packets that fill one each; the median.
    pub ns: f64,
    /// The same over its bare primitives, round by round, the median.
    pub over_primitives: f64,
    /// One cell, with packets of 1500 bytes, the median.
    pub mtu_ns: f64,
    /// Pieces of memory that are allocated, or made larger, for each cell of both kinds of packets.
    pub allocations_per_cell: f64,
    /// All of these with their spread.
    pub spread: WaySpread,
}

/// Medians and spreads.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct WaySpread {
    /// One cell.
    pub ns: Summary,
    /// Over its bare primitives.
    pub over_primitives: Summary,
    /// With packets of 1500 bytes.
    pub mtu_ns: Summary,
}

/// The bare primitives, the medians.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Floor {
    /// Payload sealed, three layers, datagram sealed.
    pub out_ns: f64,
    /// Datagram opened, three layers, payload opened.
    pub in_ns: f64,
    /// With their spread.
    pub spread: FloorSpread,
}

/// Medians and spreads.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FloorSpread {
    /// Payload sealed, three layers, datagram sealed.
    pub out_ns: Summary,
    /// Datagram opened, three layers, payload opened.
    pub in_ns: Summary,
    /// AES-256-GCM of a payload, sealed.
    pub seal_payload_ns: Summary,
    /// HCTR2, three layers.
    pub layers_ns: Summary,
    /// AES-256-GCM of a datagram, sealed.
    pub seal_link_ns: Summary,
    /// The same opened.
    pub open_link_ns: Summary,
    /// AES-256-GCM of a payload, opened.
    pub open_payload_ns: Summary,
}

/// Cells, and what was allocated for them.
#[derive(Debug, Clone, Copy, Default)]
struct Allocated {
    cells: usize,
    allocations: usize,
}

/// Runs it.
///
/// # Errors
/// If a packet does not arrive as it was sent.
pub fn run(options: &Options) -> Result<Report> {
    machine::stay_on_one_core();
    eprintln!("endpoint: one cell of a client and of a service on one core");
    let ends = RefCell::new(Ends::new());
    let primitives = RefCell::new(Primitives::new());
    let parts = RefCell::new(Vec::new());
    let allocated = RefCell::new([Allocated::default(); WAYS.len()]);
    let failed = FirstError::default();
    let mut subjects: Vec<Subject<'_>> = Vec::new();
    for (at, (end, comes, _)) in WAYS.into_iter().enumerate() {
        for length in [Length::Cell, Length::Mtu] {
            let from = if comes { end.other() } else { end };
            let packets = ends.borrow().packets(from, length);
            let (ends, allocated, failed) = (&ends, &allocated, &failed);
            let measure = move || {
                let ends = &mut *ends.borrow_mut();
                match comes {
                    false => ends.send(end, &packets),
                    true => ends.receive(end, &packets),
                }
            };
            // What is kept from then on is allocated once: lanes, flows, buffers.
            measure()?;
            subjects.push(Box::new(move || {
                failed.or_nan(measure().map(|took| {
                    let sum = &mut allocated.borrow_mut()[at];
                    sum.cells += took.cells;
                    sum.allocations += took.allocations;
                    took.ns
                }))
            }));
        }
    }
    subjects.push(Box::new(|| failed.or_nan(primitives.borrow_mut().out())));
    subjects.push(Box::new(|| failed.or_nan(primitives.borrow_mut().back())));
    subjects.push(Box::new(|| {
        let took = primitives.borrow_mut().parts();
        failed.or_nan(took.map(|took| {
            parts.borrow_mut().push(took);
            0.0
        }))
    }));
    let samples = run_rounds(if options.quick { 500 } else { 2000 }, &mut subjects);
    drop(subjects);
    failed.tell()?;
    report(&samples, &parts.into_inner(), &allocated.into_inner())
}

fn report(
    samples: &[Samples],
    parts: &[Parts],
    allocated: &[Allocated; WAYS.len()],
) -> Result<Report> {
    let [co, co_mtu, ci, ci_mtu, so, so_mtu, si, si_mtu, out, back, _] = samples else {
        return Err(anyhow!("a subject is missing"));
    };
    let part = |of: fn(&Parts) -> f64| parts.iter().map(of).collect::<Samples>().summary();
    let spread = FloorSpread {
        out_ns: out.summary(),
        in_ns: back.summary(),
        seal_payload_ns: part(|took| took.seal_payload),
        layers_ns: part(|took| took.layers),
        seal_link_ns: part(|took| took.seal_link),
        open_link_ns: part(|took| took.open_link),
        open_payload_ns: part(|took| took.open_payload),
    };
    let way = |ns: &Samples, mtu: &Samples, floor: &Samples, of: Allocated| {
        let spread = WaySpread {
            ns: ns.summary(),
            over_primitives: ns.over(floor).summary(),
            mtu_ns: mtu.summary(),
        };
        Way {
            ns: spread.ns.median,
            over_primitives: spread.over_primitives.median,
            mtu_ns: spread.mtu_ns.median,
            allocations_per_cell: of.allocations as f64 / of.cells as f64,
            spread,
        }
    };
    Ok(Report {
        cpu: Width::current().name().to_owned(),
        client_out: way(co, co_mtu, out, allocated[0]),
        client_in: way(ci, ci_mtu, back, allocated[1]),
        service_out: way(so, so_mtu, out, allocated[2]),
        service_in: way(si, si_mtu, back, allocated[3]),
        primitives: Floor {
            out_ns: spread.out_ns.median,
            in_ns: spread.in_ns.median,
            spread,
        },
    })
}

impl Report {
    /// In the order of [`WAYS`].
    fn ways(&self) -> impl Iterator<Item = (&'static str, bool, Way)> {
        let ways = [
            self.client_out,
            self.client_in,
            self.service_out,
            self.service_in,
        ];
        let named = WAYS.into_iter().zip(ways);
        named.map(|((_, comes, name), way)| (name, comes, way))
    }
}

impl crate::Report for Report {
    fn goals(&self) -> Vec<Goal> {
        let over = self.ways().map(|(name, _, way)| {
            Goal::at_most(
                format!("a cell at an endpoint, over its bare primitives: {name} (times)"),
                Some(way.over_primitives),
                OVER_PRIMITIVES,
            )
        });
        let allocated = self.ways().map(|(_, _, way)| way.allocations_per_cell);
        let most = Goal::at_most(
            "allocations for a cell at an endpoint",
            allocated.reduce(f64::max),
            0.0,
        );
        over.chain([most]).collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let floor = self.primitives.spread;
        let mut bars: Vec<Bar> = Vec::new();
        for comes in [false, true] {
            let bound = OVER_PRIMITIVES * if comes { floor.in_ns } else { floor.out_ns }.median;
            for (name, _, way) in self.ways().filter(|(_, it, _)| *it == comes) {
                bars.push(Bar::new(name, way.spread.ns).with(Bound::AtMost(bound)));
            }
            bars.extend(match comes {
                false => [
                    Bar::new("bare primitives, out", floor.out_ns),
                    Bar::new("· AES-256-GCM seal, payload", floor.seal_payload_ns),
                    Bar::new("· HCTR2, three layers", floor.layers_ns),
                    Bar::new("· AES-256-GCM seal, datagram", floor.seal_link_ns),
                ],
                true => [
                    Bar::new("bare primitives, in", floor.in_ns),
                    Bar::new("· AES-256-GCM open, datagram", floor.open_link_ns),
                    Bar::new("· HCTR2, three layers", floor.layers_ns),
                    Bar::new("· AES-256-GCM open, payload", floor.open_payload_ns),
                ],
            });
        }
        vec![Plot::Bars(Bars {
            title: "One cell at an endpoint".into(),
            note: "Out: from an IP packet that fills a cell to a sealed datagram. In: from there to the packet. \
                   Below each, the bare primitives on buffers of the same size."
                .into(),
            unit: "ns".into(),
            bars,
        })]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let floor = &self.primitives.spread;
        writeln!(
            f,
            "endpoint: one cell (median, and where 8 of 10 rounds lie)"
        )?;
        for (name, _, way) in self.ways() {
            let WaySpread {
                ns,
                over_primitives,
                mtu_ns,
            } = way.spread;
            writeln!(f, "  {name}")?;
            writeln!(f, "    over bare primitives      {over_primitives:.2}")?;
            writeln!(f, "    a cell                 ns {ns:.0}")?;
            writeln!(f, "    packets of 1500 bytes  ns {mtu_ns:.0}")?;
            let allocations = way.allocations_per_cell;
            writeln!(f, "    allocations               {allocations:.4}")?;
        }
        writeln!(f, "  bare primitives, out     ns {:.0}", floor.out_ns)?;
        let seal = floor.seal_payload_ns;
        writeln!(f, "    AES-256-GCM, payload   ns {seal:.0}")?;
        writeln!(f, "    HCTR2, three layers    ns {:.0}", floor.layers_ns)?;
        writeln!(f, "    AES-256-GCM, datagram  ns {:.0}", floor.seal_link_ns)?;
        writeln!(f, "  bare primitives, in      ns {:.0}", floor.in_ns)?;
        writeln!(f, "    AES-256-GCM, datagram  ns {:.0}", floor.open_link_ns)?;
        writeln!(f, "    HCTR2, three layers    ns {:.0}", floor.layers_ns)?;
        let open = floor.open_payload_ns;
        writeln!(f, "    AES-256-GCM, payload   ns {open:.0}")?;
        writeln!(f, "  instructions                {}", self.cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Report as _;

    fn measured(allocations: usize) -> Report {
        let all: Vec<_> = [
            1100.0, 1200.0, 900.0, 1000.0, 1150.0, 1250.0, 2000.0, 2100.0, 1000.0, 800.0, 0.0,
        ]
        .map(|ns| Samples::from_iter([ns; 3]))
        .into();
        let parts = Parts {
            seal_payload: 150.0,
            layers: 500.0,
            seal_link: 350.0,
            open_link: 100.0,
            open_payload: 50.0,
        };
        let allocated = [0, 0, 0, allocations].map(|allocations| Allocated {
            cells: 100,
            allocations,
        });
        report(&all, &[parts], &allocated).unwrap()
    }

    #[test]
    fn names_in_the_json() {
        let json = serde_json::to_value(measured(50)).unwrap();
        assert_eq!(json["client_out"]["ns"], 1100.0);
        assert_eq!(json["client_out"]["over_primitives"], 1.1);
        assert_eq!(json["client_in"]["mtu_ns"], 1000.0);
        assert_eq!(json["service_in"]["over_primitives"], 2.5);
        assert_eq!(json["service_in"]["allocations_per_cell"], 0.5);
        assert_eq!(json["primitives"]["in_ns"], 800.0);
        assert!(
            measured(50)
                .to_string()
                .contains("allocations               0.5000")
        );
    }

    #[test]
    fn each_way_has_a_goal_and_allocations_have_one() {
        let reached = |report: &Report| -> Vec<_> {
            report
                .goals()
                .iter()
                .map(|goal| goal.reached().unwrap())
                .collect()
        };
        assert_eq!(reached(&measured(0)), [true, true, true, false, true]);
        assert_eq!(reached(&measured(1)), [true, true, true, false, false]);
    }

    #[test]
    fn a_client_and_a_service_send_and_receive() {
        let mut ends = Ends::new();
        for (end, length) in [(End::Client, Length::Cell), (End::Service, Length::Mtu)] {
            let packets = ends.packets(end, length);
            let sent = ends.send(end, &packets).unwrap();
            assert!(sent.cells >= packets.len() && sent.ns > 0.0);
            let came = ends.receive(end.other(), &packets).unwrap();
            assert_eq!(came.cells, sent.cells);
        }
        let mut primitives = Primitives::new();
        primitives.back().unwrap();
        primitives.parts().unwrap();
    }
}

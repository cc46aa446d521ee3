//! What the report draws of the path.

use super::Report;
use crate::Plot;
use crate::measure::Summary;
use crate::outcome::{Axis, Bar, Bars, Lines, Point, Scale, Series};

fn axis(label: &str, scale: Scale) -> Axis {
    Axis {
        label: label.into(),
        scale,
    }
}

impl crate::Report for Report {
    fn plots(&self) -> Vec<Plot> {
        let megabytes = |summary: Summary| summary.map(|rate| rate / 1e6);
        let spread = &self.spread;
        let streams = Bars {
            title: "TCP through six relays".into(),
            note: format!(
                "All relays, client and service on this one machine; port {} ({}).",
                self.port[0], self.port[1]
            ),
            unit: "MB/s".into(),
            bars: vec![
                Bar::new("one stream", megabytes(spread.one_stream_bytes_per_s)),
                Bar::new("eight streams", megabytes(spread.eight_streams_bytes_per_s)),
            ],
        };
        let trips = [
            ("idle", &self.rtt_idle_us),
            ("beside a TCP stream", &self.rtt_loaded_us),
        ];
        let trips = Lines {
            title: "Round trips".into(),
            note: "UDP probes at a fixed pace, counted from when each was due to leave.".into(),
            x: axis("share of the probes", Scale::Nines),
            y: axis("ms", Scale::Logarithmic),
            series: trips
                .into_iter()
                .map(|(label, took)| Series {
                    label: label.into(),
                    points: took
                        .quantiles
                        .iter()
                        .map(|(share, micros)| Point {
                            x: *share,
                            y: (*micros).max(1) as f64 / 1e3,
                            spread: None,
                        })
                        .collect(),
                })
                .collect(),
            bounds: Vec::new(),
        };
        let loss = Lines {
            title: "UDP loss against rate".into(),
            note: String::new(),
            x: axis("sent, MB/s", Scale::Logarithmic),
            y: axis("lost, %", Scale::Linear),
            series: vec![Series {
                label: "client to service".into(),
                points: self
                    .udp_loss
                    .iter()
                    .map(|loss| Point {
                        x: loss.rate_bytes_per_s / 1e6,
                        y: 100.0 * loss.lost_share,
                        spread: Some((100.0 * loss.spread.low, 100.0 * loss.spread.high)),
                    })
                    .collect(),
            }],
            bounds: Vec::new(),
        };
        let mut relays: Vec<_> = self.relays.iter().collect();
        relays.sort_by(|a, b| b.cpu_s.total_cmp(&a.cpu_s));
        let relays = Bars {
            title: "Processor time of the relays while the TCP streams ran".into(),
            note: format!("{:.2} GB were delivered.", self.delivered_gb),
            unit: "s".into(),
            bars: relays
                .into_iter()
                .map(|relay| Bar::new(&relay.name, Summary::of(relay.cpu_s)))
                .collect(),
        };
        let beside_tor = self.tor.as_ref().map(|tor| {
            Plot::Bars(Bars {
                title: "One download, by way of Mixline and of Tor".into(),
                note: format!(
                    "{:.0} MB in turns, six relays each, both networks on this machine.",
                    tor.download_bytes as f64 / 1e6
                ),
                unit: "MB/s".into(),
                bars: vec![
                    Bar::new("Mixline", megabytes(tor.mixline_bytes_per_s)),
                    Bar::new(&tor.version, megabytes(tor.tor_bytes_per_s)),
                ],
            })
        });
        let mut plots = vec![
            Plot::Bars(streams),
            Plot::Lines(trips),
            Plot::Lines(loss),
            Plot::Bars(relays),
        ];
        plots.extend(beside_tor);
        plots
    }
}

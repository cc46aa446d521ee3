//! The same files from the same kind of web server, by way of Mixline and of Tor, in turns.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::configs::SERVICE_NAME;
use mixline_testnet::fetch::{Fetched, fetch};
use mixline_testnet::topology::Node;
use mixline_testnet::web::{DOWNLOAD_NAME, Site};
use mixline_testnet::{Network, interrupted};
use serde::Serialize;

use super::TorNetwork;
use crate::measure::{Samples, Summary};

/// How long one download may take, in seconds.
const DOWNLOAD_SECONDS: &str = "180";

/// How much is compared.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many rounds; one before them does not count.
    pub rounds: usize,
    /// What is fetched in each.
    pub sizes: Sizes,
}

/// What is fetched in a round.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Bytes of the large file.
    pub download: u64,
    /// How often the page is fetched.
    pub pages: usize,
}

/// What was compared.
#[derive(Debug, Clone, Serialize)]
pub struct OverTor {
    /// Which Tor.
    pub version: String,
    /// From the start of Tor's network to the first page, in seconds.
    pub up_after_s: f64,
    /// Bytes of a download.
    pub download_bytes: u64,
    /// Mixline's rate of a download, in bytes a second, from the request to the last byte.
    pub mixline_bytes_per_s: Summary,
    /// Tor's.
    pub tor_bytes_per_s: Summary,
    /// The first over the second, round by round.
    pub over_tor: Summary,
    /// From the request of a page to its first byte, on paths that are in use: Mixline's, in ms.
    pub mixline_first_byte_ms: Summary,
    /// Tor's.
    pub tor_first_byte_ms: Summary,
}

/// One network's figures.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    first_bytes: Vec<f64>,
}

/// Fetches in rounds, each time the other network first. An error of Tor's is given as a reason.
pub fn run(mixline: &Network, tor: &TorNetwork, plan: &Plan) -> Result<Result<OverTor, String>> {
    let site = mixline.site()?;
    let to = mixline.directory().join("fetched");
    let through_mixline = |name: &str, options: &[&str]| {
        let url = format!("http://{SERVICE_NAME}.anon/{name}");
        Ok(fetch(&Node::Client.namespace(), &url, &to, options)?)
    };
    let through_tor = |name: &str, options: &[&str]| tor.fetch(name, &to, options);
    let mut all = [Figures::default(), Figures::default()];
    for round in 0..=plan.rounds {
        eprintln!("path: beside Tor, round {round} of {}", plan.rounds);
        let mut fetched = [Figures::default(), Figures::default()];
        for turn in [round % 2, (round + 1) % 2] {
            let once = |name: &str, options: &[&str]| match turn {
                0 => through_mixline(name, options),
                _ => through_tor(name, options),
            };
            match one_turn(site, &to, plan.sizes, once) {
                Ok(figures) => fetched[turn] = figures,
                Err(_) if interrupted() => bail!("interrupted"),
                Err(error) if turn == 0 => return Err(error.context("by way of Mixline")),
                Err(error) => return Ok(Err(format!("by way of Tor: {error:#}"))),
            }
        }
        // Of the first round only the paths remain.
        if round > 0 {
            for (all, fetched) in all.iter_mut().zip(fetched) {
                all.rates.extend(fetched.rates);
                all.first_bytes.extend(fetched.first_bytes);
            }
        }
    }
    Ok(Ok(report(tor, plan.sizes.download, &all)))
}

fn one_turn(
    site: &Site,
    to: &Path,
    sizes: Sizes,
    once: impl Fn(&str, &[&str]) -> Result<Fetched>,
) -> Result<Figures> {
    let mut figures = Figures::default();
    let options = ["--max-time", DOWNLOAD_SECONDS];
    for _ in 0..sizes.pages {
        let fetched = once("", &options)?;
        ensure!(
            same(
                &site.directory.join("index.html"),
                to,
                fetched.size_download
            )?,
            "another page"
        );
        figures.first_bytes.push(1e3 * fetched.time_starttransfer);
    }
    let range = format!("0-{}", sizes.download - 1);
    let fetched = once(DOWNLOAD_NAME, &["--range", &range, options[0], options[1]])?;
    ensure!(
        fetched.size_download == sizes.download
            && same(&site.directory.join(DOWNLOAD_NAME), to, sizes.download)?,
        "the download is not what was sent"
    );
    figures.rates.push(fetched.bytes_per_s());
    Ok(figures)
}

/// Whether two files have the same first bytes.
fn same(one: &Path, other: &Path, bytes: u64) -> Result<bool> {
    let first = |path: &Path| -> Result<Vec<u8>> {
        let mut read = Vec::new();
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        file.take(bytes).read_to_end(&mut read)?;
        Ok(read)
    };
    let (one, other) = (first(one)?, first(other)?);
    Ok(one == other && one.len() as u64 == bytes)
}

fn report(tor: &TorNetwork, download_bytes: u64, all: &[Figures; 2]) -> OverTor {
    let samples = |of: &[f64]| of.iter().copied().collect::<Samples>();
    let [mixline, onion] = all;
    let (ours, theirs) = (samples(&mixline.rates), samples(&onion.rates));
    OverTor {
        version: tor.version.clone(),
        up_after_s: tor.took_s,
        download_bytes,
        mixline_bytes_per_s: ours.summary(),
        tor_bytes_per_s: theirs.summary(),
        over_tor: ours.over(&theirs).summary(),
        mixline_first_byte_ms: samples(&mixline.first_bytes).summary(),
        tor_first_byte_ms: samples(&onion.first_bytes).summary(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compared_by_their_first_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        std::fs::write(&one, "abcdef").unwrap();
        std::fs::write(&other, "abcd").unwrap();
        assert!(same(&one, &other, 4).unwrap());
        assert!(!same(&one, &other, 5).unwrap());
        std::fs::write(&other, "abxd").unwrap();
        assert!(!same(&one, &other, 4).unwrap());
        assert!(same(&one, &directory.path().join("none"), 4).is_err());
    }
}

//! For whoever changes the rules of rebuilding: how long connections stand still while relays, the directory or
//! the client's own line come and go, over many seeds of the network in memory.
//!
//! `cargo run --release --example stalls -p mixline-endpoint-engine --features testing -- 1-30 kill`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a tool for developers"
)]

use std::process::ExitCode;

use downloads::Download;

#[path = "../tests/downloads/mod.rs"]
mod downloads;

/// What may happen to a connection.
type Scenario = fn(u64) -> Download;

const USAGE: &str = "usage: stalls [FROM-TO [SCENARIO]]";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seeds = arguments.next().unwrap_or_else(|| "1-20".to_owned());
    let only = arguments.next();
    let range = seeds
        .split_once('-')
        .and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let Some((from, to)) = range.filter(|(from, to): &(u64, u64)| from <= to) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let scenarios: [(&str, Scenario); 9] = [
        ("kill", |seed| {
            let mut it = Download::connected(seed);
            it.kill_in_turn(32, &[]);
            it
        }),
        ("stop", |seed| {
            let mut it = Download::connected(seed);
            it.stop_in_turn(32, &[]);
            it
        }),
        ("directory", |seed| {
            let mut it = Download::connected(seed);
            it.restart_the_directory(10);
            it
        }),
        ("roam", |seed| {
            let mut it = Download::connected(seed);
            it.roam(32);
            it
        }),
        ("unplug", |seed| {
            let mut it = Download::connected(seed);
            it.unplug();
            it
        }),
        ("swallow", |seed| {
            let (mut it, evil) = Download::with_swallowers(seed);
            it.kill_in_turn(32, &evil);
            it
        }),
        ("swallow-stop", |seed| {
            let (mut it, evil) = Download::with_swallowers(seed);
            it.stop_in_turn(32, &evil);
            it
        }),
        ("swallow-directory", |seed| {
            let (mut it, evil) = Download::with_swallowers_at_the_directory(seed);
            it.kill_in_turn(32, &evil);
            it
        }),
        ("swallow-directory-stop", |seed| {
            let (mut it, evil) = Download::with_swallowers_at_the_directory(seed);
            it.stop_in_turn(32, &evil);
            it
        }),
    ];
    if let Some(only) = &only
        && !scenarios.iter().any(|(name, _)| name == only)
    {
        let names: Vec<&str> = scenarios.iter().map(|(name, _)| *name).collect();
        eprintln!("{USAGE}\nscenarios: {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    for (name, scenario) in scenarios {
        if only.as_ref().is_none_or(|only| only == name) {
            judge(name, scenario, from..=to);
        }
    }
    ExitCode::SUCCESS
}

fn judge(name: &str, scenario: Scenario, seeds: std::ops::RangeInclusive<u64>) {
    let mut all = Vec::new();
    for seed in seeds {
        let it = scenario(seed);
        let longest = it.longest().as_secs_f64();
        all.push(longest);
        let (up, resets) = (it.given_up(), it.resets);
        println!("{name} seed {seed}: {longest:.2} s, given up {up:?}, resets {resets}");
    }
    all.sort_by(f64::total_cmp);
    let late = all.iter().filter(|longest| **longest > 4.0).count();
    let (median, most) = (all[all.len() / 2], all[all.len() - 1]);
    println!("{name}: median {median:.2} s, most {most:.2} s, {late} later than 4 s");
}

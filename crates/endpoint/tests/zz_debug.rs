#![allow(clippy::unwrap_used, missing_docs)]
mod world;
use std::time::Duration;
use world::relay::Malice;
use world::*;
const MILLISECOND: Duration = Duration::from_millis(1);
fn stream(world: &mut World, from: usize, to: usize, time: Duration) -> Vec<bool> {
    let (source, destination) = (world.ipv4(from), world.ipv4(to));
    world.take(to);
    let count = u16::try_from(time.as_millis() / 20).unwrap();
    for number in 0..count {
        let packet = udp(source, destination, (7, 7), &number.to_be_bytes());
        world.send(from, &[packet]);
        world.run(20 * MILLISECOND);
    }
    world.run(500 * MILLISECOND);
    let mut arrived = vec![false; count.into()];
    for packet in world.take(to) {
        let number = usize::from(u16::from_be_bytes([packet[28], packet[29]]));
        arrived[number] = true;
    }
    arrived
}
fn longest_gap(arrived: &[bool]) -> Duration {
    let longest = arrived
        .split(|arrived| *arrived)
        .map(<[bool]>::len)
        .max()
        .unwrap_or(0);
    20 * MILLISECOND * u32::try_from(longest).unwrap()
}
#[test]
fn debug() {
    let seeds = std::env::var("SEEDS").unwrap();
    let (a, b) = seeds.split_once('-').unwrap();
    let mut gaps = Vec::new();
    for seed in a.parse::<u64>().unwrap()..b.parse().unwrap() {
        for relay in 0..8 {
            let mut world = World::connected(100 + seed);
            stream(&mut world, 2, 1, Duration::from_secs(2));
            world.relays[relay].malice = Malice::Dead;
            let guard = |w: &World, n: usize| {
                w.status(n)
                    .guards
                    .iter()
                    .any(|g| g.name == w.relays[relay].name)
            };
            let g = (guard(&world, 2), guard(&world, 1));
            let arrived = stream(&mut world, 2, 1, Duration::from_secs(12));
            let gap = longest_gap(&arrived);
            let back = stream(&mut world, 1, 2, Duration::from_secs(2));
            let closed = world.nodes[2]
                .events
                .iter()
                .filter(|e| matches!(e, mixline_endpoint::Event::SessionClosed(..)))
                .count();
            if gap > Duration::from_millis(1500) {
                eprintln!(
                    "seed {seed} relay{} gap {gap:?} client-guard {} service-guard {} back {} closed {closed} lost {}",
                    relay + 1,
                    g.0,
                    g.1,
                    longest_gap(&back).as_millis(),
                    world.status(2).counters.paths_lost
                );
            }
            gaps.push(gap.as_millis());
        }
    }
    gaps.sort();
    eprintln!("{gaps:?}");
}

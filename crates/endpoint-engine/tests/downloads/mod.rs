//! A connection that goes on while something restarts, and how long it stood still.
#![allow(dead_code, reason = "each test uses some of it")]

use std::time::Duration;

use mixline_endpoint_engine::command::Command;
use mixline_endpoint_engine::status::Event;
use mixline_endpoint_engine::testing::relay::Malice;
use mixline_endpoint_engine::testing::*;
use mixline_protocol::identity::ShortId;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MILLISECOND: Duration = Duration::from_millis(1);
const STEP: Duration = Duration::from_millis(20);
const ACK: u8 = 0x10;

/// A download by node 2 from node 1, a segment each step both ways, while something happens.
pub struct Download {
    pub world: World,
    steps: u32,
    /// When something arrived last, at the service and at the client.
    last: [u32; 2],
    longest: [Duration; 2],
    pub resets: usize,
}

impl Download {
    pub fn new(mut world: World) -> Self {
        world.take(1);
        world.take(2);
        Self {
            world,
            steps: 0,
            last: [0; 2],
            longest: [Duration::ZERO; 2],
            resets: 0,
        }
    }

    /// Between eight relays, with all paths proven.
    pub fn connected(seed: u64) -> Self {
        let mut it = Self::new(World::connected(seed));
        it.run(2 * SECOND);
        it
    }

    /// Among sixteen relays, two of the four that stand next to the client's guards, as numbers. They are no
    /// guards, and not next to the service's.
    pub fn beside(seed: u64) -> (Self, Vec<usize>) {
        let mut worlds = (0..).map(|more| Self::among_sixteen(seed + 1000 * more));
        let both = worlds.find_map(|(world, beside, _)| {
            let both = beside.get(..2)?.to_vec();
            Some((world, both))
        });
        let (world, both) = both.unwrap();
        (Self::new(world), both)
    }

    /// The same, where these two swallow all cells, and answer their neighbours.
    pub fn with_swallowers(seed: u64) -> (Self, Vec<usize>) {
        Self::swallowing(Self::beside(seed))
    }

    /// The same, where one of the two is a guard of the directory.
    pub fn with_swallowers_at_the_directory(seed: u64) -> (Self, Vec<usize>) {
        let mut worlds = (0..).map(|more| Self::among_sixteen(seed + 1000 * more));
        let both = worlds.find_map(|(world, beside, guards)| {
            let both = vec![*guards.first()?, *beside.first()?];
            Some((world, both))
        });
        let (world, both) = both.unwrap();
        Self::swallowing((Self::new(world), both))
    }

    fn swallowing((mut it, evil): (Self, Vec<usize>)) -> (Self, Vec<usize>) {
        for relay in &evil {
            it.world.relays[*relay].malice = Malice::Swallow;
        }
        it.run(20 * SECOND);
        (it, evil)
    }

    /// The relays next to the client's guards that are not next to the service's, and guards of neither: those
    /// that are no guards of the directory, and those that are.
    fn among_sixteen(seed: u64) -> (World, Vec<usize>, Vec<usize>) {
        let mut world = World::settled(16, seed);
        world.service();
        world.client(|_| {});
        world.run(5 * SECOND);
        let (client, service) = (world.ipv4(2), world.ipv4(1));
        world.send(2, &[udp(client, service, (1, 1), b"hello")]);
        world.run(5 * SECOND);
        let is_guard = |nodes: &[usize], relay: &usize| {
            let mut guards = nodes.iter().flat_map(|node| world.status(*node).guards);
            guards.any(|guard| guard.name == world.relays[*relay].name)
        };
        let mut members: Vec<ShortId> = world.next_to_guards[&2].iter().copied().collect();
        members.sort();
        let beside = members
            .into_iter()
            .filter(|member| !world.next_to_guards[&1].contains(member))
            .filter_map(|member| world.relays.iter().position(|it| it.short == member))
            .filter(|relay| !is_guard(&[1, 2], relay));
        let (guards, others) = beside.partition(|relay| is_guard(&[0], relay));
        (world, others, guards)
    }

    pub fn step(&mut self) {
        let world = &mut self.world;
        let (client, service) = (world.ipv4(2), world.ipv4(1));
        let n = self.steps;
        world.send(1, &[tcp(service, client, (80, 5000), ACK, n, n)]);
        world.send(2, &[tcp(client, service, (5000, 80), ACK, n, n)]);
        world.run(STEP);
        self.steps += 1;
        for (side, node) in [1, 2].into_iter().enumerate() {
            let packets = self.world.take(node);
            let of_tcp = packets.iter().filter(|it| it[9] == 6);
            let (resets, data): (Vec<_>, Vec<_>) = of_tcp.partition(|it| it[33] & 0x04 != 0);
            self.resets += resets.len();
            if !data.is_empty() {
                self.last[side] = self.steps;
            }
            let gap = STEP * (self.steps - self.last[side]);
            self.longest[side] = self.longest[side].max(gap);
        }
    }

    pub fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.step();
        }
    }

    /// What was before does not count.
    pub fn forget(&mut self) {
        self.longest = [Duration::ZERO; 2];
        self.last = [self.steps; 2];
    }

    /// How long either side has waited at most.
    pub fn longest(&self) -> Duration {
        self.longest[0].max(self.longest[1])
    }

    /// Who has ended the session.
    pub fn given_up(&self) -> Option<usize> {
        [1, 2].into_iter().find(|node| {
            let peer = self.world.nodes[3 - node].id;
            let gave_up =
                |event: &Event| matches!(event, Event::SessionClosed(id, _) if *id == peer);
            self.world.nodes[*node].events.iter().any(gave_up)
        })
    }

    /// Whether both have their session still, nothing was reset, and nobody has waited for longer than
    /// `most`.
    pub fn check(&self, name: &str, most: Duration) {
        assert_eq!(self.given_up(), None, "{name}: somebody has given up");
        assert_eq!(self.resets, 0, "{name}");
        let longest = self.longest();
        assert!(longest <= most, "{name}: a stall of {longest:?}");
    }

    /// Two snapshots of how things are, as the directory signs them while something changes: it hears of a
    /// relay at once, and its own tails are in the next one.
    fn publish_twice(&mut self, every: Duration) {
        for _ in 0..2 {
            self.run(every);
            self.world.publish_snapshot();
        }
    }

    /// Each relay is killed, and starts again with other onion keys: one every two and a half seconds.
    pub fn kill_in_turn(&mut self, turns: usize, but: &[usize]) {
        for turn in 0..turns {
            let relay = turn % self.world.relays.len();
            let killed = !but.contains(&relay);
            if killed {
                self.world.relays[relay].malice = Malice::Dead;
            }
            self.run(400 * MILLISECOND);
            if killed {
                self.world.restart(relay);
            }
            self.publish_twice(1050 * MILLISECOND);
        }
    }

    /// Each relay stops in order, and starts again with the same onion keys: one every three seconds.
    pub fn stop_in_turn(&mut self, turns: usize, but: &[usize]) {
        for turn in 0..turns {
            let relay = turn % self.world.relays.len();
            let stops = !but.contains(&relay);
            if stops {
                self.world.relays[relay].malice = Malice::Dead;
            }
            self.run(SECOND);
            if stops {
                self.world.restart_in_order(relay);
            }
            self.publish_twice(SECOND);
        }
    }

    /// The directory is killed and starts again, so many times.
    pub fn restart_the_directory(&mut self, times: usize) {
        for _ in 0..times {
            self.world.nodes[0].dead = true;
            self.run(2 * SECOND);
            self.world.restart_node(0);
            self.publish_twice(2 * SECOND);
            self.run(2 * SECOND);
        }
    }

    /// The client's address changes every three seconds, so many times; it is told of every other change
    /// only, as behind a router that gets another one.
    pub fn roam(&mut self, times: u8) {
        for time in 0..times {
            let address = &mut self.world.nodes[2].address;
            address.set_ip([198, 51, 100, time].into());
            address.set_port(40_000 + u16::from(time));
            if time % 2 == 0 {
                self.world.command(2, Command::HostChanged);
            }
            self.run(3 * SECOND);
        }
    }

    /// A minute without a line of its own; what comes after counts.
    pub fn unplug(&mut self) {
        self.world.nodes[2].unplugged = true;
        self.run(60 * SECOND);
        self.world.publish_snapshot_to(&[0, 1]);
        self.world.nodes[2].unplugged = false;
        // The service cannot look for the client: it has given the session up, and remembers the connection.
        self.world.nodes[1].events.clear();
        self.forget();
        self.run(20 * SECOND);
    }
}

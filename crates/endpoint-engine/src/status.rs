//! What an endpoint tells about itself.
//!
//! Meant for the person at the machine: it names peers and relays, so it is shown on the local
//! control socket and never logged or sent.

use serde::Serialize;

/// The state of an endpoint, all of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// The own anonymous ID.
    pub id: String,
    /// The leased virtual IPv4 address.
    pub ipv4: Option<String>,
    /// The virtual IPv6 address.
    pub ipv6: String,
    /// Whether peers and the directory can be reached.
    pub online: bool,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// What is wrong at the moment, one line each, for a person.
    pub problems: Vec<String>,
    /// The network as the snapshot shows it.
    pub network: NetworkStatus,
    /// The guards, the temporary ones last.
    pub guards: Vec<GuardStatus>,
    /// The relays that are kept for the places next to the guards.
    pub layers: Vec<LayerStatus>,
    /// Relays that were not used before.
    pub budget: BudgetStatus,
    /// What strangers are to spend.
    pub effort: EffortStatus,
    /// Own tails.
    pub tails: TailStatus,
    /// Sessions with peers; the directory's among them.
    pub sessions: Vec<SessionStatus>,
    /// Questions to the directory.
    pub directory: DirectoryStatus,
    /// Totals since the start.
    pub counters: Counters,
}

/// The network in the current snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NetworkStatus {
    /// Relays in the snapshot.
    pub relays: usize,
    /// When it was signed, unix seconds; 0 without a snapshot.
    pub issued: u64,
    /// Until when it is valid, unix seconds.
    pub valid_until: u64,
    /// Which paths cannot be built, and what is missing.
    pub shortage: Option<String>,
}

/// One guard.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GuardStatus {
    /// The relay's name.
    pub name: String,
    /// Its short ID.
    pub relay: String,
    /// Chosen for a while only, because others are down.
    pub temporary: bool,
    /// `up`, `connecting`, `down`, or `not in the snapshot`.
    pub state: String,
    /// Round trip to it, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Mailboxes registered there.
    pub mailboxes: usize,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// The largest IP packet that gets to it, bytes, if that is too small for datagrams.
    pub mtu_out: Option<u16>,
    /// The largest IP packet that comes back from it, bytes, if that is too small for datagrams.
    pub mtu_in: Option<u16>,
}

/// The relays that are kept for one place behind the guards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LayerStatus {
    /// `second`: next to the guards; `third`: the place behind, where a service has one.
    pub layer: String,
    /// The regular ones first.
    pub relays: Vec<KeptRelayStatus>,
}

/// A relay that is kept for a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KeptRelayStatus {
    /// The relay's name.
    pub name: String,
    /// Its short ID.
    pub relay: String,
    /// Until when it is kept, unix seconds.
    pub until: u64,
    /// It helps out where others are not listed, or go with no guard.
    pub substitute: bool,
    /// Whether it is in the snapshot.
    pub listed: bool,
}

/// How many relays that were not used before heads and tails may still take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BudgetStatus {
    /// Heads and tails with such relays, now.
    pub left: u32,
    /// At once.
    pub most: u32,
    /// In an hour.
    pub per_hour: u32,
    /// Peers that have used up their own share; their heads go over relays that they know.
    pub peers_used_up: usize,
}

/// What strangers are to spend on public-key work that they ask for, and who of them waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EffortStatus {
    /// The effort that is likely to be enough at present, hashes; 0 in quiet times.
    pub suggested: u32,
    /// The one in the own descriptor.
    pub published: u32,
    /// Initiations that wait.
    pub waiting: usize,
}

/// Own tails by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TailStatus {
    /// In the own descriptor.
    pub public: usize,
    /// Known to one peer each.
    pub private: usize,
    /// Registered, and waiting for a peer.
    pub spare: usize,
    /// Waiting for their guard's answer.
    pub registering: usize,
}

/// One session.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SessionStatus {
    /// The peer's ID.
    pub peer: String,
    /// The peer's leased IPv4 address.
    pub ipv4: Option<String>,
    /// The peer's IPv6 address.
    pub ipv6: String,
    /// `looking up`, `connecting`, `established`, or `unreachable`.
    pub state: String,
    /// Under which of the own IDs: `own`, `asking` or `publishing` (throw-away ones).
    pub local: String,
    /// Whether this side opened it.
    pub initiated: bool,
    /// Seconds since the handshake.
    pub age_s: u64,
    /// Seconds since the last packet or message.
    pub idle_s: u64,
    /// Paths to the peer.
    pub paths: Vec<PathStatus>,
    /// Cells, packets and bytes.
    pub traffic: Traffic,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// One path to a peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PathStatus {
    /// The relays that this side chose, by name, the guard first.
    pub head: Vec<String>,
    /// The first relay of the peer's tail, by name: the junction's successor. What follows is
    /// the peer's secret.
    pub tail: String,
    /// `alive`, `unproven`, or `suspect`.
    pub state: String,
    /// Round trip over this path and back, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Cells sent over it.
    pub cells: u64,
}

/// How long questions over one way took, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct RoundTrip {
    /// The shortest.
    pub min_ms: f64,
    /// The mean.
    pub average_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl RoundTrip {
    /// Of these round trips; `None` of none.
    #[must_use]
    pub fn of(trips: impl IntoIterator<Item = std::time::Duration>) -> Option<Self> {
        let mut trips: Vec<f64> = trips.into_iter().map(milliseconds).collect();
        trips.sort_by(f64::total_cmp);
        let (min, max) = (*trips.first()?, *trips.last()?);
        let sum: f64 = trips.iter().sum();
        let count = u32::try_from(trips.len()).map_or(f64::INFINITY, f64::from);
        Some(Self {
            min_ms: min,
            average_ms: (sum / count * 1e3).round() / 1e3,
            max_ms: max,
        })
    }
}

/// What [`Question::Ping`](crate::command::Question::Ping) has measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PingReport {
    /// The peer's ID.
    pub peer: String,
    /// The peer's leased IPv4 address.
    pub ipv4: Option<String>,
    /// The peer's IPv6 address.
    pub ipv6: String,
    /// Whether there was no session before: the first answer then took a handshake.
    pub opened: bool,
    /// Milliseconds until there was a session, if there was none before.
    pub opened_ms: Option<f64>,
    /// Each path that was asked over, in the order in which they came to be.
    pub paths: Vec<PathPing>,
}

/// Round trip and loss over one path.
///
/// The peer answers over several of its own paths at once, so a lost question is the path's loss,
/// and a round trip is the way there and the fastest way back.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PathPing {
    /// The relays that this side chose, by name, the guard first.
    pub head: Vec<String>,
    /// The first relay of the peer's tail, by name.
    pub tail: String,
    /// Questions sent over it.
    pub sent: u32,
    /// Of these, answered.
    pub answered: u32,
    /// Round trips of those that were answered; none if none was.
    pub rtt_ms: Option<RoundTrip>,
    /// The round trip of each question in order, milliseconds; `None` if it was lost.
    pub replies: Vec<Option<f64>>,
}

/// A time in milliseconds, to the microsecond.
#[must_use]
pub fn milliseconds(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// What went over a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Packets and messages to the peer.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets and messages from the peer.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
}

/// Questions to the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DirectoryStatus {
    /// Questions that wait for their answers.
    pub pending: usize,
    /// When the own descriptor was last accepted, unix seconds; 0 if never.
    pub published: u64,
    /// Why the last question failed, if it did.
    pub last_error: Option<String>,
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Datagrams handed to the sockets.
    pub datagrams_out: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Cells to peers.
    pub cells_out: u64,
    /// Cells that opened.
    pub cells_in: u64,
    /// Packets to the device.
    pub packets_in: u64,
    /// Packets from the device that went out.
    pub packets_out: u64,
    /// Datagrams that did not authenticate, or belong to no link.
    pub bad_datagrams: u64,
    /// Link datagrams seen before.
    pub link_replays: u64,
    /// Cells for a mailbox that is not ours, or no longer.
    pub unknown_mailbox: u64,
    /// Cells that did not open under their session's keys.
    pub bad_cells: u64,
    /// Duplicates: sent on purpose, or replayed.
    pub duplicates: u64,
    /// Packets from peers that carried an address that is not the peer's, or not ours.
    pub spoofed: u64,
    /// Packets from the device that no peer takes: multicast, broadcast, foreign addresses.
    pub unroutable: u64,
    /// Packets answered by an ICMP error.
    pub unreachable: u64,
    /// Packets dropped because a bounded queue was full.
    pub overflow: u64,
    /// Handshakes of peers that were refused.
    pub refused_initiations: u64,
    /// Of these, those that did not show the effort that they claimed, or were made for none of the own seeds.
    pub unsolved_initiations: u64,
    /// Of these, those that gave way to others on which more effort was spent, or waited too long.
    pub outranked_initiations: u64,
    /// Initiations that no client of the list has made.
    pub unauthorised_initiations: u64,
    /// Packets of no client of the list that answer nothing of this host's.
    pub unauthorised_packets: u64,
    /// Paths that died and were replaced.
    pub paths_lost: u64,
}

/// Something happened that somebody may wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Peers and the directory can be reached from now on.
    Online,
    /// They cannot any more, and why.
    Offline(String),
    /// The directory holds the current descriptor.
    Published,
    /// The directory could not be told; it is tried again.
    PublishFailed(String),
    /// A session is established.
    SessionOpened(mixline_protocol::identity::AnonymousId),
    /// A session has ended, and why.
    SessionClosed(mixline_protocol::identity::AnonymousId, String),
}

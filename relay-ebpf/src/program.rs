//! The program's entry and its maps.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, xdp_action},
    helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_meta},
    macros::{map, xdp},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, XskMap},
    programs::XdpContext,
};
use aya_log_ebpf::warn;
use mixline_relay_common::bucket::{Bucket, Limit};
use mixline_relay_common::frame::{self, Extent, Message};
use mixline_relay_common::maps::{
    Address, HANDSHAKES, MAX_ADDRESSES, MAX_ASKED, MAX_NETWORKS, MAX_PROBERS, MAX_QUEUES,
    MAX_SESSIONS, MAX_SOURCES, MAX_UNREAD, MODE_FILTER, PROBES, Settings, UNREAD as ALL_UNREAD,
    networks,
};
use mixline_relay_common::stamp::{STAMP_LENGTH, Stamp, stamp};
use mixline_relay_common::tag_filter::{Block, Position};
use mixline_relay_common::verdict::{Verdict, counter};

use crate::packet::Packet;

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static ADDRESSES: HashMap<Address, u8> = HashMap::with_max_entries(MAX_ADDRESSES, 0);
#[map]
static SESSIONS: HashMap<u32, u8> = HashMap::with_max_entries(MAX_SESSIONS, 0);
/// Two generations of blocks; user space sets the number before it loads the program.
#[map]
static REPLAY: Array<Block> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
static SOURCES: LruHashMap<Address, Bucket> = LruHashMap::with_max_entries(MAX_SOURCES, 0);
#[map]
static PROBERS: LruHashMap<Address, Bucket> = LruHashMap::with_max_entries(MAX_PROBERS, 0);
/// What networks of sources of handshakes have, narrow and wide ones.
#[map]
static NETWORKS: LruHashMap<Address, Bucket> = LruHashMap::with_max_entries(MAX_NETWORKS, 0);
/// The same of path probes.
#[map]
static PROBING: LruHashMap<Address, Bucket> = LruHashMap::with_max_entries(MAX_NETWORKS, 0);
/// Our own handshakes in flight, and how many answers each may get.
#[map]
static ASKED: HashMap<u32, Bucket> = HashMap::with_max_entries(MAX_ASKED, 0);
#[map]
static UNREAD: LruHashMap<Address, Bucket> = LruHashMap::with_max_entries(MAX_UNREAD, 0);
#[map]
static TOTALS: Array<Bucket> = Array::with_max_entries(3, 0);
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);

/// Not zero: frames to AF_XDP sockets get a time stamp. User space says so before it loads the program; if not, the
/// verifier takes the code for it out.
#[unsafe(no_mangle)]
static STAMPS: Global<u32> = Global::new(0);

/// Counts the verdict and turns it into the action.
#[xdp]
pub fn mixline(ctx: XdpContext) -> u32 {
    let verdict = judge(&ctx);
    // SAFETY: the context is the one that the kernel called this program with.
    let queue = unsafe { (*ctx.ctx).rx_queue_index };
    let before = match verdict {
        Verdict::Redirected => count(counter::redirected(queue)),
        _ => count(verdict as u32),
    };
    if before == 0 && verdict.is_strange() {
        report(&ctx, verdict);
    }
    if matches!(verdict, Verdict::NotOurs) {
        note_others(&Packet(&ctx));
    }
    if verdict.drops() {
        return xdp_action::XDP_DROP;
    }
    if matches!(verdict, Verdict::Redirected) {
        if STAMPS.load() != 0 {
            put_stamp(&ctx);
        }
        return SOCKETS
            .redirect(queue, u64::from(xdp_action::XDP_PASS))
            .unwrap_or_else(|e| e);
    }
    xdp_action::XDP_PASS
}

/// Adds one to a counter; gives what it was before.
#[inline(always)]
fn count(counter: u32) -> u64 {
    let Some(counter) = VERDICTS.get_ptr_mut(counter) else {
        return 1;
    };
    // SAFETY: the pointer is to this CPU's own counter, and no other program of this CPU
    // interrupts an XDP program to write it.
    let before = unsafe { counter.read() };
    // SAFETY: as above.
    unsafe { counter.write(before + 1) };
    before
}

/// Puts a time stamp in front of the frame. Without one if the driver leaves no room for it.
#[inline(always)]
fn put_stamp(ctx: &XdpContext) {
    // SAFETY: the context is the one that the kernel called this program with. What the parser has read of the frame is
    // not used after this.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -(STAMP_LENGTH as i32)) } != 0 {
        return;
    }
    let front = ctx.metadata();
    if front + STAMP_LENGTH > ctx.metadata_end() {
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: by the check above the bytes lie between the start of the metadata and the frame, where nobody else writes
    // while the program runs.
    unsafe { (front as *mut Stamp).write_unaligned(stamp(now)) };
}

/// Counts what the kernel gets of other traffic, so that the relay sees whether it arrives whole.
#[inline(always)]
fn note_others(packet: &Packet<'_>) {
    let extent = frame::extent(packet);
    if matches!(extent, Extent::Large) {
        count(counter::LARGE);
    }
    // What is for others on this cable may be anything.
    let Some(destination) = frame::destination(packet) else {
        return;
    };
    if !is_known(&ADDRESSES, &destination.address) {
        return;
    }
    if matches!(extent, Extent::Cut) {
        count(counter::CUT);
    }
    // The kernel does not take frames of a VLAN that it has no interface for.
    if !destination.tagged {
        count(counter::TO_US);
    }
}

/// Logs what should not be: once for each CPU, so that nobody outside can make it a flood.
#[cold]
#[inline(never)]
fn report(ctx: &XdpContext, verdict: Verdict) {
    // SAFETY: the context is the one that the kernel called this program with.
    let (interface, queue) = unsafe { ((*ctx.ctx).ingress_ifindex, (*ctx.ctx).rx_queue_index) };
    match verdict {
        Verdict::NoSocket => warn!(
            ctx,
            "queue {} of interface {} has no AF_XDP socket: its datagrams take the kernel's",
            queue,
            interface
        ),
        Verdict::Cut => warn!(
            ctx,
            "queue {} of interface {} cuts frames: its receive buffers are too small",
            queue,
            interface
        ),
        _ => warn!(
            ctx,
            "queue {} of interface {} merges datagrams: switch its GRO and LRO off",
            queue,
            interface
        ),
    }
}

#[inline(always)]
fn judge(ctx: &XdpContext) -> Verdict {
    let packet = Packet(ctx);
    let Some(settings) = SETTINGS.get(0) else {
        return Verdict::NotOurs;
    };
    let Some(udp) = frame::udp(&packet) else {
        return unread(settings, &packet);
    };
    if u32::from(udp.port) != settings.port || !is_known(&ADDRESSES, &udp.destination) {
        return Verdict::NotOurs;
    }
    let message = frame::message(&packet, udp.payload);
    if !udp.whole {
        if frame::is_short_probe(message, &udp) {
            return probe(settings, &udp.source);
        }
        if settings.merged != 0 && udp.is_merged() {
            return Verdict::Merged;
        }
        if matches!(frame::extent(&packet), Extent::Cut) {
            return Verdict::Cut;
        }
        return Verdict::WrongLength;
    }
    match message {
        None => Verdict::WrongLength,
        Some(Message::Unknown) => Verdict::UnknownType,
        Some(Message::Initiation) => initiation(settings, &udp.source),
        Some(Message::Probe) => probe(settings, &udp.source),
        Some(Message::Answer(index)) => answer(settings, index),
        Some(Message::Data(index)) => {
            if !is_known(&SESSIONS, &index) {
                return Verdict::UnknownIndex;
            }
            let Some(tag) = frame::tag(&packet, udp.payload) else {
                return Verdict::WrongLength;
            };
            data(ctx, settings, tag)
        }
    }
}

/// Whether a set of keys has this one.
#[inline(always)]
fn is_known<K>(set: &HashMap<K, u8>, key: &K) -> bool {
    set.get_ptr(key).is_some()
}

/// Data of a live session: new, or seen before.
#[inline(always)]
fn data(ctx: &XdpContext, settings: &Settings, tag: [u64; 2]) -> Verdict {
    let position = Position::of(tag, settings.key, settings.mask);
    let older = position.block + settings.mask + 1;
    for block in [position.block, older] {
        if let Some(block) = REPLAY.get(block)
            && position.is_in(block)
        {
            return Verdict::Replayed;
        }
    }
    if settings.mode == MODE_FILTER {
        return Verdict::Filtered;
    }
    // SAFETY: the context is the one that the kernel called this program with.
    let queue = unsafe { (*ctx.ctx).rx_queue_index };
    if SOCKETS.get(queue).is_none() {
        Verdict::NoSocket
    } else {
        Verdict::Redirected
    }
}

/// What a plain look does not find in the packet, and the kernel would give to our socket: within
/// limits of its own, so that nobody goes around the others. Nothing honest needs it: datagrams have no
/// options, and are in fragments only where a path is too narrow for them.
#[inline(always)]
fn unread(settings: &Settings, packet: &Packet<'_>) -> Verdict {
    let Some(unread) = frame::unread(packet) else {
        return Verdict::NotOurs;
    };
    let is_for_others = unread
        .port
        .is_some_and(|port| u32::from(port) != settings.port);
    if is_for_others || !is_known(&ADDRESSES, &unread.destination) {
        return Verdict::NotOurs;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if is_within(&UNREAD, &unread.source, now, &settings.unread_per_source)
        && is_within_all(ALL_UNREAD, now, &settings.unread_total)
    {
        Verdict::Unread
    } else {
        Verdict::UnreadLimited
    }
}

/// An answer to a handshake of ours, by the index that only whom we asked has seen: a flood has
/// neither it nor a share in its bucket.
#[inline(always)]
fn answer(settings: &Settings, index: u32) -> Verdict {
    let Some(bucket) = ASKED.get_ptr_mut(&index) else {
        return Verdict::UnknownIndex;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: as in `is_within`.
    if unsafe { (*bucket).take(now, &settings.per_answer) } {
        Verdict::Handshake
    } else {
        Verdict::AnswerLimited
    }
}

/// An initiation: within the limit of its source, then of the networks that this is in, then of all. So who has many
/// addresses in one network leaves others their part of what all have.
#[inline(always)]
fn initiation(settings: &Settings, source: &Address) -> Verdict {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if !is_within(&SOURCES, source, now, &settings.per_source)
        || !is_within_networks(&NETWORKS, source, now, &settings.per_network)
    {
        Verdict::SourceLimited
    } else if is_within_all(HANDSHAKES, now, &settings.total) {
        Verdict::Handshake
    } else {
        Verdict::TotalLimited
    }
}

/// A path probe, likewise. Its buckets are others: whoever asks for much keeps nobody from a
/// handshake.
#[inline(always)]
fn probe(settings: &Settings, source: &Address) -> Verdict {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if is_within(&PROBERS, source, now, &settings.probes_per_source)
        && is_within_networks(&PROBING, source, now, &settings.probes_per_network)
        && is_within_all(PROBES, now, &settings.probes_total)
    {
        Verdict::Probe
    } else {
        Verdict::ProbeLimited
    }
}

/// Takes a token from the bucket of a source; false if there is none.
#[inline(always)]
fn is_within(
    buckets: &LruHashMap<Address, Bucket>,
    source: &Address,
    now: u64,
    limit: &Limit,
) -> bool {
    if let Some(bucket) = buckets.get_ptr_mut(source) {
        // SAFETY: the kernel keeps the entry's memory while the program runs. Two CPUs may write
        // at the same time; Bucket says what that costs.
        return unsafe { (*bucket).take(now, limit) };
    }
    let mut bucket = Bucket::default();
    bucket.take(now, limit);
    // A full table evicts its least recently used entry; if the kernel refuses even so, the
    // total limit still holds.
    let _ = buckets.insert(source, &bucket, 0);
    true
}

/// Takes a token from the buckets of both networks of a source; false if one has none.
#[inline(always)]
fn is_within_networks(
    buckets: &LruHashMap<Address, Bucket>,
    source: &Address,
    now: u64,
    limits: &[Limit; 2],
) -> bool {
    let [narrow, wide] = networks(source);
    is_within(buckets, &narrow, now, &limits[0]) && is_within(buckets, &wide, now, &limits[1])
}

/// Takes a token from the bucket of all sources together; false if there is none.
#[inline(always)]
fn is_within_all(what: u32, now: u64, limit: &Limit) -> bool {
    match TOTALS.get_ptr_mut(what) {
        // SAFETY: as in `is_within`.
        Some(total) => unsafe { (*total).take(now, limit) },
        None => false,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

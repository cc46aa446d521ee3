//! The programs' entries and their maps.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_redirect, bpf_xdp_store_bytes},
    macros::{map, xdp},
    maps::{Array, PerCpuArray, XskMap},
    programs::XdpContext,
};
use mixline_relay_common::DATAGRAM_LENGTH;
use mixline_relay_common::frame::{self, Message};

use crate::abi::{
    BACKLOG, DEVICE, DUE, FLOOD, FLOODED, FRAME, Frame, HONEST, INTERVAL, LET_THROUGH, NEIGHBOURS,
    NETWORK, NEXT, RELAYS, REMARK, SPOOF, SPOOFED, Settings, State,
};
use crate::packet::Packet;

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static STATE: Array<State> = Array::with_max_entries(1, 0);
/// Honest frames; user space sets the number before it loads the programs.
#[map]
static FRAMES: Array<Frame> = Array::with_max_entries(1, 0);
/// Frames of a flood.
#[map]
static GARBAGE: Array<Frame> = Array::with_max_entries(1, 0);
/// Datagrams that came back: by relay and neighbour.
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(RELAYS * NEIGHBOURS, 0);
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(1, 0);

/// Run by `BPF_PROG_TEST_RUN` with live frames: makes each the next honest frame, if one is
/// due, or one of the flood, and sends it.
#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    make(&ctx).unwrap_or(xdp_action::XDP_DROP)
}

#[inline(always)]
fn make(ctx: &XdpContext) -> Option<u32> {
    let settings = SETTINGS.get(0)?;
    let state = STATE.get_ptr_mut(0)?;
    // SAFETY: one thread runs this program at a time, and nobody else writes the state then.
    let state = unsafe { &mut *state };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if state[NEXT] < settings[HONEST] && now >= state[DUE] {
        let frame = FRAMES.get_ptr(state[NEXT] as u32)?;
        state[NEXT] += 1;
        let oldest = now.saturating_sub(BACKLOG * settings[INTERVAL]);
        let due = if state[DUE] < oldest {
            oldest
        } else {
            state[DUE]
        };
        state[DUE] = due + settings[INTERVAL];
        store(ctx, 0, frame.cast(), FRAME as u32)?;
        return Some(redirect(settings));
    }
    if settings[FLOOD] == 0 {
        return None;
    }
    let at = state[FLOODED] % settings[FLOOD];
    state[FLOODED] += 1;
    let frame = GARBAGE.get_ptr(at as u32)?;
    store(ctx, 0, frame.cast(), FRAME as u32)?;
    // SAFETY: the kernel keeps the map's memory, and the bytes lie within the frame.
    let (remark, checksum) = unsafe {
        let frame = frame.cast::<u8>();
        (
            frame.add(REMARK).read(),
            [frame.add(24).read(), frame.add(25).read()],
        )
    };
    if remark == SPOOF {
        spoof(ctx, u16::from_be_bytes(checksum))?;
    }
    Some(redirect(settings))
}

/// Sets a random source in an IPv4 header whose source was all zero, and its checksum, which
/// was `checksum` (RFC 1624).
#[inline(always)]
fn spoof(ctx: &XdpContext, checksum: u16) -> Option<()> {
    // SAFETY: a helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() }.to_be_bytes();
    let source = [SPOOFED, random[1], random[2], random[3]];
    let sum = u32::from(!checksum)
        + u32::from(u16::from_be_bytes([source[0], source[1]]))
        + u32::from(u16::from_be_bytes([source[2], source[3]]));
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = (!(sum as u16)).to_be_bytes();
    let bytes = [
        checksum[0],
        checksum[1],
        source[0],
        source[1],
        source[2],
        source[3],
    ];
    store(ctx, 24, bytes.as_ptr(), 6)
}

#[inline(always)]
fn store(ctx: &XdpContext, offset: u32, from: *const u8, length: u32) -> Option<()> {
    // SAFETY: the context is the one that the kernel called this program with; `from` has `length`
    // bytes, which the verifier checks, and the helper checks the frame's end.
    let result = unsafe { bpf_xdp_store_bytes(ctx.ctx, offset, from.cast_mut().cast(), length) };
    (result == 0).then_some(())
}

#[inline(always)]
fn redirect(settings: &Settings) -> u32 {
    // SAFETY: a helper that takes numbers only.
    unsafe { bpf_redirect(settings[DEVICE] as u32, 0) as u32 }
}

/// On the generator's end of each wire: counts the datagrams of data that come back, and ends
/// them there, unless they are to be let through. Everything else passes, but for answers to forged
/// handshakes.
#[xdp]
pub fn count(ctx: XdpContext) -> u32 {
    let packet = Packet(&ctx);
    let Some(udp) = frame::udp(&packet) else {
        return xdp_action::XDP_PASS;
    };
    let to = udp.destination;
    if to[12] != NETWORK[0] || to[13] != NETWORK[1] {
        return xdp_action::XDP_DROP;
    }
    if !(udp.whole || udp.is_merged()) || !is_data(&packet, udp.payload) {
        return xdp_action::XDP_PASS;
    }
    if SETTINGS
        .get(0)
        .is_some_and(|settings| settings[LET_THROUGH] != 0)
    {
        return xdp_action::XDP_PASS;
    }
    let datagrams = u64::from(udp.length) / DATAGRAM_LENGTH as u64;
    let neighbour = u32::from(to[15]) % NEIGHBOURS;
    let relay = u32::from(to[14]) % RELAYS;
    if let Some(counter) = COUNTS.get_ptr_mut(relay * NEIGHBOURS + neighbour) {
        // SAFETY: the pointer is to this CPU's own counter, and no other program of this CPU
        // interrupts an XDP program to write it.
        unsafe { *counter += datagrams };
    }
    xdp_action::XDP_DROP
}

#[inline(always)]
fn is_data(packet: &Packet<'_>, payload: usize) -> bool {
    matches!(frame::message(packet, payload), Some(Message::Data(_)))
}

/// At the end of the bare echo: data goes to the AF_XDP socket, and the program looks at
/// nothing that it need not.
#[xdp]
pub fn divert(ctx: XdpContext) -> u32 {
    match frame::udp(&Packet(&ctx)) {
        Some(udp) if udp.whole => SOCKETS
            .redirect(0, u64::from(xdp_action::XDP_DROP))
            .unwrap_or_else(|e| e),
        _ => xdp_action::XDP_PASS,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

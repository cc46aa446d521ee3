//! Other people's code for the same work, for a figure to be compared with.
//!
//! Each is asked for less than a relay does: Nym's packet is parsed before and the next one is not
//! written out after; Tor's cell is decrypted, without the TLS that it comes and goes by. Without
//! the feature `peers` there are none.

use anyhow::Result;

/// A round of a peer: does its work and gives the nanoseconds for one packet, or one byte.
pub type Round = Box<dyn FnMut() -> Result<f64>>;

/// All of them.
pub struct Peers {
    /// `sphinx-packet` (Nym): one packet of a cell's size unwrapped, at a relay in the middle.
    pub sphinx_packet: Round,
    /// `tor-proto` (Arti), the relay crypto of today: AES-128-CTR and a running SHA-1; a byte.
    pub tor1: Round,
    /// The same, Counter Galois Onion with AES-128, which is to replace it; a byte.
    pub tor_cgo: Round,
}

/// The peers, if they were built in.
///
/// # Errors
/// If one of them cannot be set up.
pub fn peers() -> Result<Option<Peers>> {
    #[cfg(feature = "peers")]
    return built_in::peers().map(Some);
    #[cfg(not(feature = "peers"))]
    Ok(None)
}

#[cfg(feature = "peers")]
mod built_in {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use aes::Aes128Enc;
    use anyhow::{Result, anyhow, ensure};
    use mixline_protocol::random::OsRandom;
    use mixline_protocol::size::CELL;
    use rand_core::Rng;
    use sphinx_packet::constants::{
        DESTINATION_ADDRESS_LENGTH, IDENTIFIER_LENGTH, NODE_ADDRESS_LENGTH,
    };
    use sphinx_packet::crypto::{PrivateKey, PublicKey};
    use sphinx_packet::header::{HEADER_SIZE, delays};
    use sphinx_packet::route::{Destination, DestinationAddressBytes, Node, NodeAddressBytes};
    use sphinx_packet::{SphinxPacket, SphinxPacketBuilder};
    use tor_bytes::SecretBuf;
    use tor_llcrypto::cipher::aes::Aes128Ctr;
    use tor_llcrypto::d::Sha1;
    use tor_proto::bench_utils::{
        BENCH_CHAN_CMD, CryptInit, KGen, OutboundRelayLayer, RelayCellBody, RelayLayer, cgo, tor1,
    };

    use super::{Peers, Round};
    use crate::testbed::nanoseconds;

    /// Packets of `sphinx-packet` in a round: as long as a round of the others.
    const PACKETS: usize = 6;
    /// Cells of Tor in a round.
    const CELLS: usize = 512;
    /// Bytes of a relay cell's body, all of which are encrypted.
    const TOR_CELL: usize = 509;

    pub(super) fn peers() -> Result<Peers> {
        let tor1 = tor1::CryptStatePair::<Aes128Ctr, Sha1>::construct(KGen::new(seed()))?;
        let cgo = cgo::CryptStatePair::<Aes128Enc, Aes128Enc>::construct(KGen::new(seed()))?;
        Ok(Peers {
            sphinx_packet: sphinx_packet()?,
            tor1: relay(tor1.split_relay_layer().0),
            tor_cgo: relay(cgo.split_relay_layer().0),
        })
    }

    /// A packet over three nodes, unwrapped by the first.
    fn sphinx_packet() -> Result<Round> {
        let keys = [random(), random(), random()].map(PrivateKey::from);
        let route: Vec<Node> = (1..)
            .zip(&keys)
            .map(|(number, key)| {
                let address = NodeAddressBytes::from_bytes([number; NODE_ADDRESS_LENGTH]);
                Node::new(address, PublicKey::from(key))
            })
            .collect();
        let destination = Destination::new(
            DestinationAddressBytes::from_bytes([4; DESTINATION_ADDRESS_LENGTH]),
            [5; IDENTIFIER_LENGTH],
        );
        let delays = delays::generate_from_average_duration(route.len(), Duration::from_millis(10));
        let packet = SphinxPacketBuilder::new()
            .with_payload_size(CELL - HEADER_SIZE)
            .build_packet([6; 700], &route, &destination, &delays)
            .map_err(|error| anyhow!("{error}"))?;
        let bytes = packet.to_bytes();
        ensure!(bytes.len() == CELL, "a packet of {} bytes", bytes.len());
        let [key, ..] = keys;
        Ok(Box::new(move || {
            let packets = (0..PACKETS)
                .map(|_| SphinxPacket::from_bytes(&bytes))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| anyhow!("{error}"))?;
            let began = Instant::now();
            for packet in packets {
                let opened = packet.process(black_box(&key));
                black_box(opened.map_err(|error| anyhow!("{error}"))?);
            }
            Ok(nanoseconds(began.elapsed()) / PACKETS as f64)
        }))
    }

    /// A relay in the middle of a circuit: to it every cell is noise, before and after.
    fn relay(mut layer: impl OutboundRelayLayer + 'static) -> Round {
        let mut body = Box::new([0; TOR_CELL]);
        OsRandom::new().fill_bytes(&mut *body);
        let mut cells = vec![RelayCellBody::from(body); CELLS];
        Box::new(move || {
            let began = Instant::now();
            for cell in &mut cells {
                black_box(layer.decrypt_outbound(BENCH_CHAN_CMD, black_box(cell)));
            }
            Ok(nanoseconds(began.elapsed()) / (CELLS * TOR_CELL) as f64)
        })
    }

    fn seed() -> SecretBuf {
        random().to_vec().into()
    }

    fn random() -> [u8; 32] {
        let mut bytes = [0; 32];
        OsRandom::new().fill_bytes(&mut bytes);
        bytes
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn every_peer_does_its_work() {
            let mut peers = super::peers().unwrap();
            for round in [
                &mut peers.sphinx_packet,
                &mut peers.tor1,
                &mut peers.tor_cgo,
            ] {
                assert!(round().unwrap() > 0.0);
            }
        }
    }
}

//! Mixing a batch before it is sent.
//!
//! The order of what goes out is a uniformly random interleaving of the *paths* of a
//! batch, each path's cells in the order they came in. Within a path, an order tells
//! nobody anything, since its cells look alike; and the TCP inside would suffer.

use chacha20::ChaCha8Rng;
use rand_core::Rng;

use crate::batch::{BATCH, Batch, State};
use crate::headers::Flow;

/// Decides in which order the slots that are to be sent go.
///
/// Permuting all slots uniformly and then putting each path's cells back into their order
/// makes every interleaving equally likely.
pub fn shuffle(batch: &mut Batch<'_>, rng: &mut ChaCha8Rng) {
    batch.order.clear();
    // For each flow, in the order of first sight: its slots as a list, by `after`.
    let mut flows: [Flow; BATCH] = [Flow(0); BATCH];
    let mut first = [0_u8; BATCH];
    let mut last = [0_u8; BATCH];
    let mut after = [0_u8; BATCH];
    let mut seen = 0;
    // The flow of each position of what is sent, to be permuted.
    let mut labels = [0_u8; BATCH];
    let mut count = 0;
    for (at, slot) in (0_u8..).zip(&batch.slots) {
        let State::Send(_, flow) = slot.state else {
            continue;
        };
        let label = match flows[..seen].iter().position(|known| *known == flow) {
            Some(label) => {
                after[usize::from(last[label])] = at;
                label
            }
            None => {
                flows[seen] = flow;
                first[seen] = at;
                seen += 1;
                seen - 1
            }
        };
        last[label] = at;
        labels[count] = label as u8;
        count += 1;
    }
    if seen > 1 {
        // Fisher and Yates.
        for at in (1..count).rev() {
            labels.swap(at, below(at + 1, rng));
        }
    }
    for label in &labels[..count] {
        let next = &mut first[usize::from(*label)];
        batch.order.push(*next);
        *next = after[usize::from(*next)];
    }
}

/// A random number below `n`. For `n` up to [`BATCH`], no number is more likely than
/// another by more than 2^-26.
fn below(n: usize, rng: &mut ChaCha8Rng) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;

    use mixline_protocol::size::{DATAGRAM, Datagram};
    use rand_core::SeedableRng;

    use super::*;

    /// The order in which slots of these flows go; 0 is not sent.
    fn order(flows: &[u64], rng: &mut ChaCha8Rng) -> Vec<u8> {
        let to: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut bytes: Vec<Datagram> = vec![[0; DATAGRAM]; flows.len()];
        let mut batch = Batch::new();
        for (datagram, flow) in bytes.iter_mut().zip(flows) {
            batch.push(datagram, to);
            let slot = batch.slots.last_mut().unwrap();
            slot.state = if *flow == 0 {
                State::Ended
            } else {
                State::Send(to, Flow(*flow))
            };
        }
        shuffle(&mut batch, rng);
        batch.order.to_vec()
    }

    #[test]
    fn paths_keep_their_order() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let flows: Vec<u64> = (0..64).map(|at| (at * 7 + 1) % 5).collect();
        for _ in 0..100 {
            let order = order(&flows, &mut rng);
            assert_eq!(order.len(), flows.iter().filter(|f| **f != 0).count());
            for flow in 1..5 {
                let of_flow: Vec<u8> = order
                    .iter()
                    .copied()
                    .filter(|at| flows[usize::from(*at)] == flow)
                    .collect();
                let wanted: Vec<u8> = (0..64)
                    .filter(|at| flows[usize::from(*at)] == flow)
                    .collect();
                assert_eq!(of_flow, wanted);
            }
        }
    }

    #[test]
    fn every_interleaving_is_as_likely() {
        // Two cells of one path, two of another, one of a third: 5! / (2! 2!) = 30 orders.
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut counts: HashMap<Vec<u8>, u32> = HashMap::new();
        for _ in 0..30_000 {
            *counts.entry(order(&[1, 1, 2, 3, 2], &mut rng)).or_default() += 1;
        }
        assert_eq!(counts.len(), 30);
        // 1000 each; six standard deviations are 190.
        assert!(
            counts.values().all(|n| (810..1190).contains(n)),
            "{counts:?}"
        );
    }

    #[test]
    fn one_path_and_none() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        assert_eq!(order(&[9; 64], &mut rng), (0..64).collect::<Vec<u8>>());
        assert!(order(&[0; 3], &mut rng).is_empty());
        assert!(order(&[], &mut rng).is_empty());
    }
}

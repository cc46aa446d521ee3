//! Places that strangers share by where they come from, and a reserve for those who are known.
//!
//! Addresses cost little: one machine has a /64 of IPv6, one provider's customer a /48, and who rents a
//! few machines gets neighbouring addresses of IPv4. So places are shared between networks first (/16 of
//! IPv4, /32 of IPv6), then between the networks inside (/24, /48), and then between the sites there (one
//! address, /64). At each of the three, whoever has fewer than are free gets one more (Choudhury and
//! Hahne, "Dynamic Queue Length Thresholds in a Shared Memory ATM Switch", 1996): who is alone gets
//! many and leaves some for whoever comes next, so nobody has to be thrown out. With `n` networks that take
//! all they get, each has one part in `n + 1`, and as much is free.
//!
//! Those who are known have the reserve, and share it in the same way: one that is known may be an outsider
//! too, or have its address in common with one.
//!
//! An address is only worth something where it has been proven, by a TCP handshake or a cookie.

use std::collections::HashMap;
use std::net::IpAddr;

/// Who wants a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claimant {
    /// What nobody outside can cause: gets any place that is free.
    Own,
    /// Somebody for whom the reserve is kept, by address: gets a share of that, and of the other places as
    /// a stranger.
    Known(IpAddr),
    /// Anybody else, by address.
    Stranger(IpAddr),
}

/// How many places there are, and who has them. Remembers only who has one.
#[derive(Debug, Clone)]
pub struct Shares {
    own: usize,
    /// The reserve.
    known: Part,
    /// All other places.
    strangers: Part,
}

/// Places that are shared between networks.
#[derive(Debug, Clone)]
struct Part {
    places: usize,
    taken: usize,
    /// How many a network has, at each of the three levels: up to three entries for each place.
    networks: HashMap<Network, usize>,
}

/// A network, by its first address and the length of its prefix.
pub type Network = (IpAddr, u8);

impl Shares {
    /// So many places, of which strangers do not get `reserve`.
    #[must_use]
    pub fn new(places: usize, reserve: usize) -> Self {
        let reserve = reserve.min(places);
        Self {
            own: 0,
            known: Part::new(reserve),
            strangers: Part::new(places - reserve),
        }
    }

    /// Takes a place. False, and nothing is changed, if none is free or the claimant's networks have
    /// their shares.
    #[must_use]
    pub fn take(&mut self, claimant: Claimant) -> bool {
        let free = self.free();
        match claimant {
            Claimant::Own if free == 0 => return false,
            Claimant::Own => self.own += 1,
            Claimant::Known(ip) if self.known.has_share(ip, free) => self.known.take(ip),
            Claimant::Stranger(ip) if self.strangers.has_share(ip, free) => self.strangers.take(ip),
            Claimant::Known(_) | Claimant::Stranger(_) => return false,
        }
        true
    }

    /// Takes a place that the claimant had in an earlier life of ours. False, and nothing is changed, if none
    /// is free; the shares of its networks do not matter, since it had its place before others came.
    #[must_use]
    pub fn restore(&mut self, claimant: Claimant) -> bool {
        let free = self.free() > 0;
        match claimant {
            Claimant::Known(ip) if free && self.known.free() > 0 => self.known.take(ip),
            Claimant::Stranger(ip) if free && self.strangers.free() > 0 => self.strangers.take(ip),
            Claimant::Own => return self.take(claimant),
            Claimant::Known(_) | Claimant::Stranger(_) => return false,
        }
        true
    }

    /// Gives back the place of `from` and takes one for `to`. False, and nothing is changed, if none is free or
    /// its networks have their shares.
    #[must_use]
    pub fn exchange(&mut self, from: Claimant, to: Claimant) -> bool {
        self.give_back(from);
        let done = self.take(to);
        if !done {
            // It was there a moment ago, whatever the shares are.
            let _ = self.restore(from);
        }
        done
    }

    /// Gives back a place that the claimant took.
    pub fn give_back(&mut self, claimant: Claimant) {
        match claimant {
            Claimant::Own => self.own = self.own.saturating_sub(1),
            Claimant::Known(ip) => self.known.give_back(ip),
            Claimant::Stranger(ip) => self.strangers.give_back(ip),
        }
    }

    /// Places that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.own + self.known.taken + self.strangers.taken
    }

    /// How many places strangers could still get, and of how many.
    #[must_use]
    pub fn room(&self) -> (usize, usize) {
        let free = self.strangers.free().min(self.free());
        (free, self.strangers.places)
    }

    /// Whether a stranger there would get a place now.
    #[must_use]
    pub fn has_share(&self, ip: IpAddr) -> bool {
        self.strangers.has_share(ip, self.free())
    }

    fn free(&self) -> usize {
        (self.known.places + self.strangers.places).saturating_sub(self.taken())
    }
}

impl Part {
    fn new(places: usize) -> Self {
        Self {
            places,
            taken: 0,
            networks: HashMap::new(),
        }
    }

    fn free(&self) -> usize {
        self.places.saturating_sub(self.taken)
    }

    /// Whether one more there would leave as much to others; `free`: places of all parts.
    fn has_share(&self, ip: IpAddr, free: usize) -> bool {
        let mut free = self.free().min(free);
        for network in networks(ip) {
            let has = self.networks.get(&network).copied().unwrap_or(0);
            if has >= free {
                return false;
            }
            // What is left to it is shared by those inside.
            free -= has;
        }
        true
    }

    fn take(&mut self, ip: IpAddr) {
        self.taken += 1;
        for network in networks(ip) {
            *self.networks.entry(network).or_default() += 1;
        }
    }

    fn give_back(&mut self, ip: IpAddr) {
        self.taken = self.taken.saturating_sub(1);
        for network in networks(ip) {
            if let Some(count) = self.networks.get_mut(&network) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.networks.remove(&network);
                }
            }
        }
    }
}

/// Whether two addresses are in one network of the widest kind.
#[must_use]
pub fn share_a_network(a: IpAddr, b: IpAddr) -> bool {
    networks(a)[0] == networks(b)[0]
}

/// The networks that an address is in, the widest first: by their first addresses and the lengths of their prefixes.
#[must_use]
pub fn networks(ip: IpAddr) -> [Network; 3] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => [16, 24, 32].map(|length| {
            let mask = u32::MAX << (32 - length);
            (IpAddr::V4((ip.to_bits() & mask).into()), length)
        }),
        IpAddr::V6(ip) => [32, 48, 64].map(|length| {
            let mask = u128::MAX << (128 - length);
            (IpAddr::V6((ip.to_bits() & mask).into()), length)
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stranger(text: &str) -> Claimant {
        Claimant::Stranger(text.parse().unwrap())
    }

    fn v4(bits: u32) -> Claimant {
        Claimant::Stranger(IpAddr::V4(bits.into()))
    }

    /// Takes until it is refused.
    fn fill(shares: &mut Shares, claimants: impl Iterator<Item = Claimant>) -> usize {
        claimants.filter(|claimant| shares.take(*claimant)).count()
    }

    #[test]
    fn a_site_a_network_and_a_provider_leave_room() {
        let mut shares = Shares::new(1000, 0);
        let site = fill(&mut shares, (0..2000).map(|_| v4(0xc000_0201)));
        assert_eq!(site, 250);
        // The rest of its /24, then of its /16.
        let network = fill(&mut shares, (0..20_000).map(|n| v4(0xc000_0200 + n % 256)));
        let provider = fill(
            &mut shares,
            (0..200_000).map(|n| v4(0xc000_0000 + n % 65_536)),
        );
        assert!(site + network <= 334, "{network}");
        assert!((450..=500).contains(&(site + network + provider)));
        // Whoever comes from elsewhere finds as many as the provider would.
        assert!(fill(&mut shares, (0..2000).map(|_| v4(0x0808_0808))) >= 125);
    }

    #[test]
    fn a_60_of_ipv6_is_one_neighbourhood() {
        let mut shares = Shares::new(2048, 0);
        let held = fill(
            &mut shares,
            (0..1 << 16).map(|n: u128| {
                let site = 0x2001_0db8_0000_0010 + n % 16;
                Claimant::Stranger(IpAddr::V6(((site << 64) + n).into()))
            }),
        );
        assert!(held <= 2048 / 3 + 1, "{held}");
        assert!(shares.take(stranger("2001:db9::1")));
        assert!(shares.take(stranger("::ffff:192.0.2.1")));
        assert!(
            shares
                .strangers
                .networks
                .contains_key(&([192, 0, 2, 1].into(), 32))
        );
    }

    #[test]
    fn strangers_from_everywhere_leave_the_reserve() {
        let mut shares = Shares::new(100, 20);
        let everywhere = (0..1 << 16).map(|n: u32| v4(n << 16));
        assert_eq!(shares.room(), (80, 80));
        assert_eq!(fill(&mut shares, everywhere), 80);
        assert_eq!(shares.room(), (0, 80));
        let known = (0..1 << 16).map(|n: u32| Claimant::Known(IpAddr::V4((n << 16).into())));
        assert_eq!(fill(&mut shares, known), 20);
        shares.give_back(v4(0));
        // What is our own takes what is free, wherever it is.
        assert!(shares.take(Claimant::Own));
        assert!(!shares.take(Claimant::Own));
        assert!(!shares.take(v4(0)));
        assert_eq!(shares.taken(), 100);
    }

    #[test]
    fn who_is_known_leaves_room_for_others_who_are_and_for_strangers() {
        let mut shares = Shares::new(2048, 512);
        let known = |bits: u32| Claimant::Known(IpAddr::V4(bits.into()));
        let site = fill(&mut shares, (0..4000).map(|_| known(0xc000_0201)));
        assert_eq!(site, 128);
        let provider = fill(
            &mut shares,
            (0..200_000).map(|n| known(0xc000_0000 + n % 65_536)),
        );
        assert!(site + provider <= 256, "{provider}");
        assert!(fill(&mut shares, (0..64).map(|_| known(0x0808_0808))) >= 64);
        let everywhere = (0..1 << 16).map(|n: u32| v4(n << 16));
        assert_eq!(fill(&mut shares, everywhere), 1536);
    }

    #[test]
    fn who_had_a_place_gets_it_again_in_any_order() {
        let mut shares = Shares::new(100, 0);
        let mut held: Vec<_> = (0..60).map(|_| v4(1)).filter(|c| shares.take(*c)).collect();
        held.extend(
            (1..50)
                .map(|n: u32| v4(n << 16))
                .filter(|c| shares.take(*c)),
        );
        held.reverse();
        let mut again = Shares::new(held.len(), 0);
        assert!(held.iter().any(|c| !shares.clone().take(*c)));
        assert!(held.iter().all(|c| again.restore(*c)));
        assert!(!again.restore(v4(0x0808_0808)));
        assert_eq!(again.strangers.networks, shares.strangers.networks);
    }

    #[test]
    fn who_cannot_have_another_place_keeps_its_own() {
        let mut shares = Shares::new(10, 0);
        assert!(shares.take(v4(1)));
        while shares.take(v4(2 << 16)) {}
        let before = shares.clone();
        assert!(!shares.exchange(v4(1), v4(2 << 16)));
        assert_eq!(shares.strangers.networks, before.strangers.networks);
        assert!(shares.exchange(v4(1), v4(3 << 16)));
        assert_eq!(shares.taken(), before.taken());
    }

    proptest! {
        /// Nothing is over the bounds, places that were given back leave no trace, and whoever has none in
        /// a network that has none gets one as long as one is free.
        #[test]
        fn places_are_bounded_and_shared(
            (places, reserve) in (1_usize..40, 0_usize..10),
            steps in proptest::collection::vec((any::<bool>(), 0_u32..12, 0_u32..3, 0_u32..3), 0..200),
        ) {
            let mut shares = Shares::new(places, reserve);
            let mut held = Vec::new();
            for (takes, who, narrow, site) in steps {
                let ip = IpAddr::V4((((who / 2) << 16) + (narrow << 8) + site).into());
                let claimant = match who {
                    0 => Claimant::Own,
                    _ if who % 2 == 0 => Claimant::Known(ip),
                    _ => Claimant::Stranger(ip),
                };
                let (room, fresh) = {
                    let part = match claimant {
                        Claimant::Known(_) => &shares.known,
                        _ => &shares.strangers,
                    };
                    let own = claimant == Claimant::Own;
                    let free = own || part.taken < part.places;
                    let fresh = own || !part.networks.contains_key(&networks(ip)[0]);
                    (free && shares.taken() < places, fresh)
                };
                if takes {
                    let got = shares.take(claimant);
                    let fits = if fresh { got == room } else { !got || room };
                    prop_assert!(fits);
                    if got {
                        held.push(claimant);
                    }
                } else if let Some(at) = held.iter().position(|h| *h == claimant) {
                    shares.give_back(held.swap_remove(at));
                }
                prop_assert_eq!(shares.taken(), held.len());
                prop_assert!(shares.taken() <= places);
                for part in [&shares.known, &shares.strangers] {
                    prop_assert!(part.taken <= part.places);
                    prop_assert!(part.networks.len() <= 3 * part.taken);
                }
            }
            for claimant in held {
                shares.give_back(claimant);
            }
            let networks = shares.known.networks.len() + shares.strangers.networks.len();
            prop_assert_eq!((shares.taken(), networks), (0, 0));
        }
    }
}

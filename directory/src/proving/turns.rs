//! A queue in which networks take turns, and within each of them narrower ones, and then sites.
//!
//! What matters to whoever waits is how many others have something to do *beside* it at each of the three levels of
//! [`networks`], and not how much they have put into the queue.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use mixline_protocol::shares::networks;

/// Things that wait, by where those come from who want them.
#[derive(Debug)]
pub struct Turns<T>(Ring<Ring<Ring<VecDeque<T>>>>);

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(Ring::default())
    }
}

impl<T: Eq> Turns<T> {
    /// Adds something at the end of what waits for a site.
    pub fn push(&mut self, ip: IpAddr, item: T) {
        self.0.push(&networks(ip).map(|(network, _)| network), item);
    }

    /// Takes out the first thing of the site whose turn it is, of those that may have one; `may` is asked with the
    /// first address of a site.
    pub fn pop(&mut self, mut may: impl FnMut(IpAddr) -> bool) -> Option<T> {
        self.0.pop(&mut may)
    }

    /// Takes out one thing; whether it was there.
    pub fn remove(&mut self, ip: IpAddr, item: &T) -> bool {
        let path = networks(ip).map(|(network, _)| network);
        self.0.remove(&path, item)
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.0.nodes.is_empty()
    }
}

/// What is inside a network: narrower ones, or what waits for a site.
trait Level<T>: Default {
    fn push(&mut self, path: &[IpAddr], item: T);
    fn pop(&mut self, may: &mut dyn FnMut(IpAddr) -> bool) -> Option<T>;
    fn remove(&mut self, path: &[IpAddr], item: &T) -> bool;
    fn has_nothing(&self) -> bool;
    /// A site asks for itself, what is wider does not.
    fn is_site(&self) -> bool {
        false
    }
}

impl<T: Eq> Level<T> for VecDeque<T> {
    fn push(&mut self, _: &[IpAddr], item: T) {
        self.push_back(item);
    }

    fn pop(&mut self, _: &mut dyn FnMut(IpAddr) -> bool) -> Option<T> {
        self.pop_front()
    }

    fn remove(&mut self, _: &[IpAddr], item: &T) -> bool {
        let at = self.iter().position(|other| other == item);
        at.and_then(|at| VecDeque::remove(self, at)).is_some()
    }

    fn has_nothing(&self) -> bool {
        self.is_empty()
    }

    fn is_site(&self) -> bool {
        true
    }
}

/// Those of one level that have something, in the order of their turns.
#[derive(Debug)]
struct Ring<N> {
    order: VecDeque<IpAddr>,
    nodes: HashMap<IpAddr, N>,
}

impl<N> Default for Ring<N> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            nodes: HashMap::new(),
        }
    }
}

impl<N> Ring<N> {
    fn forget(&mut self, network: IpAddr) {
        self.nodes.remove(&network);
        self.order.retain(|other| *other != network);
    }
}

impl<T, N: Level<T>> Level<T> for Ring<N> {
    fn push(&mut self, path: &[IpAddr], item: T) {
        let Some((network, narrower)) = path.split_first() else {
            return;
        };
        let order = &mut self.order;
        let node = self.nodes.entry(*network).or_insert_with(|| {
            order.push_back(*network);
            N::default()
        });
        node.push(narrower, item);
    }

    fn pop(&mut self, may: &mut dyn FnMut(IpAddr) -> bool) -> Option<T> {
        for _ in 0..self.order.len() {
            let network = self.order.pop_front()?;
            let node = self.nodes.get_mut(&network)?;
            let item = if node.is_site() && !may(network) {
                None
            } else {
                node.pop(may)
            };
            if node.has_nothing() {
                self.nodes.remove(&network);
            } else {
                self.order.push_back(network);
            }
            if item.is_some() {
                return item;
            }
        }
        None
    }

    fn remove(&mut self, path: &[IpAddr], item: &T) -> bool {
        let Some((network, narrower)) = path.split_first() else {
            return false;
        };
        let Some(node) = self.nodes.get_mut(network) else {
            return false;
        };
        let removed = node.remove(narrower, item);
        if node.has_nothing() {
            self.forget(*network);
        }
        removed
    }

    fn has_nothing(&self) -> bool {
        self.nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_crowd_waits_behind_one_of_each_level() {
        let mut turns = Turns::default();
        for n in 0..1000_u32 {
            // All over one /16.
            turns.push(
                IpAddr::from((0xc000_0000 + n * 61).to_be_bytes()),
                ("crowd", n),
            );
        }
        turns.push(ip("192.0.250.1"), ("beside", 0));
        turns.push(ip("198.51.100.1"), ("elsewhere", 0));
        turns.push(ip("2001:db8::1"), ("IPv6", 0));
        let order: Vec<_> = std::iter::from_fn(|| turns.pop(|_| true)).collect();
        let place = |who| order.iter().position(|(other, _)| *other == who).unwrap();
        assert!(place("elsewhere") < 4 && place("IPv6") < 4);
        // There are 239 others at its level.
        assert!(place("beside") < 300, "{}", place("beside"));
        assert_eq!(order.len(), 1003);
        assert!(turns.is_empty() && turns.0.order.is_empty());
    }

    #[test]
    fn who_may_not_have_a_turn_is_passed_over_and_keeps_its_own() {
        let mut turns = Turns::default();
        let (a, b) = (ip("192.0.2.1"), ip("198.51.100.1"));
        for n in 0..3 {
            turns.push(a, n);
        }
        turns.push(b, 9);
        assert_eq!(turns.pop(|site| site != a), Some(9));
        assert_eq!(turns.pop(|site| site != a), None);
        assert_eq!(turns.pop(|_| true), Some(0));
        assert!(turns.remove(a, &2) && !turns.remove(a, &2) && !turns.remove(b, &9));
        assert_eq!(turns.pop(|_| true), Some(1));
        assert!(turns.is_empty() && turns.0.order.is_empty());
    }

    #[test]
    fn a_site_of_ipv6_is_a_64() {
        let mut turns = Turns::default();
        turns.push(ip("2001:db8::1"), 1);
        assert!(turns.remove(ip("2001:db8::2"), &1));
    }
}

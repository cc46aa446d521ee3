//! The interface that leads out, for a call with neither a configuration nor a name.

use std::fs;

/// The interface of the default route, that of IPv4 before that of IPv6.
#[must_use]
pub fn interface() -> Option<String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}"));
    let v4 = read("route").ok().and_then(|text| of_v4(&text));
    v4.or_else(|| read("ipv6_route").ok().and_then(|text| of_v6(&text)))
}

/// Of `/proc/net/route` (proc(5)): interface, destination, gateway, flags, two counters, metric,
/// mask, and more; numbers are hexadecimal but for the metric.
fn of_v4(text: &str) -> Option<String> {
    let routes = text.lines().skip(1).filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [name, "00000000", _, _, _, _, metric, "00000000", ..] = words.as_slice() else {
            return None;
        };
        Some((metric.parse::<u32>().ok()?, name.to_string()))
    });
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, name)| name)
}

/// Of `/proc/net/ipv6_route`: destination, its prefix length, source, its prefix length, next
/// hop, metric, two counters, flags, interface; all hexadecimal.
fn of_v6(text: &str) -> Option<String> {
    let routes = text.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [to, "00", _, _, _, metric, _, _, _, name] = words.as_slice() else {
            return None;
        };
        let default = to.bytes().all(|byte| byte == b'0') && *name != "lo";
        default.then_some((u32::from_str_radix(metric, 16).ok()?, name.to_string()))
    });
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_default_route_counts() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n";
        let wlan = "wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n";
        let eth = "eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
        let local = "eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(
            of_v4(&format!("{head}{wlan}{eth}{local}")).as_deref(),
            Some("eth0")
        );
        assert_eq!(of_v4(&format!("{head}{local}")), None);
        assert_eq!(of_v4(""), None);
    }

    #[test]
    fn without_ipv4_that_of_ipv6() {
        let zero = "0".repeat(32);
        let line = |to: &str, length: &str, metric: &str, name: &str| {
            format!("{to} {length} {zero} 00 {zero} {metric} 00000001 00000000 00000003 {name}\n")
        };
        let text = line(&zero, "00", "ffffffff", "lo")
            + &line("20010db8000000000000000000000000", "40", "00000100", "eth9")
            + &line(&zero, "00", "00000400", "eth0");
        assert_eq!(of_v6(&text).as_deref(), Some("eth0"));
    }
}

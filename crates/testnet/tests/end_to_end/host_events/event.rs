//! What can happen to a host, and what puts it back.

/// What can happen.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// These commands of `ip`, each of which may fail.
    Ip(&'static [&'static str]),
    /// The same, and then the client's rules, routes and filter are waited for: two layers that go at
    /// once are an open host.
    IpThenHeal(&'static [&'static str]),
    /// The packet filter goes, while nobody asks for names or sends in another's name: of what asks another
    /// server than the client, and of refusals to who is somewhere else, it is the only layer.
    FilterGone,
    /// `/etc/resolv.conf` gets this text.
    ResolvConf(&'static str),
    /// The client is killed, and stays so for a while.
    Kill,
    /// The client is started, if it does not run.
    Start,
    /// The client stands still for a second or two.
    Freeze,
    /// The client is told to read its configuration again.
    Hangup,
    /// The client publishes a name, or serves it no longer.
    Publish(&'static str),
    /// A setting of the kernel.
    Sysctl(&'static str, &'static str),
}

pub const RP_FILTER_OFF: Event = Event::Sysctl("net.ipv4.conf.all.rp_filter", "0");
pub const FORWARDING_OFF: Event = Event::Sysctl("net.ipv4.ip_forward", "0");
pub const FORWARDING_IPV6_OFF: Event = Event::Sysctl("net.ipv6.conf.all.forwarding", "0");

pub const ALL: [Event; 42] = [
    Event::Ip(&["link set mixline0 down"]),
    Event::Ip(&["link set mixline0 down", "link set mixline0 up"]),
    Event::Ip(&["address flush dev mixline0"]),
    Event::Ip(&["link set mixline0 mtu 1280"]),
    Event::Ip(&["link delete mixline0"]),
    Event::Ip(&["address flush dev lo to 10.0.0.0/8"]),
    Event::IpThenHeal(&["rule del to 10.0.0.0/8 lookup 28009"]),
    Event::IpThenHeal(&["-6 rule del to fd00::/8 lookup 28009"]),
    Event::IpThenHeal(&["route flush table 28009", "-6 route flush table 28009"]),
    Event::FilterGone,
    Event::Ip(&[
        "route add 10.0.0.0/8 via 172.30.0.1 table 52",
        "rule add pref 5270 lookup 52",
        "-6 route add fd00::/8 via 3fff:200::1 table 52",
        "-6 rule add pref 5270 lookup 52",
    ]),
    Event::Ip(&[
        "route add 10.0.0.0/8 via 172.30.0.1 table 53",
        "rule add pref 0 to 10.0.0.0/8 lookup 53",
    ]),
    Event::Ip(&[
        "route add 10.0.0.0/9 via 172.30.0.1",
        "route add 10.128.0.0/9 via 172.30.0.1",
        "-6 route add fd00::/9 via 3fff:200::1",
    ]),
    Event::Ip(&["route add 10.200.0.0/16 via 172.30.0.1"]),
    Event::Ip(&["address add 10.44.0.7/24 dev eth0"]),
    Event::Ip(&["address del 10.44.0.7/24 dev eth0"]),
    Event::Ip(&[
        "link add inner0 type veth peer name inner1",
        "address add 10.44.9.1/24 dev inner0",
        "link set inner0 up",
        "link set inner1 up",
    ]),
    Event::Ip(&["link del inner0"]),
    // A bridge with a container behind it.
    Event::Ip(&[
        "link add br9 type bridge",
        "link add port9 type veth peer name eth9 netns mixline-beside",
        "link set port9 master br9",
        "address add 10.44.8.1/24 dev br9",
        "link set port9 up",
        "link set br9 up",
        "-n mixline-beside link set eth9 up",
        "-n mixline-beside address add 10.44.8.2/24 dev eth9",
        "-n mixline-beside address add 3fff:208::2/64 dev eth9 nodad",
        "-n mixline-beside route add default via 10.44.8.1",
        "-n mixline-beside route add default via 3fff:208::1",
        "address add 3fff:208::1/64 dev br9 nodad",
    ]),
    Event::Ip(&["link set br9 down"]),
    Event::Ip(&["link del port9", "link del br9"]),
    // Another VPN, whose gateway has all of the virtual networks.
    Event::Ip(&[
        "link add vpn0 type veth peer name vpn1 netns mixline-beside",
        "-n mixline-beside address add 10.44.7.1/24 dev vpn1",
        "-n mixline-beside address add 3fff:207::1/64 dev vpn1 nodad",
        "-n mixline-beside link set vpn1 up",
        "address add 10.44.7.2/24 dev vpn0",
        "address add 3fff:207::2/64 dev vpn0 nodad",
        "link set vpn0 up",
        "route add 10.0.0.0/8 via 10.44.7.1 dev vpn0",
        "-6 route add fd00::/8 via 3fff:207::1 dev vpn0",
    ]),
    Event::Ip(&["link set vpn0 down", "link set vpn0 up"]),
    Event::Ip(&["link del vpn0"]),
    // A second wire, which leads everywhere.
    Event::Ip(&[
        "link add eth1 type veth peer name client-b netns mixline-router",
        "-n mixline-router address add 172.29.0.1/24 dev client-b",
        "-n mixline-router address add 3fff:202::1/64 dev client-b nodad",
        "-n mixline-router link set client-b up",
        "address add 172.29.0.2/24 dev eth1",
        "address add 10.44.6.2/24 dev eth1",
        "address add 3fff:202::2/64 dev eth1 nodad",
        "link set eth1 up",
        "route add default via 172.29.0.1 metric 500",
        "-6 route add default via 3fff:202::1 metric 2000",
    ]),
    Event::Ip(&["link del eth1"]),
    Event::Ip(&["link set eth0 down", "link set eth0 up"]),
    Event::Ip(&["address add 172.30.0.77/24 dev eth0"]),
    Event::ResolvConf("search corp.example\nnameserver 172.30.0.1\n"),
    Event::ResolvConf("nameserver 172.30.0.1\noptions ndots:3\n"),
    Event::Kill,
    Event::Start,
    Event::Freeze,
    Event::Hangup,
    Event::Publish("events"),
    Event::ResolvConf(""),
    Event::Sysctl("net.ipv4.conf.all.rp_filter", "1"),
    RP_FILTER_OFF,
    Event::Sysctl("net.ipv4.ip_forward", "1"),
    FORWARDING_OFF,
    Event::Sysctl("net.ipv6.conf.all.forwarding", "1"),
    FORWARDING_IPV6_OFF,
];

/// Puts back what events left. Each line may fail.
pub const RESTORE: [&str; 26] = [
    "rule del pref 5270",
    "-6 rule del pref 5270",
    "rule del pref 0 to 10.0.0.0/8 lookup 53",
    "route flush table 52",
    "-6 route flush table 52",
    "route flush table 53",
    "route del 10.0.0.0/9 via 172.30.0.1",
    "route del 10.128.0.0/9 via 172.30.0.1",
    "-6 route del fd00::/9 via 3fff:200::1",
    "route del 10.200.0.0/16 via 172.30.0.1",
    "address del 10.44.0.7/24 dev eth0",
    "address del 172.30.0.77/24 dev eth0",
    "link del inner0",
    "link del port9",
    "link del br9",
    "link del vpn0",
    "link del eth1",
    "link set eth0 up",
    "address add 172.30.0.2/24 dev eth0",
    "address add 3fff:200::2/64 dev eth0 nodad",
    "route replace default via 172.30.0.1",
    "-6 route replace default via 3fff:200::1",
    "link set mixline0 mtu 1500",
    "neighbour flush dev eth0",
    "-6 neighbour flush dev eth0",
    "link set mixline0 up",
];

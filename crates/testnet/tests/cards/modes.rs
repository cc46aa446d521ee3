//! What a card does not grant, or not as it is set up: the relay takes another port, or refuses with
//! the reason and what to do.

use anyhow::{Result, ensure};

use crate::Pair;
use crate::host::{Host, IPV4, ON_IPV4};

/// An MTU of 9000 bytes before the relay starts: no driver has zero-copy with it, so `auto` takes UDP.
pub fn jumbo(pair: &Pair) -> Result<()> {
    let host = Host::new(pair)?;
    host.ip(&format!(
        "link set eth0 mtu 9000\nlink set eth0 up\naddr add {IPV4}/24 dev eth0\n"
    ))?;
    let (kind, why) = host.port(&format!("{ON_IPV4}port: auto\n"))?;
    eprintln!("  auto: {kind}: {why}");
    ensure!(
        kind == "udp"
            && why.contains("grants no zero-copy with an MTU of 9000")
            && why.contains("`ip link set dev eth0 mtu 1500`"),
        "{kind}: {why}"
    );
    let found = host.doctor(&format!("{ON_IPV4}port: xdp\n"))?;
    ensure!(found.contains("ip link set dev eth0 mtu 1500"), "{found}");
    // The card may have its usual MTU again.
    host.ip("link set eth0 mtu 1500\n")?;
    let (kind, why) = host.port(&format!("{ON_IPV4}port: auto\n"))?;
    ensure!(kind == "xdp" && why.contains("zero-copy"), "{kind}: {why}");
    Ok(())
}

/// A driver without native XDP: `auto` takes UDP, `xdp` the generic path with copies, and doctor says
/// which it is.
pub fn no_native(pair: &Pair) -> Result<()> {
    let host = Host::new(pair)?;
    host.ip(&format!("link set eth0 up\naddr add {IPV4}/24 dev eth0\n"))?;
    let (kind, why) = host.port(&format!("{ON_IPV4}port: auto\n"))?;
    eprintln!("  auto: {kind}: {why}");
    let wanted = format!("eth0 (driver {}) has no native XDP", pair.driver);
    ensure!(kind == "udp" && why.contains(&wanted), "{kind}: {why}");
    let (kind, why) = host.port(&format!("{ON_IPV4}port: xdp\n"))?;
    eprintln!("  xdp: {kind}: {why}");
    ensure!(
        kind == "xdp"
            && why.starts_with("generic XDP on eth0")
            && why.contains("copy, sending through UDP with GSO"),
        "{kind}: {why}"
    );
    for (port, words) in [
        (
            "auto",
            "only generic XDP, which is slower than plain UDP; `auto` takes UDP",
        ),
        ("xdp", "only generic XDP, which is slower than plain UDP"),
    ] {
        let found = host.doctor(&format!("{ON_IPV4}port: {port}\n"))?;
        ensure!(
            found.contains(&pair.driver) && found.contains(words),
            "doctor says: {found}"
        );
    }
    Ok(())
}

//! The page for people. Plain HTML that renews itself; no script, nothing fetched.

use std::fmt::Write as _;

use mixline_protocol::epoch;
use mixline_protocol::time::UnixTime;

use crate::board::Published;
use crate::metrics::Gauges;
use crate::registry::{LiveRelay, span};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--dim:#777}
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0}code{font:13px ui-monospace,monospace}
p.id{margin:.2rem 0 1.5rem;color:var(--dim);overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:0 0 2rem}
dl div{background:var(--soft);border-radius:8px;padding:.6rem .9rem}
dt{color:var(--dim);font-size:.8rem}dd{margin:0;font-size:1.25rem}
div.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.4rem .7rem;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--dim);font-weight:500;font-size:.8rem}td.n,th.n{text-align:right}
meter{width:5rem;vertical-align:middle}footer{color:var(--dim);margin-top:2rem;font-size:.85rem}";

/// The page at `now`.
pub fn render(
    gauges: &Gauges,
    published: Option<&Published>,
    mut relays: Vec<LiveRelay>,
    now: UnixTime,
) -> String {
    relays.sort_by(|a, b| {
        let key = |r: &LiveRelay| (r.descriptor().name.clone(), r.descriptor().id);
        key(a).cmp(&key(b))
    });
    let snapshot = published.map(|published| &*published.snapshot);
    let parameters = snapshot
        .map(|snapshot| snapshot.parameters)
        .unwrap_or_default();
    let current = epoch::current(now, parameters.epoch_seconds);
    let epoch_left = epoch::ends(current, parameters.epoch_seconds, 0).since(now);
    let reachable = if gauges.tails > 0 {
        format!("{} tails", gauges.tails)
    } else {
        "not yet".to_owned()
    };
    let facts = [
        ("Relays", gauges.relays.to_string()),
        ("Services", gauges.services.to_string()),
        ("Names", gauges.names.to_string()),
        ("Leases", gauges.leases.to_string()),
        ("Private part", reachable),
        ("Epoch", format!("{current}, {} left", span(epoch_left))),
        ("Snapshot", format!("{} old", span(gauges.snapshot_age))),
        ("Valid for", span(gauges.snapshot_left)),
    ];
    let mut html = String::with_capacity(4096 + relays.len() * 512);
    let id = snapshot.map_or("no snapshot yet".to_owned(), |of| of.network.to_string());
    // Writing to a string does not fail, here and below.
    let _ = write!(
        html,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"5\"><title>Mixline directory</title>\
         <style>{STYLE}</style></head><body><h1>Mixline directory</h1>\
         <p class=\"id\"><code>{id}</code></p><dl>"
    );
    for (what, value) in facts {
        let _ = write!(
            html,
            "<div><dt>{what}</dt><dd>{}</dd></div>",
            escape(&value)
        );
    }
    html.push_str(
        "</dl><div class=\"wide\"><table><thead><tr><th>Relay</th><th>Short ID</th>\
         <th>Addresses</th><th class=\"n\">Load</th><th class=\"n\">Capacity</th>\
         <th>Family</th><th class=\"n\">Up for</th><th class=\"n\">Heard</th><th>Software</th>\
         </tr></thead><tbody>",
    );
    if relays.is_empty() {
        html.push_str("<tr><td colspan=\"9\">No relay has registered yet.</td></tr>");
    }
    for relay in &relays {
        row(&mut html, relay, now);
    }
    let _ = write!(
        html,
        "</tbody></table></div><footer>Load and capacity in datagrams of 1408 bytes a second. \
         Virtual addresses: {} and fd00::/8. \
         <a href=\"/v2/snapshot\">Snapshot</a>, <a href=\"/metrics\">metrics</a>.</footer>\
         </body></html>",
        parameters.network
    );
    html
}

fn row(html: &mut String, relay: &LiveRelay, now: UnixTime) {
    let descriptor = relay.descriptor();
    let addresses: Vec<_> = descriptor
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    let capacity = descriptor.capacity.max(1);
    let load = relay.load;
    let _ = write!(
        html,
        "<tr><td>{}</td><td><code>{}</code></td><td><code>{}</code></td>\
         <td class=\"n\">{load} <meter min=\"0\" max=\"{capacity}\" value=\"{}\"></meter></td>\
         <td class=\"n\">{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{} ago</td>\
         <td>{}</td></tr>",
        escape(&descriptor.name),
        descriptor.short_id(),
        escape(&addresses.join(" ")),
        load.min(capacity),
        descriptor.capacity,
        escape(descriptor.family.as_deref().unwrap_or("–")),
        span(now.since(relay.since)),
        span(now.since(relay.heard)),
        escape(&descriptor.software),
    );
}

/// Texts in records are narrow already; a page should not have to rely on it.
fn escape(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\'' => out.push_str("&#39;"),
                c => out.push(c),
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Board;
    use crate::registry::tests::{NOW, directory_key, registration_of, registry, relay, session};
    use crate::rounds::ServiceKeys;
    use crate::rounds::alone::Alone;
    use std::sync::Arc;

    #[test]
    fn shows_relays_and_escapes() {
        let registry = Arc::new(registry());
        let mut odd = relay(1, NOW);
        odd.software = "<script>&\"'".into();
        registry
            .register_relay(registration_of(odd, NOW), None, &session(), NOW)
            .unwrap();
        let board = Arc::new(Board::default());
        let keys = ServiceKeys {
            identity: Arc::new(directory_key()),
            session: session().public(),
        };
        let alone = Alone::new(registry.clone(), board.clone(), keys, 600, None).unwrap();
        assert!(alone.tick(NOW).unwrap());
        let gauges = Gauges {
            relays: 1,
            names: 12,
            ..Gauges::default()
        };
        let published = board.newest();
        let relays = registry.live_relays();
        let html = render(&gauges, published.as_deref(), relays, NOW.plus(30));
        assert!(html.contains("relay1") && html.contains(&relay(1, NOW).short_id().to_string()));
        assert!(html.contains("45.1.0.2:7000") && html.contains("30 seconds ago"));
        assert!(html.contains("&lt;script&gt;&amp;&quot;&#39;") && !html.contains("<script"));
        assert!(html.contains(&directory_key().anonymous_id().to_string()));
        assert!(html.contains("http-equiv=\"refresh\""));
    }
}

//! The status and lookups as a person reads them.

use std::fmt::Write;
use std::time::SystemTime;

use mixline_protocol::time::UnixTime;
use serde_json::Value;

/// The status, from its JSON.
#[must_use]
pub fn status(status: &Value) -> String {
    let mut out = String::new();
    let uptime = duration(number(&status["uptime_s"]));
    let step = text(&status["step"]);
    let step = if step.is_empty() {
        String::new()
    } else {
        format!(": {step}")
    };
    let pid = number(&status["pid"]);
    line(
        &mut out,
        "state",
        &format!(
            "{}{step} (for {uptime}, process {pid})",
            text(&status["state"])
        ),
    );
    line(&mut out, "id", &format!("{}.anon", text(&status["id"])));
    line(&mut out, "interface", text(&status["interface"]));
    line(&mut out, "cpu", text(&status["cpu"]));
    let lease = match status["lease_expires"].as_u64() {
        Some(expires) => {
            let left = expires.saturating_sub(unix_now());
            format!(
                "{} (leased for {} more), ",
                text(&status["ipv4"]),
                duration(left)
            )
        }
        None => "no IPv4 lease yet, ".to_owned(),
    };
    line(&mut out, "addresses", &(lease + text(&status["ipv6"])));
    line(&mut out, "names", &names(status));
    line(&mut out, "dns", &dns(&status["dns"]));
    line(&mut out, "network", &network(status));
    let directories = &status["snapshot"]["directories"];
    if list(directories).len() > 1 {
        each(&mut out, "directories", directories, directory);
    }
    each(&mut out, "guards", &status["guards"], guard);
    each(&mut out, "layers", &status["layers"], layer);
    if status["budget"].is_object() {
        line(&mut out, "new relays", &budget(&status["budget"]));
    }
    let asked = ["suggested", "published", "waiting"].map(|key| number(&status["effort"][key]));
    if asked != [0; 3] {
        line(&mut out, "effort", &effort(asked, &status["counters"]));
    }
    let tails = &status["tails"];
    let counts = ["public", "private", "spare", "registering"]
        .map(|kind| format!("{} {kind}", number(&tails[kind])));
    line(&mut out, "tails", &counts.join(", "));
    line(&mut out, "queries", &queries(&status["directory"]));
    each(&mut out, "sessions", &status["sessions"], session);
    line(&mut out, "traffic", &counters(&status["counters"]));
    each(&mut out, "problems", &status["problems"], |problem| {
        text(problem).to_owned()
    });
    out
}

/// What a lookup found, from its JSON.
#[must_use]
pub fn resolved(found: &Value) -> String {
    let mut out = String::new();
    if found["found"] == false {
        // Said as what went wrong.
        return out;
    }
    line(&mut out, "name", or_none(&found["name"]));
    line(&mut out, "id", &format!("{}.anon", text(&found["id"])));
    line(&mut out, "ipv4", or_none(&found["ipv4"]));
    line(&mut out, "ipv6", or_none(&found["ipv6"]));
    if !list(&found["problems"]).is_empty() {
        each(&mut out, "problems", &found["problems"], |problem| {
            text(&problem["text"]).to_owned()
        });
    }
    out
}

/// Why a lookup found nothing, if it did not.
#[must_use]
pub fn not_found(found: &Value) -> Option<String> {
    let problem = &found["problems"][0]["text"];
    (found["found"] == false).then(|| text(problem).to_owned())
}

/// The lists of clients and services, for a person.
#[must_use]
pub fn clients(lists: &Value) -> String {
    let mut out = match lists["clients"].as_array() {
        None => "open to everybody: there is no list of clients\n".to_owned(),
        Some(none) if none.is_empty() => {
            "nobody may open a session: the list is empty\n".to_owned()
        }
        Some(all) => all
            .iter()
            .fold("who may open a session:\n".to_owned(), |out, client| {
                format!(
                    "{out}  {}  {}\n",
                    text(&client["key"]),
                    text(&client["name"])
                )
            }),
    };
    if let Some(services @ [_, ..]) = lists["services"].as_array().map(Vec::as_slice) {
        out += "a client of:\n";
        for service in services {
            out += &format!("  {}\n", text(service));
        }
    }
    out
}

fn names(status: &Value) -> String {
    let names = list(&status["names"]).iter().map(|name| {
        let reason = match text(&name["reason"]) {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        format!("{} ({}{reason})", text(&name["name"]), text(&name["state"]))
    });
    let names: Vec<String> = names.collect();
    match (names.is_empty(), status["accepting"].as_bool()) {
        (false, _) => names.join(", "),
        (true, Some(true)) => "none; reachable by ID".to_owned(),
        (true, _) => "none; nobody can open a session to this client".to_owned(),
    }
}

fn dns(dns: &Value) -> String {
    let resolver = match dns["resolver"].as_str() {
        Some(resolver) => format!("answering at {resolver}"),
        None => "not answering".to_owned(),
    };
    let upstream: Vec<&str> = list(&dns["upstream"]).iter().map(text).collect();
    let others = if upstream.is_empty() {
        "other domains are refused".to_owned()
    } else {
        format!("other domains go to {}", upstream.join(", "))
    };
    let mode = match text(&dns["mode"]) {
        "off" => "the host's resolver is left alone",
        "resolved" => "asked through systemd-resolved",
        _ => "asked through resolv.conf",
    };
    format!("{resolver}, {mode}; {others}")
}

fn network(status: &Value) -> String {
    let (network, snapshot) = (&status["network"], &status["snapshot"]);
    let mut out = match number(&network["issued"]) {
        0 => "no snapshot yet".to_owned(),
        issued => format!(
            "{} relays; snapshot {} old, valid for {} more",
            number(&network["relays"]),
            duration(unix_now().saturating_sub(issued)),
            duration(number(&network["valid_until"]).saturating_sub(unix_now())),
        ),
    };
    if let Some(roster) = snapshot["roster"].as_u64() {
        let round = number(&snapshot["round"]);
        let _ = write!(out, "; round {round} of the directories, roster {roster}");
    } else {
        let _ = write!(out, "; from {}", text(&snapshot["url"]));
    }
    out
}

/// How a directory has answered.
fn directory(of: &Value) -> String {
    let mut out = text(&of["url"]).to_owned();
    if let Some(name) = of["name"].as_str() {
        out = format!("{name} at {out}");
    }
    match (of["last_success"].as_u64(), of["last_error"].as_str()) {
        (None, None) => out += ": not asked yet",
        (Some(at), None) => {
            let ago = duration(unix_now().saturating_sub(at));
            let _ = write!(out, ": answered {ago} ago");
        }
        (_, Some(error)) => {
            let _ = write!(out, ": {error}");
        }
    }
    out
}

fn queries(directory: &Value) -> String {
    let mut out = format!(
        "{} to the directory under way",
        number(&directory["pending"])
    );
    match number(&directory["published"]) {
        0 => {}
        at => {
            let _ = write!(
                out,
                "; published {} ago",
                duration(unix_now().saturating_sub(at))
            );
        }
    }
    if let Some(error) = directory["last_error"].as_str() {
        let _ = write!(out, "; last error: {error}");
    }
    out
}

fn guard(guard: &Value) -> String {
    let mut out = format!("{} {}", text(&guard["name"]), text(&guard["state"]));
    if guard["temporary"] == true {
        out += " (for now, another is down)";
    }
    out += &milliseconds(&guard["rtt_ms"]);
    let _ = write!(out, ", {} mailboxes", number(&guard["mailboxes"]));
    if let Some(error) = guard["last_error"].as_str() {
        let _ = write!(out, "; last error: {error}");
    }
    out
}

/// The relays that are kept for one place behind the guards.
fn layer(layer: &Value) -> String {
    let relays = list(&layer["relays"]).iter().map(|relay| {
        let mut out = text(&relay["name"]).to_owned();
        let left = number(&relay["until"]).saturating_sub(unix_now());
        let _ = write!(out, " ({} more", duration(left));
        if relay["substitute"] == true {
            out += ", for another that is not there";
        }
        if relay["listed"] == false {
            out += ", not in the snapshot";
        }
        out + ")"
    });
    let relays: Vec<String> = relays.collect();
    format!("{}: {}", text(&layer["layer"]), relays.join(", "))
}

/// What heads and tails may take of relays that none has used.
fn budget(budget: &Value) -> String {
    let [left, most, hour] = ["left", "most", "per_hour"].map(|key| number(&budget[key]));
    let mut out = format!("{left} of {most} now, {hour} an hour");
    match number(&budget["peers_used_up"]) {
        0 => {}
        peers => {
            let _ = write!(out, "; {peers} peers have used up their share");
        }
    }
    out
}

/// What strangers are to spend on initiations. Nothing is said of it in quiet times.
fn effort([suggested, published, waiting]: [u64; 3], counters: &Value) -> String {
    let outranked = number(&counters["outranked_initiations"]);
    format!(
        "{suggested} hashes for a new session ({published} published); {waiting} wait, {outranked} gave way"
    )
}

fn session(session: &Value) -> String {
    let mut out = format!("{}.anon", text(&session["peer"]));
    if let Some(ipv4) = session["ipv4"].as_str() {
        let _ = write!(out, " {ipv4}");
    }
    let _ = write!(
        out,
        ": {} for {}",
        text(&session["state"]),
        duration(number(&session["age_s"]))
    );
    match text(&session["local"]) {
        "own" => {}
        local => {
            let _ = write!(out, ", under a throw-away ID for {local}");
        }
    }
    let traffic = &session["traffic"];
    let _ = write!(
        out,
        ", {} out, {} in",
        bytes(number(&traffic["bytes_out"])),
        bytes(number(&traffic["bytes_in"]))
    );
    if let Some(error) = session["last_error"].as_str() {
        let _ = write!(out, "; last error: {error}");
    }
    for path in list(&session["paths"]) {
        let head: Vec<&str> = list(&path["head"]).iter().map(text).collect();
        let _ = write!(
            out,
            "\n              path {} > [{} and on], {}{}, {} cells",
            head.join(" > "),
            text(&path["tail"]),
            text(&path["state"]),
            milliseconds(&path["rtt_ms"]),
            number(&path["cells"]),
        );
    }
    out
}

fn counters(counters: &Value) -> String {
    let mut out = format!(
        "{} packets out, {} in",
        number(&counters["packets_out"]),
        number(&counters["packets_in"])
    );
    for (key, what) in [
        ("unreachable", "answered by an ICMP error"),
        ("unroutable", "for nobody"),
        ("spoofed", "with an address that is not the sender's"),
        ("overflow", "dropped by full queues"),
        ("duplicates", "duplicates"),
        ("link_replays", "replays on links"),
        ("bad_cells", "cells that did not open"),
        ("bad_datagrams", "datagrams that did not authenticate"),
        ("paths_lost", "paths lost"),
    ] {
        match number(&counters[key]) {
            0 => {}
            count => {
                let _ = write!(out, ", {count} {what}");
            }
        }
    }
    out
}

fn line(out: &mut String, key: &str, value: &str) {
    let _ = writeln!(out, "{key:<11} {value}");
}

fn each(out: &mut String, key: &str, values: &Value, show: impl Fn(&Value) -> String) {
    let values = list(values);
    if values.is_empty() {
        return line(out, key, "none");
    }
    for (index, value) in values.iter().enumerate() {
        line(out, if index == 0 { key } else { "" }, &show(value));
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn or_none(value: &Value) -> &str {
    value.as_str().unwrap_or("none")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn milliseconds(value: &Value) -> String {
    value
        .as_f64()
        .map(|ms| format!(", {ms:.1} ms"))
        .unwrap_or_default()
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=9_999_999 => format!("{} kB", count / 1000),
        10_000_000..=9_999_999_999 => format!("{} MB", count / 1_000_000),
        _ => format!("{} GB", count / 1_000_000_000),
    }
}

fn unix_now() -> u64 {
    UnixTime::from(SystemTime::now()).0
}

#[cfg(test)]
mod tests {
    use mixline_endpoint::status::{
        BudgetStatus, EffortStatus, GuardStatus, KeptRelayStatus, LayerStatus, PathStatus,
        SessionStatus,
    };
    use serde_json::json;

    use super::*;
    use crate::daemon::status::{DirectoryAnswers, DnsStatus, Phase, SnapshotStatus, Status};
    use crate::host_dns::Active;

    fn answers(
        url: &str,
        name: Option<&str>,
        last_success: Option<u64>,
        last_error: Option<&str>,
    ) -> DirectoryAnswers {
        DirectoryAnswers {
            url: url.into(),
            name: name.map(Into::into),
            last_success,
            last_error: last_error.map(Into::into),
        }
    }

    fn example() -> Status {
        let mut endpoint = mixline_endpoint::Status {
            id: "own".into(),
            ipv4: Some("10.1.2.3".into()),
            ipv6: "fd00::1".into(),
            problems: vec!["first problem".into(), "second problem".into()],
            ..Default::default()
        };
        endpoint.guards.push(GuardStatus {
            name: "alpha".into(),
            state: "up".into(),
            rtt_ms: Some(1.25),
            ..Default::default()
        });
        endpoint.layers.push(LayerStatus {
            layer: "second".into(),
            relays: vec![
                KeptRelayStatus {
                    name: "beta".into(),
                    until: unix_now() + 7200,
                    listed: true,
                    ..Default::default()
                },
                KeptRelayStatus {
                    name: "iota".into(),
                    substitute: true,
                    ..Default::default()
                },
            ],
        });
        endpoint.budget = BudgetStatus {
            left: 9,
            most: 120,
            per_hour: 240,
            peers_used_up: 3,
        };
        endpoint.effort = EffortStatus {
            suggested: 8192,
            published: 4096,
            waiting: 5,
        };
        endpoint.counters.outranked_initiations = 17;
        endpoint.sessions.push(SessionStatus {
            peer: "peer".into(),
            state: "established".into(),
            local: "own".into(),
            paths: vec![PathStatus {
                head: vec!["alpha".into(), "beta".into(), "gamma".into()],
                tail: "delta".into(),
                state: "alive".into(),
                ..Default::default()
            }],
            ..Default::default()
        });
        Status {
            state: Phase::Up,
            step: String::new(),
            pid: 7,
            cpu: "vaes256",
            interface: "mixline0".into(),
            accepting: false,
            lease_expires: Some(unix_now() + 7200),
            dns: DnsStatus {
                mode: Active::ResolvConf,
                resolver: Some("10.0.0.53".parse().unwrap()),
                upstream: vec!["192.0.2.1".into()],
            },
            names: Vec::new(),
            snapshot: SnapshotStatus {
                url: "http://d".into(),
                last_success: None,
                last_error: None,
                clock_ahead_s: None,
                round: None,
                roster: None,
                directories: vec![answers("http://d", None, Some(unix_now()), None)],
            },
            endpoint,
        }
    }

    #[test]
    fn a_person_finds_everything() {
        let shown = status(&serde_json::to_value(example()).unwrap());
        for expected in [
            "up",
            "own.anon",
            "10.1.2.3 (leased for",
            "fd00::1",
            "alpha up, 1.2 ms",
            "second: beta (",
            "iota (0 s more, for another that is not there, not in the snapshot)",
            "9 of 120 now, 240 an hour; 3 peers have used up their share",
            "8192 hashes for a new session (4096 published); 5 wait, 17 gave way",
            "peer.anon: established",
            "alpha > beta > gamma > [delta and on], alive",
            "answering at 10.0.0.53, asked through resolv.conf; other domains go to 192.0.2.1",
            "none; nobody can open a session",
            "first problem",
            "second problem",
        ] {
            assert!(shown.contains(expected), "{expected:?} in:\n{shown}");
        }
    }

    #[test]
    fn of_several_directories_each_is_shown_and_which_round_is_believed() {
        let mut example = example();
        let shown = status(&serde_json::to_value(&example).unwrap());
        assert!(shown.contains("; from http://d\n") && !shown.contains("directories"));
        example.snapshot.round = Some(1_800_000_300);
        example.snapshot.roster = Some(2);
        example.snapshot.directories.extend([
            answers(
                "http://b",
                Some("berlin"),
                Some(unix_now() - 60),
                Some("it is behind"),
            ),
            answers("http://c", Some("cairo"), None, None),
        ]);
        let shown = status(&serde_json::to_value(&example).unwrap());
        for expected in [
            "; round 1800000300 of the directories, roster 2\n",
            "directories http://d: answered 0 s ago\n",
            " berlin at http://b: it is behind\n",
            " cairo at http://c: not asked yet\n",
        ] {
            assert!(shown.contains(expected), "{expected:?} in:\n{shown}");
        }
    }

    #[test]
    fn the_json_has_the_endpoints_fields_beside_the_clients() {
        let json = serde_json::to_value(example()).unwrap();
        assert_eq!(json["state"], "up");
        assert_eq!(json["ipv4"], "10.1.2.3");
        assert_eq!(json["guards"][0]["name"], "alpha");
        assert_eq!(json["layers"][0]["relays"][0]["name"], "beta");
        assert_eq!(json["budget"]["left"], 9);
        assert_eq!(json["dns"]["mode"], "resolv-conf");
    }

    #[test]
    fn a_status_with_nothing_in_it() {
        let shown = status(&json!({}));
        assert!(shown.contains("no snapshot yet"));
        assert!(!shown.contains("effort"), "quiet times");
    }

    #[test]
    fn a_lookup() {
        let shown = resolved(&json!({
            "name": "a.anon", "id": "x", "ipv4": null, "ipv6": "fd00::2"
        }));
        assert_eq!(
            shown,
            "name        a.anon\nid          x.anon\nipv4        none\nipv6        fd00::2\n"
        );
    }
}

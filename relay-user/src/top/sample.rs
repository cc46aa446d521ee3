//! A report for tests.

use crate::observe::Report;

/// A relay with two workers on XDP.
pub fn report() -> Report {
    serde_json::from_value(serde_json::json!({
        "name": "relay1", "id": "00", "short_id": "6f0c", "version": "0.1.0", "uptime_s": 18000,
        "listen": ["0.0.0.0:7000"], "advertise": ["192.0.2.1:7000"],
        "port": {
            "kind": "xdp", "why": "asked for", "check": "proven: full-sized frames arrive whole",
            "queues": [
                {"redirected": 1000, "received": 1000}, {"redirected": 2000, "received": 1990}
            ]
        },
        "cpu": "vaes512", "workers": 2, "memory_bytes": 54_525_952,
        "directory": {
            "url": "http://192.0.2.7", "relays": 12, "snapshot_age_s": 20,
            "snapshot_valid_for_s": 540, "registered_s_ago": 11, "listed": true,
            "last_error": null, "clock_ahead_s": null
        },
        "onion_epochs": [1, 2],
        "links": {"relays": 11, "clients": 40, "sessions": 62, "mailboxes": 160, "refused": 0},
        "paths": {"known": 412, "most": 131_072},
        "replay": {"horizon_s": 2400, "fill": 0.12},
        "load": 20311, "capacity": 400_000,
        "verdicts": {"forwarded": 5000, "loop": 0, "link_down": 3},
        "xdp": {"redirected": 3000},
        "inside": {"datagrams": 1000, "p50_us": 20.6, "p99_us": 20.6, "p999_us": 20.6},
        "per_worker": [
            {
                "received": 3000, "sent": 2500, "sessions": 31, "paths": 206, "cpu_s": 10.0,
                "inside": {"datagrams": 1000, "p50_us": 20.6, "p99_us": 20.6, "p999_us": 20.6},
                "inside_ns": [[20_480, 1000]]
            },
            {
                "received": 0, "sent": 0, "sessions": 31, "paths": 206, "cpu_s": null,
                "inside": {"datagrams": 0, "p50_us": 0.0, "p99_us": 0.0, "p999_us": 0.0},
                "inside_ns": []
            }
        ],
        "process": {
            "cpu_s": 20.0, "virtual_bytes": 1, "open_fds": 44, "max_fds": null, "threads": 5,
            "started": 1_790_000_000.0
        }
    }))
    .unwrap()
}

//! What is said to etcd's JSON gateway, and what it says (etcd 3.4, `rpc.proto`).
//!
//! Bytes are in base64, 64-bit numbers are strings, and what is zero or empty is left out.

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize};

/// Any answer: of which etcd it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Headed {
    pub header: Header,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    pub cluster_id: Option<String>,
}

/// `/v3/kv/txn`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<Operation>,
    pub failure: Vec<Operation>,
}

/// That a key has a `mod_revision`, or, with 0, is not there.
#[derive(Debug, Serialize)]
pub(super) struct Compare {
    key: String,
    target: &'static str,
    result: &'static str,
    mod_revision: String,
}

impl Compare {
    pub(super) fn revision(key: &[u8], revision: u64) -> Self {
        Self {
            key: BASE64.encode(key),
            target: "MOD",
            result: "EQUAL",
            mod_revision: revision.to_string(),
        }
    }
}

/// One step of a transaction.
#[derive(Debug, Serialize)]
pub(super) enum Operation {
    #[serde(rename = "request_range")]
    Range(Range),
    #[serde(rename = "request_put")]
    Put {
        key: String,
        value: String,
        lease: String,
    },
    #[serde(rename = "request_delete_range")]
    Delete { key: String },
}

impl Operation {
    /// With lease 0 the key stays for ever.
    pub(super) fn put(key: &[u8], value: &[u8], lease: i64) -> Self {
        Self::Put {
            key: BASE64.encode(key),
            value: BASE64.encode(value),
            lease: lease.to_string(),
        }
    }

    pub(super) fn delete(key: &[u8]) -> Self {
        let key = BASE64.encode(key);
        Self::Delete { key }
    }
}

/// `/v3/kv/range`.
#[derive(Debug, Serialize)]
pub(super) struct Range {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_end: Option<String>,
    limit: String,
    count_only: bool,
}

impl Range {
    /// One key.
    pub(super) fn one(key: &[u8]) -> Self {
        Self {
            key: BASE64.encode(key),
            range_end: None,
            limit: "1".into(),
            count_only: false,
        }
    }

    /// Up to `most` keys from `first` to before `end`, in order.
    pub(super) fn between(first: &[u8], end: &[u8], most: usize) -> Self {
        Self {
            key: BASE64.encode(first),
            range_end: Some(BASE64.encode(end)),
            limit: most.to_string(),
            count_only: false,
        }
    }

    /// How many keys there are from `first` to before `end`.
    pub(super) fn count(first: &[u8], end: &[u8]) -> Self {
        Self {
            count_only: true,
            ..Self::between(first, end, 0)
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TxnAnswer {
    pub succeeded: bool,
    pub responses: Vec<OperationAnswer>,
}

impl TxnAnswer {
    /// What its first range found.
    pub(super) fn found(self) -> RangeAnswer {
        let mut ranges = self.responses.into_iter().filter_map(|it| it.range);
        ranges.next().unwrap_or_default()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OperationAnswer {
    #[serde(rename = "response_range")]
    pub range: Option<RangeAnswer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RangeAnswer {
    pub kvs: Vec<KeyValue>,
    #[serde(deserialize_with = "number")]
    pub count: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub key: Vec<u8>,
    #[serde(default, deserialize_with = "bytes")]
    pub value: Vec<u8>,
    #[serde(deserialize_with = "number")]
    pub mod_revision: u64,
}

/// `/v3/lease/grant`.
#[derive(Debug, Serialize)]
pub(super) struct LeaseGrant {
    #[serde(rename = "TTL")]
    pub ttl: String,
    #[serde(rename = "ID")]
    pub id: String,
}

/// `/v3/lease/revoke`.
#[derive(Debug, Serialize)]
pub(super) struct LeaseRevoke {
    #[serde(rename = "ID")]
    pub id: String,
}

/// `/v3/lease/leases`, which asks for nothing.
#[derive(Debug, Serialize)]
pub(super) struct Leases {}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LeasesAnswer {
    pub leases: Vec<LeaseStatus>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LeaseStatus {
    #[serde(rename = "ID", deserialize_with = "signed")]
    pub id: i64,
}

/// `/v3/maintenance/alarm`: which alarms there are.
#[derive(Debug, Serialize)]
pub(super) struct Alarms {
    action: &'static str,
}

impl Alarms {
    pub(super) const ALL: Self = Self { action: "GET" };
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AlarmsAnswer {
    pub alarms: Vec<Alarm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Alarm {
    pub alarm: String,
}

impl AlarmsAnswer {
    /// Whether a member's quota is used up.
    pub(super) fn is_full(&self) -> bool {
        self.alarms.iter().any(|alarm| alarm.alarm == "NOSPACE")
    }
}

/// Any answer that is none: a status of gRPC.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refused {
    pub code: u32,
    pub message: String,
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    BASE64
        .decode(text.as_bytes())
        .map_err(serde::de::Error::custom)
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn signed<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an etcd 3.4.23 wrote it.
    #[test]
    fn answers_are_read() {
        let text = r#"{"header":{"cluster_id":"324952591200643719","revision":"2"},"responses":[
            {"response_range":{"header":{"revision":"2"},"kvs":[{"key":"YQ==","create_revision":"2",
            "mod_revision":"2","version":"1","value":"Yg==","lease":"77"}],"count":"1"}}]}"#;
        let answer: TxnAnswer = serde_json::from_str(text).unwrap();
        assert!(!answer.succeeded);
        let found = answer.found();
        assert_eq!(found.count, 1);
        let KeyValue {
            key,
            value,
            mod_revision,
        } = &found.kvs[0];
        assert_eq!(
            (key.as_slice(), value.as_slice(), *mod_revision),
            (&b"a"[..], &b"b"[..], 2)
        );
        let leases: LeasesAnswer = serde_json::from_str(r#"{"leases":[{"ID":"77"}]}"#).unwrap();
        assert_eq!(leases.leases[0].id, 77);
        let text = r#"{"alarms":[{"memberID":"9","alarm":"NOSPACE"}]}"#;
        let alarms: AlarmsAnswer = serde_json::from_str(text).unwrap();
        assert!(alarms.is_full());
        let none: AlarmsAnswer = serde_json::from_str("{}").unwrap();
        assert!(!none.is_full());
        let text = r#"{"error":"x","message":"etcdserver: requested lease not found","code":5}"#;
        let refused: Refused = serde_json::from_str(text).unwrap();
        assert_eq!(refused.code, 5);
    }

    #[test]
    fn what_is_odd_is_refused() {
        for text in [
            r#"{"kvs":[{"key":"YQ=","mod_revision":"2"}]}"#,
            r#"{"kvs":[{"key":"YQ==","mod_revision":"-2"}]}"#,
            r#"{"kvs":[{"key":"YQ=="}]}"#,
            r#"{"kvs":7}"#,
        ] {
            serde_json::from_str::<RangeAnswer>(text).unwrap_err();
        }
    }
}

//! The path packet against vectors that an independent implementation made.
#![cfg(feature = "vectors")]
#![allow(clippy::unwrap_used)]

use mixline_protocol::path::vectors::check;

const VECTORS: &str = include_str!("vectors/path.json");

#[test]
fn vectors_of_another_implementation() {
    assert_eq!(check(VECTORS).unwrap(), 8);
}

/// A checker that accepts everything would pass the test above, so: each field counts.
#[test]
fn a_change_anywhere_is_found() {
    let vectors: Vec<serde_json::Value> = serde_json::from_str(VECTORS).unwrap();
    let mut changed = 0;
    for pointer in [
        "/relays/1/short_id",
        "/relays/1/onion_secret",
        "/head_secret",
        "/head_random_rest",
        "/tail_secret",
        "/tail_token",
        "/tail_filling",
        "/tail_published/first",
        "/tail_published/alpha",
        "/tail_published/gamma",
        "/tail_published/beta",
        "/tail_published/seed",
        "/message",
        "/hops/0/in",
        "/hops/1/in",
        "/hops/1/argument",
        "/hops/1/replay_tag",
        "/delivered",
    ] {
        // Shapes of one relay each leave room for filling to matter.
        let mut vector = vectors[1].clone();
        let field = vector.pointer_mut(pointer).unwrap();
        let mut text = field.as_str().unwrap().to_owned();
        // The second digit of the second byte: clamping does not hide it.
        let digit = if text.as_bytes()[3] == b'0' { "1" } else { "0" };
        text.replace_range(3..4, digit);
        *field = text.into();
        let json = serde_json::to_string(&[vectors[0].clone(), vector]).unwrap();
        let error = check(&json).expect_err(pointer).to_string();
        assert!(error.starts_with("vector 2: "), "{pointer}: {error}");
        changed += 1;
    }
    assert_eq!(changed, 18);
    let mut vector = vectors[0].clone();
    vector["hops"][2]["command"] = 1.into();
    let error = check(&serde_json::to_string(&[vector]).unwrap()).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("vector 1: hop 3: command: "), "{error}");
}

#[test]
fn what_is_no_vector_is_an_error() {
    for json in ["", "[]", "{}", "[{}]", "[1]"] {
        assert!(check(json).is_err(), "{json}");
    }
    let text = VECTORS.replacen("\"head_length\":3", "\"head_length\":7", 1);
    assert_ne!(text, VECTORS);
    assert!(check(&text).is_err());
}

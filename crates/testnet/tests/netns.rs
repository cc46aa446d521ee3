//! Namespaces as tests use them. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use mixline_testnet::netns::{Namespace, add, delete, exists, ip, ip_in, ip_output};
use mixline_testnet::skip;

#[test]
fn a_new_namespace_has_a_loopback_interface_only() {
    let Some(namespace) = skip::namespace_or_skip() else {
        return;
    };
    let here = ip_output("-o link show").unwrap();
    let there = namespace.run(|| {
        ip("link add one type veth peer name two\nlink set lo up\n").unwrap();
        ip_output("-o link show").unwrap()
    });
    assert_eq!(there.unwrap().lines().count(), 3);
    assert_eq!(ip_output("-o link show").unwrap(), here);
}

#[test]
fn a_namespace_with_a_name_is_the_same_from_everywhere() {
    if !skip::is_root_or_skip() {
        return;
    }
    let name = format!("mixline-test-{}-netns", std::process::id());
    add(&name).unwrap();
    assert!(exists(&name));
    ip_in(&name, "link add one type veth peer name two\n").unwrap();
    let there = Namespace::named(&name)
        .unwrap()
        .run(|| ip_output("-o link show").unwrap());
    delete(&name).unwrap();
    assert_eq!(there.unwrap().lines().count(), 3);
    assert!(!exists(&name));
}

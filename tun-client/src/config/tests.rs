use std::path::{Path, PathBuf};

use mixline_endpoint::EngineConfig;
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;

use super::*;

fn minimal() -> String {
    format!(
        "directory:\n  url: http://172.20.0.2:8080\n  id: {}\n",
        AnonymousId([7; 32])
    )
}

/// What is said about a text that is not taken.
fn refused(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

#[test]
fn only_the_network_is_needed() {
    let config = Config::parse(&minimal()).unwrap();
    assert_eq!(config.interface, "mixline0");
    assert_eq!(config.mtu, 1500);
    assert_eq!(config.network.id, AnonymousId([7; 32]).into());
    assert_eq!(config.network.urls, ["http://172.20.0.2:8080"]);
    assert_eq!(
        config.control_socket(),
        Path::new("/var/lib/mixline/control.sock")
    );
    assert_eq!(
        config.control_sockets().0,
        ["/var/lib/mixline/control.sock", "/run/mixline/client.sock"].map(PathBuf::from)
    );
    assert_eq!(config.dns, Dns::default());
    assert_eq!(config.accept, Accept::Published);
    let error = refused("interface: mixline0\n");
    assert!(error.contains("which network?"), "{error}");
}

#[test]
fn everything_is_read() {
    let text = minimal()
        + "state_dir: /tmp/a\ninterface: mix1\nmtu: 9000\ncontrol_socket: /run/m.sock\n\
           publish: [FreeSpeech, other.anon]\naccept: always\n\
           dns: {mode: resolv-conf, upstream: [192.0.2.1, \"[2001:db8::1]:5353\"], forward: false}\n\
           policies: [{port: 5060, policy: duplicate 2}]\n\
           guards: 2\nhead_length: 1\ntail_length: 4\npublic_tails: 8\nprivate_tails: 2\n";
    let config = Config::parse(&text).unwrap();
    let names: Vec<&str> = config.publish.iter().map(Label::as_str).collect();
    assert_eq!(names, ["freespeech", "other"]);
    assert_eq!(config.accept, Accept::Always);
    assert_eq!(config.dns.mode, DnsMode::ResolvConf);
    assert_eq!(
        config.dns.upstream,
        [
            "192.0.2.1:53".parse().unwrap(),
            "[2001:db8::1]:5353".parse().unwrap()
        ]
    );
    assert!(!config.dns.forward);
    assert_eq!(config.policies.len(), 1);
    let engine = config.engine();
    assert_eq!(
        (engine.guards, engine.head_length, engine.tail_length),
        (2, 1, 4)
    );
    assert_eq!((engine.public_tails, engine.private_tails), (8, 2));
    assert_eq!((engine.mtu, engine.policies.len()), (9000, 1));
}

#[test]
fn the_defaults_of_paths_are_those_of_the_engine() {
    let config = Config::parse(&minimal()).unwrap();
    assert_eq!(config.engine(), EngineConfig::default());
}

#[test]
fn a_wrong_key_is_named_with_its_line() {
    let error = refused(&(minimal() + "interfaec: mixline1\n"));
    assert!(
        error.contains("interfaec") && error.contains("line 4"),
        "{error}"
    );
    let error = refused(&(minimal() + "dns:\n  mod: off\n"));
    assert!(error.contains("dns") && error.contains("mod"), "{error}");
    assert!(error.contains("line 5"), "{error}");
    let error = refused(&(minimal() + "dns: {mode: perhaps}\n"));
    assert!(
        error.contains("perhaps") && error.contains("resolv-conf"),
        "{error}"
    );
    assert!(error.contains("line 4"), "{error}");
}

#[test]
fn wrong_values_are_named() {
    for (line, key) in [
        ("interface: a-name-that-is-too-long", "interface"),
        ("interface: ../etc", "interface"),
        ("mtu: 1000", "mtu"),
        ("mtu: 70000", "mtu"),
        ("state_dir: relative", "state_dir"),
        ("publish: [www.example.com]", "publish"),
        ("publish: a", "publish"),
        ("accept: never\npublish: [a]", "accept"),
        ("dns: {upstream: [nonsense]}", "dns"),
        ("policies: [{policy: fastest}]", "policies"),
        ("guards: 0", "guards"),
        ("guards: 6", "guards"),
        ("head_length: 0", "head_length"),
        ("head_length: 5", "head_length"),
        ("tail_length: 5", "tail_length"),
        ("public_tails: 0", "public_tails"),
        ("public_tails: 9", "public_tails"),
        ("private_tails: 1", "private_tails"),
        ("private_tails: 5", "private_tails"),
        ("head_length: -1", "head_length"),
    ] {
        let error = refused(&format!("{}{line}\n", minimal()));
        assert!(error.contains(key), "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let error = refused("directory: {url: \"http://a\", id: abc}");
    assert!(
        error.contains("directory") && error.contains("abc"),
        "{error}"
    );
    let text = minimal().replace("http://", "ftp://");
    assert!(refused(&text).contains("directory.url"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/client.yaml"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nonexistent/client.yaml"), "{error}");
}

#[test]
fn names_with_and_without_their_domain() {
    assert_eq!(parse_label("a.anon"), parse_label("A"));
    assert!(parse_label(&AnonymousId([1; 32]).host()).is_err());
    assert!(parse_label("a.b.anon").is_err());
    assert!(parse_label("").is_err());
}

#[test]
fn a_network_of_several_directories() {
    let id = AnonymousId([7; 32]);
    let text = format!("network: {id}\ndirectories: [http://a:1, \"http://[2001:db8::1]:2\"]\n");
    let config = Config::parse(&text).unwrap();
    assert_eq!(config.network.id, id.into());
    assert_eq!(
        config.network.urls,
        ["http://a:1", "http://[2001:db8::1]:2"]
    );
    for (wrong, said) in [
        (text.clone() + &minimal(), "only one of them counts"),
        (format!("network: {id}\n"), "directories"),
        (format!("network: {id}\ndirectories: []\n"), "directories"),
        ("directories: [http://a]\n".to_owned(), "network: ID"),
        (
            text.replace("http://a:1", "ftp://a"),
            "directories: \"ftp://a\"",
        ),
        (
            text.replace("http://a:1", "http://a:99999"),
            "directories: ",
        ),
        ("network: abc\ndirectories: [http://a]\n".to_owned(), "abc"),
    ] {
        let error = refused(&wrong);
        assert!(error.contains(said), "{wrong}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

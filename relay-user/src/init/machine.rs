//! What a new relay's configuration takes from the machine: the addresses of its way out, the port that
//! goes there, and the interface where that does not follow from the addresses.

use std::net::IpAddr;

use super::InitError;
use crate::config::Config;
use crate::{default_route, port};

/// The interface that leads out, and its addresses.
pub struct Machine {
    /// Its name, if one was named or there is a default route.
    way_out: Option<String>,
    /// All of them.
    pub addresses: Vec<IpAddr>,
}

/// What goes into the configuration beside what a person said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// Why XDP cannot work here, so that `udp` stands in place of `auto`.
    pub only_udp: Option<String>,
    /// The interface, where none has an address at which others reach the relay.
    pub interface: Option<String>,
}

impl Machine {
    /// Looks at the interface of this name, or at that of the default route.
    ///
    /// # Errors
    /// [`InitError::NoInterface`] if there is none of this name.
    pub fn look(interface: Option<&str>) -> Result<Self, InitError> {
        let way_out = interface
            .map(str::to_owned)
            .or_else(default_route::interface);
        let addresses = way_out
            .as_deref()
            .map(port::addresses_of)
            .unwrap_or_default();
        match interface {
            Some(name) if addresses.is_empty() => Err(InitError::NoInterface {
                name: name.to_owned(),
                there: port::all_cards(),
            }),
            _ => Ok(Self { way_out, addresses }),
        }
    }

    /// What a configuration without proposals should say beside.
    pub fn propose(&self, config: &Config) -> Proposal {
        let (interface, is_said) = match port::interface_of(config) {
            Ok(name) => (Some(name), true),
            // Behind a translator, nothing says which one it is.
            Err(_) => (self.way_out.clone(), false),
        };
        let tried = interface.as_deref().map(port::may_have_xdp);
        Proposal {
            only_udp: tried.and_then(|tried| tried.err()).map(|why| {
                // It stands in a line of the file.
                why.to_string().replace('\n', " ")
            }),
            interface: interface.filter(|_| !is_said),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(advertise: &str) -> Config {
        let text = format!(
            "name: a\nstate_dir: /nowhere\nlisten: [\"0.0.0.0:7000\"]\nadvertise: [\"{advertise}\"]\n\
             directory: {{url: \"http://host:1\", id: {}}}\n",
            mixline_protocol::identity::AnonymousId([7; 32])
        );
        Config::parse(Path::new("relay.yaml"), &text).unwrap()
    }

    #[test]
    fn the_loopback_interface_has_no_xdp_and_is_named_only_if_need_be() {
        let machine = Machine::look(Some("lo")).unwrap();
        let own = machine.propose(&config("127.0.0.1:7000"));
        assert_eq!(own.interface, None);
        let why = own.only_udp.unwrap();
        // Or the program was built without.
        assert!(why.contains("XDP"), "{why}");
        let outer = machine.propose(&config("192.0.2.1:7000"));
        assert_eq!(outer.interface.as_deref(), Some("lo"));
    }

    #[test]
    fn an_interface_that_is_not_there_is_refused_with_those_that_are() {
        let error = Machine::look(Some("none-such")).err().unwrap().to_string();
        assert!(
            error.starts_with("no interface none-such") && error.contains("lo"),
            "{error}"
        );
    }
}

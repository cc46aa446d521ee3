//! Mailboxes at some relays for many link keys of one address, as many for each as it may have.

use std::time::Duration;

use anyhow::Result;
use mixline_protocol::link::control::Control;
use mixline_protocol::path::MailboxToken;
use mixline_protocol::random::OsRandom;
use mixline_testnet::link_client::Client;
use rand_core::Rng as _;

use super::cells::link;
use super::turns::{Limits, Turn};
use super::{Network, relays};

/// Tokens in a message.
const TOKENS: usize = 100;
/// As long as a relay keeps a token, in seconds.
const LIFETIME: u32 = 25 * 3600;
/// Between two links to one relay, so that handshakes do not put it under load, where an address has few.
const APART: Duration = Duration::from_millis(10);

/// Where, and how many.
#[derive(Debug, clap::Args)]
pub struct How {
    /// The relays.
    #[arg(long)]
    relay: Vec<String>,
    /// Link keys.
    #[arg(long)]
    keys: usize,
    /// Messages for each key, of 100 tokens each.
    #[arg(long)]
    messages: u64,
}

pub fn attack(network: &Network, limits: &Limits, how: &How) -> Result<()> {
    let relays = relays(&network.snapshot()?, &how.relay)?;
    let mut turn = Turn::wait(limits)?;
    let mut clients: Vec<Client> = Vec::new();
    let mut registered = vec![0; how.keys];
    while turn.goes_on() {
        if clients.len() < how.keys {
            let mut client = Client::at("0.0.0.0:0");
            if relays.iter().all(|relay| link(&mut client, relay).is_ok()) {
                clients.push(client);
            }
            std::thread::sleep(APART);
        }
        // Once all have as many as there are, they register the same number again: ever other ones.
        for (client, messages) in clients.iter().zip(&mut registered) {
            let full = clients.len() == how.keys && *messages >= how.messages;
            if !full && *messages >= how.messages {
                continue;
            }
            for relay in 0..relays.len() {
                client.say(relay, &register());
                turn.sent(1);
            }
            *messages += 1;
        }
    }
    // Without their owner's goodbye, relays keep them for minutes.
    for client in &clients {
        for relay in 0..relays.len() {
            client.say(relay, &Control::Close);
        }
    }
    turn.end()
}

/// A hundred mailboxes that nobody has.
fn register() -> Control {
    let rng = &mut OsRandom::new();
    let token = |_| (MailboxToken(rng.next_u64().to_be_bytes()), LIFETIME);
    let tokens = (0..TOKENS).map(token).collect();
    Control::Register { request: 1, tokens }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_full_as_it_may_be() {
        let message = register();
        let mut cell = [0; 1368];
        message.encode_into(&mut cell).unwrap();
        assert_eq!(Control::decode(&cell), Ok(message));
    }
}

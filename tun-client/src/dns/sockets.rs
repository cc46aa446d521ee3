//! Whose a socket of this host is, by the kernel's tables of sockets (proc(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Transport;

/// How likely it is that a name server of this host asks here what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    /// Somebody else asks.
    No,
    /// It may be another program of the same user, root.
    Perhaps,
    /// Asker and server are of one user that has no other reason to ask.
    Yes,
}

/// Whether whoever asks from `asker` is the server that listens at `server`.
#[must_use]
pub fn is_server(asker: SocketAddr, server: SocketAddr, transport: Transport) -> Guess {
    let tables = match transport {
        Transport::Udp => ["udp", "udp6"],
        Transport::Tcp => ["tcp", "tcp6"],
    };
    let mut rows = Vec::new();
    for table in tables {
        let text = std::fs::read_to_string(format!("/proc/self/net/{table}"));
        rows.extend(text.unwrap_or_default().lines().filter_map(row));
    }
    guess(&rows, asker, server)
}

fn guess(rows: &[Row], asker: SocketAddr, server: SocketAddr) -> Guess {
    let users = |of: SocketAddr| {
        let of_it = move |row: &&Row| {
            row.local.port() == of.port()
                && (row.local.ip() == of.ip() || row.local.ip().is_unspecified())
        };
        rows.iter().filter(of_it).map(|row| row.user)
    };
    users(asker)
        .filter(|user| users(server).any(|other| other == *user))
        .map(|user| {
            if user == 0 {
                Guess::Perhaps
            } else {
                Guess::Yes
            }
        })
        .next()
        .unwrap_or(Guess::No)
}

/// A socket: where it is bound, and whose it is.
struct Row {
    local: SocketAddr,
    user: u32,
}

fn row(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace();
    let local = words.nth(1)?;
    // Remote address, state, queues, timer, retransmissions; then the user.
    let user = words.nth(5)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of four bytes, each in the machine's order.
    let bytes: Vec<u8> = (0..address.len() / 8)
        .map(|word| u32::from_str_radix(address.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()?
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let address = if let Ok(octets) = <[u8; 4]>::try_from(bytes.as_slice()) {
        IpAddr::V4(Ipv4Addr::from(octets))
    } else {
        let octets = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
        Ipv6Addr::from(octets).to_canonical()
    };
    Some(Row {
        local: SocketAddr::new(address, port),
        user,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_this_process_are_found() {
        let own = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = own.local_addr().unwrap();
        let table = std::fs::read_to_string("/proc/self/net/udp").unwrap();
        let rows: Vec<Row> = table.lines().filter_map(row).collect();
        let user = nix::unistd::geteuid().as_raw();
        assert!(rows.iter().any(|row| row.local == own && row.user == user));
    }

    #[test]
    fn one_user_on_both_sides() {
        let row = |local: &str, user| Row {
            local: local.parse().unwrap(),
            user,
        };
        let rows = [
            row("0.0.0.0:53", 104),
            row("10.0.0.53:53", 0),
            row("127.0.0.1:40000", 104),
            row("127.0.0.1:40001", 1000),
            row("[::]:5353", 0),
            row("[::]:40002", 0),
        ];
        let guess = |asker: &str, server: &str| {
            guess(&rows, asker.parse().unwrap(), server.parse().unwrap())
        };
        assert_eq!(guess("127.0.0.1:40000", "127.0.0.1:53"), Guess::Yes);
        assert_eq!(guess("127.0.0.1:40001", "127.0.0.1:53"), Guess::No);
        assert_eq!(guess("127.0.0.1:40009", "127.0.0.1:53"), Guess::No);
        assert_eq!(guess("[::1]:40002", "[::1]:5353"), Guess::Perhaps);
    }

    #[test]
    fn rows_of_both_families() {
        if cfg!(target_endian = "big") {
            return;
        }
        let line = "  75: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   \
                    104        0 1234 2 0000000000000000 0";
        let found = row(line).unwrap();
        assert_eq!(found.local, "127.0.0.53:53".parse().unwrap());
        assert_eq!(found.user, 104);
        let line = "  75: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 \
                    00000000:00000000 00:00000000 00000000     0        0 1234 2 0000000000000000 0";
        assert_eq!(row(line).unwrap().local, "[::1]:53".parse().unwrap());
        assert!(row("sl local_address rem_address").is_none());
    }
}

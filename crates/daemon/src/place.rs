//! Where a daemon serves over HTTP, which may change while it runs.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a socket that is given up may take to be gone.
const GONE: Duration = Duration::from_secs(1);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(5);

/// Done when a place is given up.
pub type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;
type Serve = Box<dyn Fn(TcpListener, Stop) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Where something is served: at one address, or nowhere. It ends when this is dropped.
pub struct Place {
    serve: Serve,
    at: Option<(SocketAddr, watch::Sender<bool>)>,
    /// The one that accepts, and those that finish what is under way.
    serving: JoinSet<()>,
}

impl Place {
    /// Nowhere yet. `serve` serves at a listener until it is told to stop, and finishes then what is
    /// under way.
    pub fn new<S, F>(serve: S) -> Self
    where
        S: Fn(TcpListener, Stop) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            serve: Box::new(move |listener, stop| Box::pin(serve(listener, stop))),
            at: None,
            serving: JoinSet::new(),
        }
    }

    /// Serves at `address` from now on, where `listener` listens. What is under way at the address
    /// before is finished.
    pub fn open(&mut self, address: SocketAddr, listener: TcpListener) {
        self.give_up();
        while self.serving.try_join_next().is_some() {}
        let (stop, mut stopped) = watch::channel(false);
        let stopped = Box::pin(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        self.serving.spawn((self.serve)(listener, stopped));
        self.at = Some((address, stop));
    }

    /// Serves at another address from now on, or nowhere. Nobody is turned away meanwhile, unless the
    /// two overlap, as an address and all addresses with its port do: then it takes a moment.
    ///
    /// # Errors
    /// Why nobody can listen there. Then it is served where it was.
    pub async fn move_to(&mut self, to: Option<SocketAddr>) -> io::Result<()> {
        let Some(to) = to else {
            self.give_up();
            return Ok(());
        };
        let before = self.at.as_ref().map(|(address, _)| *address);
        match (TcpListener::bind(to).await, before) {
            (Ok(listener), _) => {
                self.open(to, listener);
                Ok(())
            }
            (Err(error), Some(before))
                if error.kind() == io::ErrorKind::AddrInUse && before.port() == to.port() =>
            {
                self.give_up();
                let moved = bind_soon(to).await;
                let (address, listener) = match moved {
                    Ok(listener) => (to, Ok(listener)),
                    Err(_) => (before, bind_soon(before).await),
                };
                match listener {
                    Ok(listener) => self.open(address, listener),
                    Err(error) => tracing::error!(%error, "{before} is served no longer"),
                }
                if address == to { Ok(()) } else { Err(error) }
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Ends, when what is under way is finished.
    pub async fn close(&mut self) {
        self.give_up();
        while self.serving.join_next().await.is_some() {}
    }

    fn give_up(&mut self) {
        if let Some((_, stop)) = self.at.take() {
            stop.send_replace(true);
        }
    }
}

/// Listens at an address that is about to be free.
async fn bind_soon(address: SocketAddr) -> io::Result<TcpListener> {
    let end = Instant::now() + GONE;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                tokio::time::sleep(LOOK).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Serves one byte to each connection.
    fn place() -> Place {
        Place::new(|listener, stop| async move {
            let accept = async {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = stream.write_all(b"!").await;
                }
            };
            tokio::select! {
                () = accept => {}
                () = stop => {}
            }
        })
    }

    async fn is_served(address: SocketAddr) -> bool {
        let Ok(mut stream) = TcpStream::connect(address).await else {
            return false;
        };
        stream.read_u8().await.is_ok()
    }

    fn at(address: &str, port: u16) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), port)
    }

    #[tokio::test]
    async fn it_moves_to_any_address_and_stays_where_it_can_be() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut place = place();
        place.move_to(None).await.unwrap();
        place.move_to(Some(at("127.0.0.1", port))).await.unwrap();
        assert!(is_served(at("127.0.0.1", port)).await);
        // An address that overlaps, and back.
        place.move_to(Some(at("0.0.0.0", port))).await.unwrap();
        assert!(is_served(at("127.0.0.2", port)).await);
        place.move_to(Some(at("127.0.0.3", port))).await.unwrap();
        assert!(is_served(at("127.0.0.3", port)).await);
        assert!(!is_served(at("127.0.0.1", port)).await);
        // Taken by another, or no address of this machine.
        let other = TcpListener::bind("127.0.0.4:0").await.unwrap();
        for wrong in [other.local_addr().unwrap(), at("192.0.2.1", port)] {
            assert!(place.move_to(Some(wrong)).await.is_err());
            assert!(is_served(at("127.0.0.3", port)).await);
        }
        let taken = TcpListener::bind(at("127.0.0.5", port)).await.unwrap();
        let error = place.move_to(Some(at("0.0.0.0", port))).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(is_served(at("127.0.0.3", port)).await);
        drop(taken);
        place.move_to(None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!is_served(at("127.0.0.3", port)).await);
        place.close().await;
    }
}

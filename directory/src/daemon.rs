//! Putting the parts together and keeping them going.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mixline_daemon::reload::Origin;
use mixline_daemon::service_manager;
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::time::UnixTime;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::board::Board;
use crate::config::Config;
use crate::endpoint::PrivatePart;
use crate::http::{App, listen};
use crate::link::Place;
use crate::metrics::{Metrics, count};
use crate::query_service::QueryService;
use crate::registry::{Limits, Registry};
use crate::reload::Reloader;
use crate::rounds::alone::Alone;
use crate::rounds::past::Past;
use crate::rounds::several::{Inbox, Membership, Several};
use crate::rounds::{Maker, ServiceKeys};
use crate::service::{self, Life, SWEEP, TICK};
use crate::store::Store;
use crate::{Error, Result, control, keys, store};

/// Runs a directory until `told` says so, or until its store takes no more writes: who
/// supervises it starts it again, which is what the store needs. It reads its configuration again when
/// its `origin` is asked for, by one of its hangups or at the control socket.
///
/// # Errors
/// [`Error`], if it cannot start, or cannot go on.
pub async fn run(
    config: Config,
    origin: Option<(Origin, Signal)>,
    mut told: watch::Receiver<bool>,
) -> Result<()> {
    let (quit, stop) = watch::channel(false);
    let membership = match &config.roster {
        Some(roster) => Some(Membership::load(roster, &config.state_dir, now())?),
        None => None,
    };
    let keys = match membership {
        Some(_) => keys::load_of_several(&config.state_dir)?,
        None => keys::load(&config.state_dir)?,
    };
    let listener = listen::bind(config.listen).await?;
    let address = listener.local_addr().unwrap_or(config.listen);
    let store = open_store(&config).await?;
    let control = control::listen(&config.state_dir);
    let identity = Arc::new(keys.identity);
    let now = now();
    let registry = Arc::new(Registry::open(
        store,
        identity.clone(),
        config.parameters(),
        config.admission_policy(),
        Limits::default(),
        now,
    )?);
    registry.remember_time(now)?;
    let board = Arc::new(Board::default());
    let past = Past::open(&config.state_dir)?;
    let own = ServiceKeys {
        identity: identity.clone(),
        session: keys.session.public(),
    };
    let (maker, inbox) = match membership {
        None => {
            let (registry, board) = (registry.clone(), board.clone());
            let alone = Alone::new(registry, board, own, config.snapshot_validity_s, Some(past))?;
            alone.tick(now)?;
            (Maker::Alone(Arc::new(alone)), None)
        }
        Some(membership) => {
            let (registry, board) = (registry.clone(), board.clone());
            let time = SystemTime::now();
            let (several, inbox) = Several::new(membership, own, (registry, board), past, time)?;
            (Maker::Several(several), Some(inbox))
        }
    };
    let metrics = Arc::new(Metrics::default());
    let app = App::new(
        registry.clone(),
        board.clone(),
        maker.clone(),
        metrics.clone(),
        keys.session.clone(),
    );
    tracing::info!("directory {} serves http://{address}", registry.id());
    let network = match &maker {
        Maker::Alone(_) => *registry.id(),
        Maker::Several(several) => {
            let roster = several.roster();
            tracing::info!(
                "directory {} of {} of network {}, version {} of its roster",
                several.index() + 1,
                roster.members.len(),
                roster.network(),
                roster.version
            );
            AnonymousId(roster.network().0)
        }
    };
    if let Some(Ok(network)) = Place::of(address).map(|place| place.network(network)) {
        tracing::info!("others join by {network}, or by `mixline-directory link URL`");
    }

    let life = Arc::new(Life::default());
    let place = listen::place(config.listen, listener, app, metrics.clone());
    let (origin, hangups) = origin.unzip();
    let reloader = Arc::new(Reloader::new(
        config.clone(),
        origin,
        registry.clone(),
        maker.clone(),
        place,
    ));
    let mut tasks = JoinSet::new();
    tasks.spawn(make_snapshots(
        registry.clone(),
        (maker, inbox),
        metrics.clone(),
        life.clone(),
        stop.clone(),
    ));
    tasks.spawn(sweep(registry.clone(), life.clone(), stop.clone()));
    let private_part = PrivatePart {
        identity,
        session: keys.session,
        service: Arc::new(QueryService::new(registry.clone(), metrics)),
        board,
        life: life.clone(),
    };
    tasks.spawn(private_part.run(reloader.follow(), stop.clone()));
    let mut notices = JoinSet::new();
    notices.spawn(service::show_status(
        registry.clone(),
        address,
        reloader.follow(),
    ));
    match control {
        Ok(listener) => {
            notices.spawn(control::serve(listener, reloader.clone()));
        }
        // SIGHUP reaches it as well.
        Err(error) => tracing::warn!("no control socket, for `reload`: {error}"),
    }
    if let Some(hangups) = hangups {
        notices.spawn(reload_on(hangups, reloader.clone()));
    }
    notices.spawn(service::keep_alive(life));
    service_manager::ready(&service::line(&registry, address));
    let failure = tokio::select! {
        // Whether told to, or because who could tell is gone.
        _ = told.wait_for(|told| *told) => None,
        failure = store_failure(&registry) => Some(failure),
    };
    tracing::info!("stopping");
    notices.shutdown().await;
    service_manager::stopping("answering the requests that are under way");
    quit.send_replace(true);
    reloader.close().await;
    while tasks.join_next().await.is_some() {}
    match failure {
        None => Ok(()),
        Some(reason) => Err(Error::Store(format!(
            "{reason}; nothing that was acknowledged is lost; is the disk full?"
        ))),
    }
}

/// Opens the store, which may take seconds.
async fn open_store(config: &Config) -> Result<Box<dyn Store>> {
    let database = keys::database(&config.state_dir);
    let etcd = config.store.etcd.clone();
    let opened = tokio::task::spawn_blocking(move || store::open(&database, etcd.as_ref())).await;
    opened.map_err(|error| Error::Store(error.to_string()))?
}

/// Reads the configuration again at each of these signals. What comes out is in the log.
async fn reload_on(mut signals: Signal, reloader: Arc<Reloader>) {
    while signals.recv().await.is_some() {
        let _ = reloader.reload().await;
    }
}

/// Waits until the store takes no more writes; says why.
async fn store_failure(registry: &Registry) -> String {
    loop {
        if let Some(reason) = registry.failure() {
            return reason;
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn make_snapshots(
    registry: Arc<Registry>,
    (maker, inbox): (Maker, Option<Inbox>),
    metrics: Arc<Metrics>,
    life: Arc<Life>,
    mut stop: watch::Receiver<bool>,
) {
    let alone = match maker {
        Maker::Alone(alone) => alone,
        Maker::Several(several) => {
            if let Some(inbox) = inbox {
                let silent = forget_silent(registry, stop.clone());
                tokio::select! {
                    () = several.run(inbox, life, stop) => {}
                    () = silent => {}
                }
            }
            return;
        }
    };
    while !stopped(&mut stop, TICK).await {
        Life::count(&life.snapshots);
        let (registry, alone) = (registry.clone(), alone.clone());
        // Waiting for the disk is not for a thread that serves.
        let made = tokio::task::spawn_blocking(move || {
            let now = now();
            registry.forget_silent(now);
            alone.tick(now)
        });
        match made.await {
            Ok(Ok(true)) => count(&metrics.snapshots_made),
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(error)) => tracing::error!("{error}"),
        }
    }
}

async fn forget_silent(registry: Arc<Registry>, mut stop: watch::Receiver<bool>) {
    while !stopped(&mut stop, TICK).await {
        let registry = registry.clone();
        let _ = tokio::task::spawn_blocking(move || registry.forget_silent(now())).await;
    }
}

async fn sweep(registry: Arc<Registry>, life: Arc<Life>, mut stop: watch::Receiver<bool>) {
    while !stopped(&mut stop, SWEEP).await {
        let registry = registry.clone();
        let swept = tokio::task::spawn_blocking(move || {
            let now = now();
            registry.remember_time(now)?;
            registry.sweep(now)
        })
        .await;
        Life::count(&life.sweeps);
        match swept {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(swept)) => tracing::debug!("{swept} ended entries removed"),
            Ok(Err(error)) => error.log(),
        }
    }
}

/// Waits; says whether it is time to stop.
async fn stopped(stop: &mut watch::Receiver<bool>, wait: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(wait) => false,
        _ = stop.wait_for(|stop| *stop) => true,
    }
}

fn now() -> UnixTime {
    SystemTime::now().into()
}

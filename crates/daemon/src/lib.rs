//! What the three daemons do alike: how they log, read their configuration again, and what
//! they tell the service manager.

pub mod logging;
pub mod reload;
pub mod service_manager;
#[cfg(feature = "testing")]
pub mod testing;
pub mod watchdog;

//! What the three daemons do alike: how they log, read their configuration again, what they tell the
//! service manager, serve over HTTP, how a network is named in one line, what their doctors say, and what their packages make of their command lines.

pub mod doctor;
#[cfg(feature = "http")]
pub mod http;
pub mod logging;
pub mod manual;
pub mod network;
pub mod reload;
pub mod service_manager;
#[cfg(feature = "testing")]
pub mod testing;
pub mod watchdog;

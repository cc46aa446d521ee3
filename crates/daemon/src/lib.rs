//! What the three daemons do alike: how they log, end by a panic, read their configuration again, outlive a terminal,
//! look at clocks, what they tell the service manager, serve over HTTP, how a network is named in one
//! line, what their doctors say, which of the processor's instructions they use, and what their packages make of their command lines.

pub mod doctor;
pub mod due;
pub mod hangup;
#[cfg(feature = "http")]
pub mod http;
pub mod logging;
pub mod manual;
pub mod network;
pub mod panic;
#[cfg(feature = "http")]
pub mod place;
pub mod processor;
pub mod reload;
pub mod service_manager;
pub mod terminal;
#[cfg(feature = "testing")]
pub mod testing;
pub mod watchdog;

//! What is around a daemon, for tests: a service manager, a terminal that goes away, a configuration
//! that takes its time.

mod held_file;
mod service_manager;
mod terminal;

pub use held_file::HeldFile;
pub use service_manager::ServiceManager;
pub use terminal::Terminal;

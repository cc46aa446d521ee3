//! Plans, carried out by a kernel in memory.

mod addresses;
mod every_host;
mod filter;
mod kernel_in_memory;
mod neighbours;
mod networks;
mod random_hosts;
mod rules;

//! The parts of the XDP program that know no kernel: they compile and are tested on
//! the host as well.
#![no_std]
#![forbid(unsafe_code)]

pub mod frame;

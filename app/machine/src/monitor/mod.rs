//! A monitor as seen from the host: a process that outlives whoever started it
//! ([`process`]) and answers on a socket ([`control`]).
//!
//! `dctl vmm` and `dctl qemu` look the same from here.

pub(crate) mod control;
pub(crate) mod process;

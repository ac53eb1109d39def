//! TCP traffic for benches: a server that is a source, a sink or an echo, and clients
//! that measure what comes through to it.
//!
//! The same code runs on the host (the benches link it) and in containers and labs (the
//! program `traffic`, static), so both ends of every comparison are the same. It is
//! used on loopback and in machines that the benches booted, and nowhere else.

mod client;
mod server;

pub use client::{Latencies, download, latencies, short_connections, upload};
pub use server::serve;

/// What the first byte of a connection asks for.
mod service {
    /// Bytes without end, for as long as they are read.
    pub(crate) const SOURCE: u8 = b's';
    /// Reads to the end, and answers how much it was: 64 bits, big-endian.
    pub(crate) const SINK: u8 = b'k';
    /// Each byte comes back.
    pub(crate) const ECHO: u8 = b'e';
}

/// Bytes that are read or written in one call.
const PIECE: usize = 256 * 1024;

//! A whole machine in one stream: settings, and of the disk what is not zero.
//!
//! The stream is a tar compressed with zstd. Its members, in this order:
//!
//! | name | contents |
//! |---|---|
//! | `dctl-machine.json` | [`Header`] |
//! | `machine.toml` | the settings |
//! | `disk/` and 16 hexadecimal digits | up to [`CHUNK`] bytes of the disk, from that offset on; ascending, without overlap |
//! | `sha256` | [`Digest`] of all that came before, in hexadecimal |
//!
//! [`export`] writes it and [`import`] reads it; both work on machines that are off
//! and know nothing of what is on a disk. What is imported may come from anybody.

mod export;
mod import;

use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The version of the format that this module writes and reads.
const VERSION: u32 = 1;
const HEADER: &str = "dctl-machine.json";
const SETTINGS: &str = "machine.toml";
const DISK: &str = "disk/";
const DIGEST: &str = "sha256";
/// The most bytes in one piece of the disk.
const CHUNK: usize = 4 << 20;

/// What comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// [`VERSION`].
    version: u32,
    /// The machine's name where it comes from.
    name: String,
    /// The disk's size in bytes; zero when the machine never booted.
    disk_bytes: u64,
    /// Bytes in all pieces of the disk.
    data_bytes: u64,
}

/// How far an export or import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the disk done.
    pub done: u64,
    /// Bytes of the disk in all, without its holes.
    pub total: u64,
}

/// SHA-256 over each member's name, a line feed, its length in decimal, a line feed,
/// and its contents.
#[derive(Default)]
struct Digest(Sha256);

impl Digest {
    fn add(&mut self, name: &str, contents: &[u8]) {
        use sha2::Digest as _;
        self.0.update(format!("{name}\n{}\n", contents.len()));
        self.0.update(contents);
    }

    fn finish(self) -> String {
        use sha2::Digest as _;
        hex::encode(self.0.finalize())
    }
}

#[cfg(test)]
mod tests;

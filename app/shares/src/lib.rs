//! The file-share server: host folders and files, given to a machine's guest as one
//! FUSE file system.
//!
//! It answers requests of the FUSE protocol and knows no transport: the virtio-fs device
//! and the vhost-user backend hand it requests that lie in guest memory
//! ([`RequestBuffer`], [`ReplyBuffer`]), [`serve_stream`] takes them from a byte stream.
//! The root of the session is a read-only directory with one entry for each export;
//! nothing outside an export is reached, whatever the guest sends.
//!
//! The guest is hostile. No request may panic, block for good, allocate without bound,
//! follow a symbolic link or open anything but a regular file or a directory on the host.
//! See `README.md` for the rules on owners, caching and limits.

mod devices;
mod exports;
mod handles;
mod host;
mod inodes;
mod limits;
mod operations;
mod ownership;
mod recent;
mod server;
mod stream;
mod transport;
pub mod watch;
mod wire;

pub use exports::{ExportError, ExportOptions, Owner, open_root};
pub use limits::Limits;
pub use server::{Counts, Server};
pub use stream::serve_stream;
pub use transport::{Outcome, Pending, ReplyBuffer, RequestBuffer, WriteAt, may_take_long};
pub use wire::{MINIMUM_REPLY, REPLY_HEADER, REQUEST_HEADER};

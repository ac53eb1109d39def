//! The contract: what a real `dockerd` answers, and what our engine must answer.
//!
//! [`requests`] is a list of requests in groups. [`record`] sends them to an engine and
//! writes each answer's shape ([`shape`]: status, headers that clients read, content
//! type, fields and their types, messages, not values) to a file for each group in
//! `tests/contract/`. [`compare()`] sends them to another engine and tells where its
//! answers differ, apart from the [`differences`] that are meant.
//!
//! `cargo xtask contract record` has a `dockerd` to record; comparing needs nothing but
//! the files. Requests touch nothing but what they made themselves, so that an engine
//! that others use at the same time can be compared.

mod answer;
mod compare;
mod differences;
mod http;
mod recording;
mod requests;
mod session;
mod shape;

pub use compare::{Report, compare};
pub use recording::{pull_image, record};

use std::path::{Path, PathBuf};

/// What the requests need to be there.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The engine's socket.
    pub socket: PathBuf,
    /// A registry that wants no login and holds `busybox:latest`, such as
    /// `127.0.0.1:5000`; the engine has pulled that image.
    pub registry: String,
    /// A registry that wants a login: `me` with `secret`.
    pub closed_registry: String,
}

/// Where the recordings are.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contract")
}

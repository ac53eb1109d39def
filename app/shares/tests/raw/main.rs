//! A guest without a kernel: it sends the server any bytes it likes.

// Helpers are not tests to the linter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod escape;
mod hostile;

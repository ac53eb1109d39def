//! Clients of the Docker Engine API that are not ours, unchanged, on one machine that
//! they share: Docker's command line, Compose, docker-compose 1, docker-py,
//! testcontainers and bollard.
//!
//! What each does is in a script or project beside these files; the containers of
//! each have names or a project of their own. `docs/clients.md` is what came of it.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on panics"
)]

mod bollard;
mod compose;
mod docker;
mod python;
mod shared;

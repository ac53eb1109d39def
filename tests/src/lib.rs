//! What the end-to-end tests stand on.
//!
//! The tests in `tests/` type commands as a user does and look at what comes back:
//! [`installation`] is a `dctl` with a home of its own and everything that it
//! starts, [`command`] runs commands within a time, [`terminal`] does so on a
//! terminal, [`clients`] are other people's programs, [`images`] makes images from
//! this system's packages, [`servers`] such of real servers, [`programs`] are Debian's to
//! be mounted, [`registry`] serves images, [`hostile`] is a registry that lies, [`contract`] is what a real `dockerd` answers.
//! [`api`] asks the engine without a command in between, [`footprint`] looks at what is
//! left when much was asked, and [`browser`] shows pages.
//!
//! Nothing here knows the crates that the tests are about: only their command
//! line, their exit codes and their API's socket.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::manual_assert,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::return_self_not_must_use,
    reason = "a test that cannot go on panics, and its assertions are made here"
)]

pub mod api;
pub mod browser;
pub mod clients;
pub mod command;
pub mod contract;
pub mod footprint;
pub mod hostile;
pub mod images;
pub mod installation;
pub mod programs;
pub mod registry;
pub mod servers;
pub mod terminal;

pub use command::{Finished, Running};
pub use installation::Installation;

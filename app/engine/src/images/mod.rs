//! How images come to the machine: from a registry, or from the starter image
//! that is embedded.
//!
//! The API's handlers call it. Layers stream from their source to the agent and
//! are verified on the way; nothing is kept here, and an image exists in the
//! guest only when all of it does.

mod import;
mod progress;
mod pull;
mod starter;

pub(crate) use import::ImportError;
pub(crate) use progress::{Progress, error_line};
pub(crate) use pull::{pull, pull_all_tags};
pub(crate) use starter::{import_starter, is_starter};

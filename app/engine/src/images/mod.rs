//! How images come to the machine, from a registry, an archive, a container or the
//! starter image that is embedded, and how they leave it again.
//!
//! The API's handlers call it. Layers stream from their source to the agent and
//! are verified on the way; nothing is kept here, and an image exists in the
//! guest only when all of it does.

mod archive;
mod changes;
mod download;
mod emulation;
mod import;
mod made;
mod progress;
mod pull;
mod push;
mod starter;

pub(crate) use archive::{load, save};
pub(crate) use changes::apply as apply_changes;
pub(crate) use download::download;
pub(crate) use emulation::emulate;
pub(crate) use import::ImportError;
pub(crate) use made::{About, commit as commit_image, import as import_image};
pub(crate) use progress::{Progress, error_line};
pub(crate) use pull::{pull, pull_all_tags};
pub(crate) use push::push;
pub(crate) use starter::{import_starter, is_starter};

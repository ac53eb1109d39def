//! The engine as its clients see it: HTTP on a unix socket at one end, an agent's
//! protocol on a unix socket at the other.

mod api;
mod client;
mod description;
mod docker;
mod docker_life;
pub(crate) mod engine;
mod hostile;
mod image;
mod local_registry;
mod ports;
mod pull;
pub(crate) mod receiver;
mod registry_server;
mod stage;

//! What host and guest say to each other over vsock.
//!
//! Lives here: the [`methods`] a host may call and their replies, the records
//! that they carry ([`container`], [`image`], [`volume`], [`network`], [`port`], [`machine`]), the [`frame`]s they
//! travel in, the [`chunks`] of archives, the [`datagrams`] of UDP flows, the vsock ports, and how images are
//! named ([`mod@reference`]). The engine (host) and the guest agent (PID 1) both
//! depend on this crate, and on nothing else of each other; the command line reads
//! names with it.
//!
//! One vsock connection carries one call. The host connects to [`AGENT_PORT`],
//! sends one frame with a [`methods::Request`], and reads one frame with the
//! reply or an [`AgentError`]. What follows, if anything, is the method's own
//! affair and is written at its type: further frames, or a raw byte stream that
//! can be spliced to a client without being looked at.
//!
//! This crate must not do I/O of its own beyond reading and writing frames on a
//! stream that it is handed, and must stay free of platform code: it is compiled
//! for every host.

pub mod chunks;
pub mod container;
pub mod datagrams;
pub mod egress;
pub mod error;
pub mod frame;
pub mod image;
pub mod machine;
pub mod methods;
pub mod network;
pub mod port;
pub mod reference;
pub mod replay;
pub mod share;
pub mod stats;
pub mod volume;

pub use bollard_stubs::models as docker;
pub use error::{AgentError, ErrorKind};
pub use reference::Reference;

/// The context id every machine's guest has. Machines do not see each other, so
/// all can have the same one.
pub const GUEST_CID: u32 = 3;

/// The guest's vsock port that calls go to.
pub const AGENT_PORT: u32 = 1024;

/// The host's vsock port that the agent connects to, once, when it is ready to
/// answer calls on [`AGENT_PORT`]. The connection carries no bytes; the agent
/// closes it at once.
pub const READY_PORT: u32 = 1025;

/// The guest's vsock port that is the machine's power button: a connection to it
/// asks for an orderly shutdown. The monitor presses it without knowing anything
/// else of this protocol.
pub const POWER_BUTTON_PORT: u32 = 1026;

/// The tag of the virtio-fs device whose root has the host's shared files, one entry
/// for each [export](share::export_name).
pub const SHARES_TAG: &str = "dctl";

/// The host's vsock port that speaks FUSE for the same file system, where there is no
/// such device.
pub const SHARES_PORT: u32 = 1027;

/// The guest's vsock port that is told what has changed in shared files.
pub const SHARE_CHANGES_PORT: u32 = 1028;

/// The host's vsock port where the engine answers HTTP requests of containers that
/// mount its socket ([`share::ENGINE_SOCKET`]). It answers none while there is no such
/// container.
pub const API_PORT: u32 = 1030;

/// Version of this protocol. Host and guest ship in one binary, but an engine
/// can be upgraded while a machine runs: see [`methods::MachineInfo`].
pub const PROTOCOL_VERSION: u32 = 1;

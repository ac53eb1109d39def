//! Machines: micro-VMs that keep a guest agent running.
//!
//! Lives here: where a machine's files are ([`Paths`]), what a user asks of it
//! ([`Settings`]), its life cycle ([`Machine`]), the [`drivers`] that boot one,
//! the [`assets`] that it boots, and the [`doctor`] that says why one does not.
//! The engine drives machines through [`Machine`] and talks to the agent over
//! [`Machine::connect`]; the command line calls [`doctor`] and
//! [`qemu_supervisor`].
//!
//! A driver knows how to start a VM and reach its vsock. Nothing in this crate
//! may know about containers or images; what [`Settings`] say of containers is the
//! engine's to read.

pub mod assets;
mod blocking;
mod boot;
mod change;
mod console;
mod destinations;
mod disk;
pub mod doctor;
mod drivers;
mod ending;
mod error;
mod file;
mod lock;
mod machine;
mod monitor;
mod new_machine;
pub mod paths;
mod power;
mod settings;
mod shares;
mod state;
mod transfer;
mod vsock;

pub use change::{Change, Changed};
pub use dctl_vmm::control::BalloonStatistics;
pub use destinations::Destination;
pub use drivers::{Choice, DriverKind, qemu::supervisor::main as qemu_supervisor};
pub use error::{Error, Result};
pub use machine::Machine;
pub use paths::{DEFAULT_MACHINE, EngineFiles, Paths};
pub use settings::{MAX_CPUS, MIN_MEMORY_MIB, Settings, UserNamespace};
pub use shares::{Export, MAX_EXPORTS, ShareTransport};
pub use state::{RunState, Stage, Status};
pub use transfer::Progress;

//! The machine itself: its clock, its disk, its log, a shell in it, its emulators, and
//! what happens in it.

use serde::{Deserialize, Serialize};

use super::{ExecCreated, LayerWanted, Method, Request};
use crate::{container::ExecConfig, machine};

methods! {
    /// What the agent says of itself; also the way to see that it answers.
    MachineInfo {} -> machine::Info;

    /// Sets the guest's clock. The host calls it on every connect and after it
    /// has slept.
    SetTime {
        /// Unix time in nanoseconds.
        time: i64,
    } -> ();

    /// Grows the data disk's file system to its device, which the host made larger.
    DiskGrow {
        /// The device's new size in bytes; the agent waits until the kernel knows.
        size: u64,
    } -> ();

    /// The agent's log. After the reply: raw text until the end, or until the
    /// host closes when `follow`.
    MachineLogs {
        /// Go on with what is logged later.
        follow: bool,
        /// Only the last so many lines.
        tail: Option<u64>,
    } -> ();

    /// A shell in the agent's own namespaces, for diagnosis. After the reply the
    /// stream is that of [`ExecStart`](super::ExecStart); its id serves
    /// [`ExecResize`](super::ExecResize) and [`ExecInspect`](super::ExecInspect).
    MachineShell {
        /// What to run and how; an empty command is the guest's shell.
        config: ExecConfig,
    } -> ExecCreated;

    /// Brings a program that runs programs of another architecture. The reply says
    /// whether the bytes are wanted. If so the host sends them in
    /// [`chunks`](crate::chunks) and reads a second
    /// [`Reply`](crate::frame::Reply) of `()` when they are in use.
    EmulatorInstall {
        /// Docker's word for the architecture: `arm64`.
        architecture: String,
        /// Digest of the program, a static executable: `sha256:…`.
        digest: String,
    } -> LayerWanted;

    /// What happens. After the reply: one frame for each
    /// [`Event`](crate::container::Event), bare rather than as a reply, until the
    /// host closes.
    Events {
        /// First what happened from this Unix time in nanoseconds on, as far as it
        /// is remembered; only what is yet to happen without it.
        #[serde(default)]
        since: Option<i64>,
        /// End at this Unix time in nanoseconds.
        #[serde(default)]
        until: Option<i64>,
    } -> ();

    /// Notes as an event that unused things of a kind were removed.
    Pruned {
        /// What an event is about: `container`, `image`, `network` or `volume`.
        kind: String,
        /// Bytes that they took.
        reclaimed: u64,
    } -> ();
}

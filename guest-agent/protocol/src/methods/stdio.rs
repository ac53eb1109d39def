//! What the processes of containers read and write, and further processes in them
//! (execs).

use serde::{Deserialize, Serialize};

use super::{Attached, ExecCreated, Method, Request};
use crate::container::{Exec, ExecConfig};

methods! {
    /// Joins its stdio. After the reply the stream is Docker's: with a TTY raw
    /// bytes; otherwise host-bound bytes come in 8-byte-header frames
    /// (`[1|2,0,0,0,length]`). Guest-bound bytes are stdin, raw; the host's
    /// half-close ends stdin when the container has `StdinOnce`.
    /// Registered before the reply: a start that follows it loses nothing.
    ContainerAttach {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Carry stdin.
        stdin: bool,
        /// Carry stdout.
        stdout: bool,
        /// Carry stderr.
        stderr: bool,
        /// First what was logged so far.
        logs: bool,
        /// Then what comes; without it the stream ends after the logs.
        stream: bool,
        /// Key sequence that detaches, Docker's syntax; empty for the default.
        detach_keys: String,
    } -> Attached;

    /// Its log. After the reply the stream is as for [`ContainerAttach`].
    ContainerLogs {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Go on until it ends.
        follow: bool,
        /// Include stdout.
        stdout: bool,
        /// Include stderr.
        stderr: bool,
        /// From this Unix time in nanoseconds on; zero for the beginning.
        since: i64,
        /// Up to this Unix time in nanoseconds; zero for the end.
        until: i64,
        /// A timestamp before each line.
        timestamps: bool,
        /// Only the last so many lines.
        tail: Option<u64>,
        /// The attributes that were logged with it before each line.
        #[serde(default)]
        details: bool,
    } -> Attached;

    /// Sets the size of its terminal; kept for the next start when it does not
    /// run yet.
    ContainerResize {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
    } -> ();

    /// Prepares a command to run in a running container.
    ExecCreate {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// What to run and how.
        config: ExecConfig,
    } -> ExecCreated;

    /// Runs it. The reply says that it can be; after it the stream is as for
    /// [`ContainerAttach`], and ends when the command's output does. Why it does not
    /// run after all is its output then. With `detach` there is no stream, and the
    /// reply comes when it runs.
    ExecStart {
        /// The exec's id.
        exec: String,
        /// Do not carry its stdio.
        detach: bool,
        /// Its standard output comes as it is. Otherwise all that it writes comes in
        /// frames, even what it writes to a terminal.
        raw: bool,
        /// Terminal size, \[height, width\].
        console_size: Option<[u16; 2]>,
    } -> Attached;

    /// One exec.
    ExecInspect {
        /// The exec's id.
        exec: String,
    } -> Exec;

    /// Sets the size of its terminal.
    ExecResize {
        /// The exec's id.
        exec: String,
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
    } -> ();
}

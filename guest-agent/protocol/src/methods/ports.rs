//! Published ports: which there are, and connections to what listens behind them.

use serde::{Deserialize, Serialize};

use super::{Method, Request};
use crate::port::{Forwarding, PublishedPort, Transport};

methods! {
    /// Notes which ports of the host lead to the container: those that are bound for
    /// its next run. They are kept with it.
    ContainerPorts {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// All of them.
        ports: Vec<PublishedPort>,
    } -> ();

    /// Notes that the host could not do its part of a start: as if the start itself
    /// had failed. Nothing, if the container runs all the same.
    ContainerStartFailed {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Why.
        message: String,
    } -> ();

    /// Connects to a port of a running container, in its network. After the reply, if
    /// it is [`Forwarding::Connected`]: for TCP the connection's bytes, raw, as
    /// `stream-relay` carries them; for UDP [`datagrams`](crate::datagrams) both ways,
    /// until the host closes.
    Forward {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Of which kind the port is.
        transport: Transport,
        /// The port.
        port: u16,
    } -> Forwarding;

    /// What containers listen on that share the machine's network. After the reply:
    /// one frame with all [`ListeningSocket`](crate::port::ListeningSocket)s now, and
    /// one with all of them each time that they change, bare rather than as replies,
    /// until the host closes.
    ListeningSockets {} -> ();
}

//! Networks, and who is in them.

use serde::{Deserialize, Serialize};

use super::{Method, NetworkCreated, Request};
use crate::{
    docker::{EndpointSettings, NetworkCreateRequest},
    network::Network,
};

methods! {
    /// Makes a network.
    NetworkCreate {
        /// What it is to be.
        request: Box<NetworkCreateRequest>,
    } -> NetworkCreated;

    /// All networks, by name.
    NetworkList {} -> Vec<Network>;

    /// One network.
    NetworkInspect {
        /// Name, id or unambiguous prefix of it.
        network: String,
    } -> Network;

    /// Removes a network that no running container is in.
    NetworkRemove {
        /// Name, id or unambiguous prefix of it.
        network: String,
    } -> ();

    /// Brings a container into a network: now if it runs, else when it is started.
    NetworkConnect {
        /// Name, id or unambiguous prefix of it.
        network: String,
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// What it is to be there.
        settings: Box<EndpointSettings>,
    } -> ();

    /// Takes a container out of a network.
    NetworkDisconnect {
        /// Name, id or unambiguous prefix of it.
        network: String,
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();
}

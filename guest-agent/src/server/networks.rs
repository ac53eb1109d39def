//! Calls about networks.

use guest_protocol::{
    methods::{
        NetworkConnect, NetworkCreate, NetworkCreated, NetworkDisconnect, NetworkInspect,
        NetworkRemove,
    },
    network::Network,
};

use super::containers::containers;
use crate::{agent::Agent, error::Result};

pub(super) fn create(agent: &Agent, call: NetworkCreate) -> Result<NetworkCreated> {
    containers(agent)?.create_network(*call.request)
}

pub(super) fn list(agent: &Agent) -> Result<Vec<Network>> {
    Ok(containers(agent)?.networks().list())
}

pub(super) fn inspect(agent: &Agent, call: &NetworkInspect) -> Result<Network> {
    containers(agent)?.networks().inspect(&call.network)
}

pub(super) fn remove(agent: &Agent, call: &NetworkRemove) -> Result<()> {
    containers(agent)?.remove_network(&call.network)
}

pub(super) async fn connect(agent: &Agent, call: NetworkConnect) -> Result<()> {
    containers(agent)?
        .connect(&call.network, &call.container, *call.settings)
        .await
}

pub(super) async fn disconnect(agent: &Agent, call: &NetworkDisconnect) -> Result<()> {
    containers(agent)?
        .disconnect(&call.network, &call.container)
        .await
}

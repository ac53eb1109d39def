//! What the host's published ports need to know of containers.

use std::sync::Arc;

use guest_protocol::{AgentError, ErrorKind, port::PublishedPort};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Containers, Entry};
use crate::{
    error::{Context, Result},
    forwards::{Network, listening::Sharer},
    networks::namespace::Namespace,
};

impl Containers {
    /// Keeps which ports of the host lead to the container.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; when the disk takes nothing.
    pub(crate) fn note_ports(&self, reference: &str, ports: Vec<PublishedPort>) -> Result<()> {
        let entry = self.find(reference)?;
        self.change(&entry, |record| record.container.ports = ports)
    }

    /// The network of a container that runs.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] when it does not run.
    pub(crate) fn network(&self, reference: &str) -> Result<Network> {
        let entry = self.find(reference)?;
        let ended = || {
            let message = format!("container {} is not running", entry.id);
            AgentError::new(ErrorKind::Conflict, message)
        };
        let pid = entry.record().container.state.pid;
        let process = entry.live().process.clone().ok_or_else(ended)?;
        if pid == 0 {
            return Err(ended());
        }
        let namespace =
            Namespace::of_process(pid).context("cannot find the container's network")?;
        // Alive afterwards, so the process was the container's when it was looked at.
        let mut end = [PollFd::new(&*process, PollFlags::IN)];
        let at_once = Timespec::default();
        if poll(&mut end, Some(&at_once)).context("cannot look after a process")? > 0 {
            return Err(ended());
        }
        Ok(Network {
            namespace,
            of_machine: shares_network(&entry),
        })
    }

    /// The running containers that share the machine's network.
    pub(crate) fn network_sharers(&self) -> Vec<Sharer> {
        let mut sharers: Vec<_> = self
            .entries()
            .iter()
            .filter(|entry| entry.is_running() && shares_network(entry))
            .map(|entry| Sharer {
                id: entry.id.clone(),
                cgroup: entry.cgroup(),
            })
            .collect();
        sharers.sort_by(|one, other| one.id.cmp(&other.id));
        sharers
    }
}

fn shares_network(entry: &Arc<Entry>) -> bool {
    entry.record().container.host_config.network_mode.as_deref() == Some("host")
}

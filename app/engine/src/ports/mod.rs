//! Published ports: the host's listeners, and the way from them into containers.
//!
//! The API binds a container's ports before it is started ([`Ports::prepare`]) and the
//! agent keeps them with the container, so that an engine that starts again, or finds
//! a machine booted again, opens the same ones ([`watch`]). [`bindings`] says what a
//! container asks for, [`bind`] gets it from the host, [`tcp`] and [`udp`] carry what
//! comes, one call to the agent for each connection or flow, and [`view`] tells
//! clients. Listeners follow the container: they are there while it runs.
//!
//! No container state is kept here: what runs is what the agent says, each time.

mod bind;
mod bindings;
mod error;
mod tcp;
mod udp;
pub(crate) mod view;
pub(crate) mod watch;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use guest_protocol::{
    container::Container,
    methods::{ContainerInspect, ContainerList, ContainerPorts, ContainerStartFailed},
    port::PublishedPort,
};
use tokio::{sync::Semaphore, task::JoinHandle};

use self::{bind::Bound, bindings::Wanted};
pub(crate) use self::{
    bindings::{check, discarded},
    error::PortError,
};
use crate::agent::{Agent, CallError};

/// Connections and flows of datagrams at once. What comes beyond them is dropped.
const MOST_CONNECTIONS: usize = 2048;

/// Calls for new connections that are on their way to the agent at once. The monitor's
/// queue has room for more: however many clients come, other calls get through.
const MOST_OPENING: usize = 64;

/// The listeners of all containers. Clones share them.
#[derive(Clone)]
pub(crate) struct Ports {
    shared: Arc<Shared>,
}

struct Shared {
    agent: Arc<Agent>,
    /// By container id.
    table: Mutex<HashMap<String, Entry>>,
    /// Held from a look at a container to what follows from it.
    reconciling: tokio::sync::Mutex<()>,
    slots: Arc<Semaphore>,
    opening: Arc<Semaphore>,
    /// Containers that run and whose ports could not be bound, which was said.
    missing: Mutex<HashSet<String>>,
}

/// One container's listeners.
struct Entry {
    name: String,
    bound: Vec<PublishedPort>,
    listeners: Listeners,
    /// Requests that are about to start the container: until they are done its
    /// listeners stay.
    starts: usize,
}

enum Listeners {
    /// Clients wait in the kernel's queue.
    Waiting(Vec<Bound>),
    Serving(Vec<JoinHandle<()>>),
}

impl Listeners {
    /// Ends them; their ports are free afterwards.
    async fn close(self) {
        if let Self::Serving(tasks) = self {
            for task in &tasks {
                task.abort();
            }
            for task in tasks {
                // It was told to end.
                let _ = task.await;
            }
        }
    }
}

/// Where what comes to a listener goes.
#[derive(Clone)]
struct Target {
    agent: Arc<Agent>,
    container: String,
    port: u16,
    slots: Arc<Semaphore>,
    opening: Arc<Semaphore>,
}

/// A container whose ports are bound, about to be started.
#[must_use = "its listeners are told how the start went"]
pub(crate) struct Prepared {
    ports: Ports,
    id: Option<String>,
}

impl Prepared {
    /// The start is over, however it went.
    pub(crate) async fn settle(mut self) {
        if let Some(id) = self.id.take() {
            self.ports.release(&id).await;
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // The client went away in the middle of it.
        if let Some(id) = self.id.take() {
            let ports = self.ports.clone();
            tokio::spawn(async move { ports.release(&id).await });
        }
    }
}

impl Ports {
    /// None yet; [`watch::follow`] finds those of containers that run.
    pub(crate) fn new(agent: Arc<Agent>) -> Self {
        Self {
            shared: Arc::new(Shared {
                agent,
                table: Mutex::default(),
                reconciling: tokio::sync::Mutex::default(),
                slots: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
                opening: Arc::new(Semaphore::new(MOST_OPENING)),
                missing: Mutex::default(),
            }),
        }
    }

    /// Binds the ports of a container that is about to be started, unless they are.
    ///
    /// # Errors
    /// In Docker's words when one is taken; the agent's errors.
    pub(crate) async fn prepare(&self, container: &str) -> Result<Prepared, PortError> {
        let container = container.to_owned();
        let agent = &self.shared.agent;
        let container = agent.call(ContainerInspect { container }).await?;
        let prepared = |id| Prepared {
            ports: self.clone(),
            id,
        };
        let wanted = bindings::wanted(&container).map_err(PortError::Invalid)?;
        if wanted.is_empty() {
            return Ok(prepared(None));
        }
        let mut reserved = self.reserve(&container, &wanted);
        if let Err(PortError::Allocated { .. }) = reserved {
            // Its owner may have ended since it was last looked at.
            self.synchronise().await;
            reserved = self.reserve(&container, &wanted);
        }
        let ports = match reserved {
            Ok(ports) => ports,
            Err(error) => {
                self.note_failed(container.id, &error).await;
                return Err(error);
            }
        };
        // From here on it is released, whatever happens.
        let prepared = prepared(Some(container.id.clone()));
        if let Some(ports) = ports {
            let container = container.id;
            agent.call(ContainerPorts { container, ports }).await?;
        }
        Ok(prepared)
    }

    /// Has the container say why it was not started.
    async fn note_failed(&self, container: String, error: &PortError) {
        let message = error.to_string();
        let call = ContainerStartFailed { container, message };
        if let Err(error) = self.shared.agent.call(call).await {
            tracing::warn!(%error, "a container does not know why it was not started");
        }
    }

    /// Those that were bound now; none when they were before.
    fn reserve(
        &self,
        container: &Container,
        wanted: &[Wanted],
    ) -> Result<Option<Vec<PublishedPort>>, PortError> {
        let mut table = self.table();
        if let Some(entry) = table.get_mut(&container.id) {
            entry.starts += 1;
            return Ok(None);
        }
        let held: Vec<_> = table.values().flat_map(|entry| &entry.bound).collect();
        let bound = bind::all(wanted, &container.ports, &held)
            .map_err(|error| error.of(&container.name, &container.id))?;
        let ports: Vec<_> = bound.iter().map(|bound| bound.port.clone()).collect();
        let entry = Entry {
            name: container.name.clone(),
            bound: ports.clone(),
            listeners: Listeners::Waiting(bound),
            starts: 1,
        };
        table.insert(container.id.clone(), entry);
        Ok(Some(ports))
    }

    async fn release(&self, id: &str) {
        if let Some(entry) = self.table().get_mut(id) {
            entry.starts = entry.starts.saturating_sub(1);
        }
        self.reconcile(id).await;
    }

    /// Makes the listeners of one container what its state wants.
    async fn reconcile(&self, id: &str) {
        let _one_at_a_time = self.shared.reconciling.lock().await;
        let container = id.to_owned();
        let agent = &self.shared.agent;
        match agent.call_running(ContainerInspect { container }).await {
            Ok(container) if container.state.is_running() => self.open(&container),
            // It is gone, or the machine is.
            _ => {
                self.missing().remove(id);
                self.close(|other, _| other == id).await;
            }
        }
    }

    /// Closes the listeners of containers that have ended.
    pub(crate) async fn synchronise(&self) {
        let _one_at_a_time = self.shared.reconciling.lock().await;
        if self.table().is_empty() {
            return;
        }
        if let Ok(containers) = self.shared.agent.call_running(ContainerList {}).await {
            let running = running(&containers);
            self.close(|id, _| !running.contains_key(id)).await;
        }
    }

    /// Opens the listeners of all containers that run, closes all others.
    async fn reconcile_all(&self) -> Result<(), CallError> {
        let _one_at_a_time = self.shared.reconciling.lock().await;
        let containers = self.shared.agent.call_running(ContainerList {}).await?;
        let running = running(&containers);
        self.missing()
            .retain(|id| running.contains_key(id.as_str()));
        self.close(|id, _| !running.contains_key(id)).await;
        for container in running.values() {
            self.open(container);
        }
        Ok(())
    }

    /// Whether ports of containers that run are taken by others: they may be free some
    /// day.
    fn any_missing(&self) -> bool {
        !self.missing().is_empty()
    }

    /// Serves a container that runs.
    fn open(&self, container: &Container) {
        let mut table = self.table();
        if !table.contains_key(&container.id) {
            let wanted = match bindings::recorded(&container.ports) {
                Ok(wanted) if wanted.is_empty() => return,
                Ok(wanted) => wanted,
                Err(error) => {
                    tracing::warn!(container = %container.name, %error, "its ports are not known");
                    return;
                }
            };
            let held: Vec<_> = table.values().flat_map(|entry| &entry.bound).collect();
            let bound = match bind::all(&wanted, &[], &held) {
                Ok(bound) => bound,
                Err(error) => {
                    let is_new = self.missing().insert(container.id.clone());
                    if is_new {
                        tracing::warn!(container = %container.name, %error, "its ports are not published");
                    }
                    return;
                }
            };
            self.missing().remove(&container.id);
            let entry = Entry {
                name: container.name.clone(),
                bound: container.ports.clone(),
                listeners: Listeners::Waiting(bound),
                starts: 0,
            };
            table.insert(container.id.clone(), entry);
        }
        let Some(entry) = table.get_mut(&container.id) else {
            return;
        };
        if let Listeners::Waiting(bound) = &mut entry.listeners {
            let bound = std::mem::take(bound);
            let tasks = bound
                .into_iter()
                .filter_map(|bound| self.serve(&container.id, bound))
                .collect();
            entry.listeners = Listeners::Serving(tasks);
            tracing::info!(container = %entry.name, ports = entry.bound.len(), "published");
        }
    }

    fn serve(&self, container: &str, bound: Bound) -> Option<JoinHandle<()>> {
        let target = self.target(container, bound.port.container_port);
        bind::serve(bound.socket, target)
            .inspect_err(|error| tracing::error!(%error, "a bound port cannot be served"))
            .ok()
    }

    fn target(&self, container: &str, port: u16) -> Target {
        Target {
            agent: Arc::clone(&self.shared.agent),
            container: container.to_owned(),
            port,
            slots: Arc::clone(&self.shared.slots),
            opening: Arc::clone(&self.shared.opening),
        }
    }

    /// Closes what `gone` says, but for containers that are about to start.
    async fn close(&self, gone: impl Fn(&str, &Entry) -> bool) {
        let entries: Vec<_> = self
            .table()
            .extract_if(|id, entry| entry.starts == 0 && gone(id, entry))
            .collect();
        for (_, entry) in entries {
            entry.listeners.close().await;
            tracing::info!(container = %entry.name, "not published any more");
        }
    }

    fn missing(&self) -> MutexGuard<'_, HashSet<String>> {
        let missing = &self.shared.missing;
        missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        let table = &self.shared.table;
        table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn running(containers: &[Container]) -> HashMap<&str, &Container> {
    containers
        .iter()
        .filter(|container| container.state.is_running())
        .map(|container| (container.id.as_str(), container))
        .collect()
}

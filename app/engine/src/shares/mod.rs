//! Files of this host that containers mount: which paths the machine may see, and for
//! how long.
//!
//! A path is shared because the API's user asked for a container that mounts it
//! ([`Shares::share`]), and for as long as such a container exists
//! ([`Shares::reconcile`], called when one has gone). The guest is never believed in
//! what to add: it only says what is not needed any more. The list itself is the
//! machine's, see [`dctl_machine::Export`], and survives the engine.
//!
//! The engine's own socket is mounted without being shared: a container that was made
//! with it has the machine's requests answered ([`Shares::engine_access`]).

mod keeper;
mod source;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dctl_machine::Export;
use guest_protocol::{
    docker::{HostConfig, MountPointTypeEnum},
    methods::ContainerList,
    share::{ENGINE_SOCKET, export_name},
};

pub(crate) use keeper::keep;
pub(crate) use source::SourceError;

use crate::{
    agent::{Agent, CallError},
    guest::Guest,
};

/// Why a container's files of the host cannot be shared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShareError {
    /// What is named cannot be mounted.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The machine does not run or share.
    #[error(transparent)]
    Machine(#[from] dctl_machine::Error),
}

/// What is shared on behalf of containers.
pub(crate) struct Shares {
    guest: Arc<dyn Guest>,
    /// The engine's socket, by all its names.
    sockets: Vec<PathBuf>,
    /// One at a time changes what is shared.
    changing: tokio::sync::Mutex<()>,
    /// Names of exports of containers that are being made, each as often as it is
    /// wanted: no container has them yet.
    wanted: Mutex<Vec<String>>,
}

impl Shares {
    /// Of the machine `guest`, whose engine listens on `socket`.
    pub(crate) fn new(guest: Arc<dyn Guest>, socket: &Path) -> Self {
        let mut sockets = vec![ENGINE_SOCKET.into(), "/run/docker.sock".into()];
        sockets.push(socket.to_owned());
        sockets.extend(std::fs::canonicalize(socket));
        Self {
            guest,
            sockets,
            changing: tokio::sync::Mutex::default(),
            wanted: Mutex::default(),
        }
    }

    /// Whether the machine's requests to this engine are answered.
    ///
    /// # Errors
    /// When that cannot be looked up.
    pub(crate) async fn engine_access(&self) -> Result<bool, dctl_machine::Error> {
        self.guest.engine_access().await
    }

    /// Gives the engine's socket, where a new container mounts it, the name that the
    /// agent knows.
    pub(crate) fn name_socket(&self, host: &mut HostConfig) {
        source::rename(host, |path| {
            let is_socket = self.sockets.iter().any(|socket| socket == Path::new(path));
            is_socket.then_some(ENGINE_SOCKET)
        });
    }

    /// Shares what a new container mounts. It stays shared for as long as the result
    /// is kept, and as a container has it.
    ///
    /// # Errors
    /// In Docker's words when a source does not exist or cannot be shared.
    pub(crate) async fn share(&self, host: &HostConfig) -> Result<Shared<'_>, ShareError> {
        let sources = source::of(host);
        let mut shared = Shared {
            shares: self,
            names: Vec::new(),
        };
        if sources.is_empty() {
            return Ok(shared);
        }
        let sources = tokio::task::spawn_blocking(move || {
            sources.iter().try_for_each(source::Source::prepare)?;
            Ok::<_, SourceError>(sources)
        })
        .await
        .unwrap_or_else(|error| Err(SourceError::Broken(error.to_string())))?;
        // A monitor that starts meanwhile would read the list too early.
        self.guest.ensure_running().await?;
        for source in sources {
            let name = export_name(&source.path, source.read_only);
            self.wanted().push(name.clone());
            shared.names.push(name.clone());
            if source.path == ENGINE_SOCKET {
                let _changing = self.changing.lock().await;
                self.guest.set_engine_access(true).await?;
                continue;
            }
            let export = Export {
                name,
                path: source.path.into(),
                read_only: source.read_only,
            };
            let _changing = self.changing.lock().await;
            self.guest.add_export(export).await?;
        }
        Ok(shared)
    }

    /// Before a container starts: what could not be opened is tried again, and what is
    /// at a path now takes the place of what was.
    pub(crate) async fn retry(&self) {
        let _changing = self.changing.lock().await;
        if let Err(error) = self.guest.retry_exports().await {
            tracing::warn!(%error, "what is shared could not be looked at");
        }
    }

    /// Takes from the machine's sight what no container has.
    ///
    /// # Errors
    /// When the machine cannot be asked.
    pub(crate) async fn reconcile(&self, agent: &Agent) -> Result<(), CallError> {
        let _changing = self.changing.lock().await;
        let engine_access = self.guest.engine_access().await?;
        if self.guest.exports().await?.is_empty() && !engine_access {
            return Ok(());
        }
        // In this order: a container that is made meanwhile is seen here or there.
        let mut kept: BTreeSet<String> = self.wanted().iter().cloned().collect();
        for container in agent.call_running(ContainerList {}).await? {
            let binds = container
                .mounts
                .iter()
                .filter(|point| point.typ == Some(MountPointTypeEnum::BIND));
            kept.extend(binds.map(|point| {
                let source = point.source.as_deref().unwrap_or_default();
                export_name(source, point.rw == Some(false))
            }));
        }
        let socket = [false, true].map(|read_only| export_name(ENGINE_SOCKET, read_only));
        if engine_access && !socket.iter().any(|name| kept.contains(name)) {
            self.guest.set_engine_access(false).await?;
        }
        Ok(self.guest.keep_exports(kept).await?)
    }

    fn wanted(&self) -> MutexGuard<'_, Vec<String>> {
        // Every change is one call.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is shared for a container that is being made.
pub(crate) struct Shared<'a> {
    shares: &'a Shares,
    names: Vec<String>,
}

impl Shared<'_> {
    /// Whether the container mounts nothing of the host.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        let mut wanted = self.shares.wanted();
        for name in &self.names {
            if let Some(at) = wanted.iter().position(|other| other == name) {
                wanted.swap_remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{engine, receiver::Receiver};

    #[tokio::test]
    async fn the_engine_answers_the_machine_while_a_container_has_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        // Its list of containers is empty.
        let _receiver = Receiver::start(&socket);
        let guest = engine::guest_at(&socket);
        let agent = Agent::new(Arc::clone(&guest));
        let shares = Shares::new(guest, Path::new("/home/me/docker.sock"));
        for name in ["/run/docker.sock", "/home/me/./docker.sock"] {
            assert!(!shares.engine_access().await.unwrap());
            let mut host = HostConfig {
                binds: Some(vec![format!("{name}:/var/run/docker.sock")]),
                ..HostConfig::default()
            };
            shares.name_socket(&mut host);
            let expected = "/var/run/docker.sock:/var/run/docker.sock";
            assert_eq!(host.binds.as_deref(), Some(&[expected.to_owned()][..]));
            let kept = shares.share(&host).await.unwrap();
            shares.reconcile(&agent).await.unwrap();
            assert!(shares.engine_access().await.unwrap());
            drop(kept);
            shares.reconcile(&agent).await.unwrap();
        }
        assert!(!shares.engine_access().await.unwrap());
    }
}

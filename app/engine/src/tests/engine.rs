//! An engine on a socket of its own, in front of an agent on another one.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::Method;
use dctl_machine::{Change, Changed, DriverKind, Error, Export, UserNamespace};
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};

use super::client::{self, Answer};
use crate::{
    agent::Agent,
    api::{self, Context},
    guest::Guest,
    ports::{self, Ports},
    server,
    shares::Shares,
};

/// A guest that is an agent on a unix socket, and counts how often it was wanted.
pub(super) struct SocketGuest {
    agent: PathBuf,
    wanted: Arc<AtomicUsize>,
    exports: Mutex<Vec<Export>>,
    engine_access: AtomicBool,
}

impl Guest for SocketGuest {
    fn force_driver(&self, _driver: DriverKind) -> BoxFuture<'_, Result<(), Error>> {
        async { Ok(()) }.boxed()
    }

    fn ensure_running(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.wanted.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }.boxed()
    }

    fn connect(&self, _port: u32) -> BoxFuture<'_, Result<UnixStream, Error>> {
        async {
            UnixStream::connect(&self.agent)
                .await
                .map_err(|_| Error::NotRunning {
                    name: "test".to_owned(),
                    last_exit: None,
                })
        }
        .boxed()
    }

    fn is_running(&self) -> BoxFuture<'_, bool> {
        async { false }.boxed()
    }

    fn wait_until_running(&self) -> BoxFuture<'_, ()> {
        async {
            while UnixStream::connect(&self.agent).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        .boxed()
    }

    fn status(&self) -> BoxFuture<'_, Result<Value, Error>> {
        async { Ok(json!({"state": "off"})) }.boxed()
    }

    fn user_namespace(&self) -> BoxFuture<'_, Result<UserNamespace, Error>> {
        async { Ok(UserNamespace::default()) }.boxed()
    }

    fn console_log(&self) -> BoxFuture<'_, Result<Vec<u8>, Error>> {
        async { Ok(b"one\ntwo\n".to_vec()) }.boxed()
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), Error>> {
        async { Ok(()) }.boxed()
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<Changed, Error>> {
        async move {
            Ok(Changed {
                restart_needed: change.cpus.is_some(),
                ..Changed::default()
            })
        }
        .boxed()
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), Error>> {
        async { Err(Error::Running("test".to_owned())) }.boxed()
    }

    fn remove(&self) -> BoxFuture<'_, Result<(), Error>> {
        async { Err(Error::Running("test".to_owned())) }.boxed()
    }

    fn exports(&self) -> BoxFuture<'_, Result<Vec<Export>, Error>> {
        async { Ok(self.exports.lock().unwrap().clone()) }.boxed()
    }

    fn add_export(&self, export: Export) -> BoxFuture<'_, Result<(), Error>> {
        async {
            self.exports.lock().unwrap().push(export);
            Ok(())
        }
        .boxed()
    }

    fn keep_exports(&self, names: BTreeSet<String>) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let mut exports = self.exports.lock().unwrap();
            exports.retain(|export| names.contains(&export.name));
            Ok(())
        }
        .boxed()
    }

    fn retry_exports(&self) -> BoxFuture<'_, Result<(), Error>> {
        async { Ok(()) }.boxed()
    }

    fn engine_access(&self) -> BoxFuture<'_, Result<bool, Error>> {
        async { Ok(self.engine_access.load(Ordering::Relaxed)) }.boxed()
    }

    fn set_engine_access(&self, access: bool) -> BoxFuture<'_, Result<(), Error>> {
        self.engine_access.store(access, Ordering::Relaxed);
        async { Ok(()) }.boxed()
    }
}

/// The machine whose agent is on a socket of the caller's.
pub(crate) fn guest_at(socket: &Path) -> Arc<dyn Guest> {
    Arc::new(SocketGuest {
        agent: socket.to_owned(),
        wanted: Arc::default(),
        exports: Mutex::default(),
        engine_access: AtomicBool::default(),
    })
}

/// The agent on a socket of the caller's.
pub(crate) fn agent_at(socket: &Path) -> Arc<Agent> {
    Arc::new(Agent::new(guest_at(socket)))
}

/// An engine at work; it ends with the test's runtime.
pub(super) struct Engine {
    pub(super) directory: tempfile::TempDir,
    socket: PathBuf,
    wanted: Arc<AtomicUsize>,
    pub(super) served: tokio::task::JoinHandle<()>,
}

impl Engine {
    /// Serves; the agent is expected at [`Engine::agent_socket`].
    pub(super) fn start(starter: Option<&'static [u8]>) -> Self {
        Self::with_limits(starter, server::Limits::default())
    }

    /// The same, with other limits for its clients.
    pub(super) fn with_limits(starter: Option<&'static [u8]>, limits: server::Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let wanted = Arc::new(AtomicUsize::new(0));
        let guest = SocketGuest {
            agent: agent_socket(directory.path()),
            wanted: Arc::clone(&wanted),
            exports: Mutex::default(),
            engine_access: AtomicBool::default(),
        };
        let guest = Arc::new(guest);
        let shutdown = Arc::new(tokio::sync::Notify::new());
        let agent = Arc::new(Agent::new(guest.clone()));
        let ports = Ports::new(Arc::clone(&agent));
        let context = Context {
            agent,
            shares: Arc::new(Shares::new(guest, &socket)),
            starter,
            shutdown: Arc::clone(&shutdown),
            ports: ports.clone(),
        };
        tokio::spawn(ports::watch::follow(ports));
        let listener = UnixListener::bind(&socket).unwrap();
        let served = tokio::spawn(async move {
            server::serve(listener, api::router(context), limits, shutdown.notified()).await;
        });
        Self {
            directory,
            socket,
            wanted,
            served,
        }
    }

    /// Where the agent is expected.
    pub(super) fn agent_socket(&self) -> PathBuf {
        agent_socket(self.directory.path())
    }

    /// The engine's socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// How often the machine was wanted.
    pub(super) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        client::ask(&self.socket, Method::GET, path, &[], "").await
    }

    pub(super) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        client::ask(&self.socket, Method::POST, path, headers, body).await
    }
}

fn agent_socket(directory: &Path) -> PathBuf {
    directory.join("agent.sock")
}

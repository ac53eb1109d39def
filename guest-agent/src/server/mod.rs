//! Calls from the host: one connection, one call.
//!
//! A [`Listener`] brings connections, [`serve`] reads one request from each and
//! gives it to the handler of its method, in the module of what the method is about. Handlers know the protocol and no details; those are the modules'
//! that they call.
//!
//! The peer is not trusted to be well-behaved: a request must come soon, be of a
//! bounded size, and only so many connections are open at once.

mod archives;
mod containers;
mod emulators;
mod events;
mod forwards;
mod image_archives;
mod images;
mod machine;
mod networks;
mod usage;
mod volumes;

use std::{io, os::fd::AsFd, path::Path, sync::Arc, time::Duration};

use guest_protocol::{
    AgentError,
    frame::{self, FrameError, Reply},
    methods::Request,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

use self::forwards::Forwards;
use crate::{
    agent::Agent,
    error::{Context, Result},
};

/// How many connections are served at once; further ones wait.
const MOST_CONNECTIONS: usize = 1024;

/// Files that may be open at once: a forwarded connection takes two, and four more for
/// its pipes while it moves much.
const FILES: u64 = 65_536;

/// How long a connection may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the host may take to close a connection that is done.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A byte stream from a host.
pub(crate) trait Stream: AsyncRead + AsyncWrite + AsFd + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + AsFd + Send + Sync + Unpin> Stream for T {}

/// A connection from a host.
pub(crate) type Connection = Box<dyn Stream>;

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Listener {
    /// The machine's vsock.
    Vsock(VsockListener),
    /// A unix socket, for development outside of a machine.
    Unix(UnixListener),
}

impl Listener {
    /// Listens on a vsock port.
    ///
    /// # Errors
    /// When there is no vsock, or the port is taken.
    pub(crate) fn vsock(port: u32) -> Result<Self> {
        VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))
            .map(Self::Vsock)
            .context(format_args!("cannot listen on vsock port {port}"))
    }

    /// Listens on a unix socket that only its owner can use.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn unix(path: &Path) -> Result<Self> {
        let mask = rustix::process::umask(rustix::fs::Mode::from(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(mask);
        listener
            .map(Self::Unix)
            .context(format_args!("cannot listen on {}", path.display()))
    }

    /// The next connection. Only the host may call: on vsock, others are turned
    /// away.
    pub(crate) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Vsock(listener) => loop {
                let (stream, peer) = listener.accept().await?;
                if peer.cid() == VMADDR_CID_HOST {
                    return Ok(Box::new(stream));
                }
                tracing::warn!("a call from vsock address {} was turned away", peer.cid());
            },
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// Tells the host that the agent answers: connects to its port and closes.
///
/// # Errors
/// When nobody listens there.
pub(crate) async fn announce(port: u32) -> Result<()> {
    VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, port))
        .await
        .map(drop)
        .context("cannot tell the host that the machine is ready")
}

/// Lets the process open as many files as that many connections need. What it has
/// started before keeps its own limit.
fn raise_file_limit() {
    let limit = Rlimit {
        current: Some(FILES),
        maximum: Some(FILES),
    };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("cannot open more files at once: {error}");
    }
}

/// Serves connections for as long as the process lives.
pub(crate) async fn serve(agent: Arc<Agent>, listener: Listener) {
    raise_file_limit();
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let forwards = Forwards::default();
    loop {
        // Never closed, so this cannot fail.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok(connection) => {
                let (agent, forwards) = (Arc::clone(&agent), forwards.clone());
                tokio::spawn(async move {
                    if let Err(error) = call(&agent, &forwards, connection, slot).await {
                        tracing::debug!("a call ended early: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("a connection was lost before it was accepted: {error}");
                // Out of files, most likely: it passes when calls end.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn call(
    agent: &Arc<Agent>,
    forwards: &Forwards,
    mut connection: Connection,
    slot: OwnedSemaphorePermit,
) -> std::result::Result<(), FrameError> {
    let request = match timeout(REQUEST_TIMEOUT, frame::read(&mut connection)).await {
        Ok(Ok(request)) => request,
        Ok(Err(FrameError::Closed)) | Err(_) => return Ok(()),
        Ok(Err(error)) => {
            let error = AgentError::invalid(format!("the request was not understood: {error}"));
            reply::<()>(&mut connection, Err(error)).await?;
            return finish(connection).await;
        }
    };
    let name = Request::name(&request);
    tracing::debug!("call {name}");
    if let Request::Forward(call) = &request {
        // They are counted by themselves: however many there are, calls get through.
        drop(slot);
        return forwards::forward(agent, forwards, call, connection).await;
    }
    dispatch(agent, request, &mut connection).await?;
    finish(connection).await
}

async fn dispatch(
    agent: &Arc<Agent>,
    request: Request,
    connection: &mut Connection,
) -> std::result::Result<(), FrameError> {
    match request {
        Request::MachineInfo(_) => reply(connection, machine::info(agent)).await,
        Request::SetTime(call) => reply(connection, machine::set_time(&call)).await,
        Request::DiskGrow(call) => reply(connection, machine::grow_disk(agent, call).await).await,
        Request::MachineLogs(call) => machine::logs(agent, &call, connection).await,
        Request::MachineShell(call) => machine::shell(agent, call, connection).await,

        Request::LayersMissing(call) => reply(connection, images::missing(agent, &call)).await,
        Request::LayerImport(call) => images::import(agent, call, connection).await,
        Request::ImageCreate(call) => reply(connection, images::create(agent, &call)).await,
        Request::ImageList(_) => reply(connection, images::list(agent)).await,
        Request::ImageInspect(call) => reply(connection, images::inspect(agent, &call)).await,
        Request::ImageTag(call) => reply(connection, images::tag(agent, &call)).await,
        Request::ImageRemove(call) => reply(connection, images::remove(agent, &call)).await,
        Request::ImageDocuments(call) => reply(connection, images::documents(agent, &call)).await,
        Request::ImageSave(call) => image_archives::save(agent, call, connection).await,
        Request::ImageLoad(call) => image_archives::load(agent, call, connection).await,
        Request::LayerExport(call) => image_archives::export_layer(agent, call, connection).await,
        Request::LayerBlobsKeep(call) => reply(connection, images::keep_blobs(agent, &call)).await,
        Request::LayerBlobs(call) => reply(connection, images::blobs(agent, &call)).await,
        Request::ImagePushed(call) => reply(connection, images::pushed(agent, &call)).await,
        Request::ImagesDiskUsage(_) => reply(connection, images::usage(agent)).await,
        Request::EmulatorInstall(call) => emulators::install(agent, call, connection).await,

        Request::ContainerCreate(call) => reply(connection, containers::create(agent, call)).await,
        Request::ContainerStart(call) => {
            reply(connection, containers::start(agent, &call).await).await
        }
        Request::ContainerStop(call) => {
            reply(connection, containers::stop(agent, &call).await).await
        }
        Request::ContainerRestart(call) => {
            reply(connection, containers::restart(agent, &call).await).await
        }
        Request::ContainerKill(call) => {
            reply(connection, containers::kill(agent, &call).await).await
        }
        Request::ContainerRemove(call) => {
            reply(connection, containers::remove(agent, &call).await).await
        }
        Request::ContainerRename(call) => {
            reply(connection, containers::rename(agent, &call).await).await
        }
        Request::ContainerInspect(call) => {
            reply(connection, containers::inspect(agent, &call)).await
        }
        Request::ContainerList(_) => reply(connection, containers::list(agent)).await,
        Request::ContainerWait(call) => containers::wait(agent, &call, connection).await,
        Request::ContainerAttach(call) => containers::attach(agent, &call, connection).await,
        Request::ContainerLogs(call) => containers::logs(agent, &call, connection).await,
        Request::ContainerResize(call) => reply(connection, containers::resize(agent, &call)).await,
        Request::ContainerTop(call) => reply(connection, containers::top(agent, &call)).await,
        Request::ContainerPause(call) => {
            reply(connection, containers::pause(agent, &call).await).await
        }
        Request::ContainerUnpause(call) => {
            reply(connection, containers::unpause(agent, &call).await).await
        }
        Request::ContainerUpdate(call) => {
            reply(connection, containers::update(agent, &call).await).await
        }
        Request::ContainerStats(call) => reply(connection, usage::stats(agent, &call)).await,
        Request::ContainerChanges(call) => usage::changes(agent, &call, connection).await,
        Request::ContainerSizes(call) => reply(connection, usage::sizes(agent, &call)).await,

        Request::ExecCreate(call) => reply(connection, containers::create_exec(agent, call)).await,
        Request::ExecStart(call) => containers::start_exec(agent, &call, connection).await,
        Request::ExecInspect(call) => {
            reply(connection, containers::inspect_exec(agent, &call)).await
        }
        Request::ExecResize(call) => reply(connection, containers::resize_exec(agent, &call)).await,

        Request::ContainerPorts(call) => reply(connection, forwards::note(agent, call)).await,
        Request::ContainerStartFailed(call) => {
            reply(connection, forwards::note_failed(agent, &call).await).await
        }
        Request::ListeningSockets(_) => forwards::listening(agent, connection).await,
        // Has the connection for itself: see `call`.
        Request::Forward(_) => Ok(()),

        Request::Events(call) => events::tell(agent, &call, connection).await,
        Request::Pruned(call) => reply(connection, events::pruned(agent, &call)).await,

        Request::ContainerPathStat(call) => {
            reply(connection, archives::stat(agent, &call).await).await
        }
        Request::ContainerArchiveGet(call) => archives::get(agent, &call, connection).await,
        Request::ContainerArchivePut(call) => archives::put(agent, call, connection).await,
        Request::ContainerExport(call) => archives::export(agent, &call, connection).await,
        Request::ContainerCommit(call) => {
            reply(connection, archives::commit(agent, &call).await).await
        }
        Request::LayerImportNew(_) => archives::import(agent, connection).await,

        Request::VolumeCreate(call) => reply(connection, volumes::create(agent, call)).await,
        Request::VolumeList(_) => reply(connection, volumes::list(agent)).await,
        Request::VolumeInspect(call) => reply(connection, volumes::inspect(agent, &call)).await,
        Request::VolumeUsage(call) => reply(connection, volumes::usage(agent, call).await).await,
        Request::VolumeRemove(call) => reply(connection, volumes::remove(agent, &call)).await,
        Request::VolumeBackup(call) => volumes::backup(agent, &call, connection).await,
        Request::VolumeRestore(call) => volumes::restore(agent, &call, connection).await,

        Request::NetworkCreate(call) => reply(connection, networks::create(agent, call)).await,
        Request::NetworkList(_) => reply(connection, networks::list(agent)).await,
        Request::NetworkInspect(call) => reply(connection, networks::inspect(agent, &call)).await,
        Request::NetworkRemove(call) => reply(connection, networks::remove(agent, &call)).await,
        Request::NetworkConnect(call) => {
            reply(connection, networks::connect(agent, call).await).await
        }
        Request::NetworkDisconnect(call) => {
            reply(connection, networks::disconnect(agent, &call).await).await
        }
    }
}

async fn reply<T: Serialize>(
    connection: &mut Connection,
    result: Result<T>,
) -> std::result::Result<(), FrameError> {
    frame::write_reply(connection, &Reply::from(result)).await
}

/// Waits until the host ends its side of a call in which it has nothing to say.
async fn hung_up(host: &mut (impl AsyncRead + Unpin)) {
    let mut ignored = [0; 64];
    while !matches!(host.read(&mut ignored).await, Ok(0) | Err(_)) {}
}

/// Ends the stream to the host, and waits until the host has ended its own: closed
/// with bytes of the host's unread, a connection loses what we sent.
async fn finish(mut connection: Connection) -> std::result::Result<(), FrameError> {
    connection.shutdown().await?;
    let drain = async {
        let mut rest = [0; 4096];
        while !matches!(connection.read(&mut rest).await, Ok(0) | Err(_)) {}
    };
    // A host that does not close is cut off.
    let _ = timeout(CLOSE_TIMEOUT, drain).await;
    Ok(())
}

//! Calls that carry what is in containers, and tars that become layers.

use std::{
    result::Result as StdResult,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use guest_protocol::{
    frame::FrameError,
    methods::{
        Committed, ContainerArchiveGet, ContainerArchivePut, ContainerCommit, ContainerExport,
        ContainerPathStat,
    },
    volume::PathStat,
};
use tokio::sync::oneshot;

use super::{Connection, reply};
use crate::{
    agent::Agent,
    archive::stream,
    containers::{Containers, files::Unpacking},
    error::Result,
};

fn containers(agent: &Agent) -> Result<&Containers> {
    Ok(&agent.storage()?.containers)
}

pub(super) async fn stat(agent: &Agent, call: &ContainerPathStat) -> Result<PathStat> {
    containers(agent)?
        .path_stat(&call.container, &call.path)
        .await
}

pub(super) async fn get(
    agent: &Agent,
    call: &ContainerArchiveGet,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let containers = match containers(agent) {
        Ok(containers) => containers,
        Err(error) => return reply::<PathStat>(connection, Err(error)).await,
    };
    let (sink, pieces) = stream::channel();
    let (tell, mut told) = oneshot::channel();
    let packing = containers.pack(&call.container, &call.path, move |stat| {
        // Whoever asked may be gone.
        let _ = tell.send(stat);
        sink
    });
    tokio::pin!(packing);
    let (stat, packed) = tokio::select! {
        biased;
        Ok(stat) = &mut told => (stat, None),
        packed = &mut packing => match (packed, told.try_recv()) {
            (packed, Ok(stat)) => (stat, Some(packed)),
            (Err(error), Err(_)) => return reply::<PathStat>(connection, Err(error)).await,
            (Ok(()), Err(_)) => (PathStat::default(), Some(Ok(()))),
        },
    };
    reply(connection, Ok(stat)).await?;
    let packing = async {
        match packed {
            Some(packed) => packed,
            None => packing.await,
        }
    };
    let in_the_way = || containers.is_held_up(&call.container);
    let (sent, packed) = tokio::join!(pieces.send(connection, in_the_way), packing);
    sent?;
    reply(connection, packed).await
}

pub(super) async fn put(
    agent: &Agent,
    call: ContainerArchivePut,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let containers = match containers(agent) {
        Ok(containers) => containers,
        Err(error) => return reply::<()>(connection, Err(error)).await,
    };
    reply(connection, Ok(())).await?;
    let how = Unpacking {
        path: call.path,
        keep_folders: call.keep_folders,
        chown: call.chown,
    };
    // Before it is read it waits itself.
    let begun = Arc::new(AtomicBool::new(false));
    let in_the_way = || begun.load(Ordering::Relaxed) && containers.is_held_up(&call.container);
    let begins = Arc::clone(&begun);
    let result = stream::receive(connection, in_the_way, |source| {
        containers.unpack(&call.container, how, move || {
            begins.store(true, Ordering::Relaxed);
            source
        })
    })
    .await;
    reply(connection, result).await
}

pub(super) async fn export(
    agent: &Agent,
    call: &ContainerExport,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let found = containers(agent).and_then(|containers| {
        containers.inspect(&call.container)?;
        Ok(containers)
    });
    let containers = match found {
        Ok(containers) => containers,
        Err(error) => return reply::<()>(connection, Err(error)).await,
    };
    reply(connection, Ok(())).await?;
    let in_the_way = || containers.is_held_up(&call.container);
    let result = stream::send(connection, in_the_way, |sink| {
        containers.export(&call.container, move || sink)
    })
    .await?;
    reply(connection, result).await
}

pub(super) async fn commit(agent: &Agent, call: &ContainerCommit) -> Result<Committed> {
    containers(agent)?.commit(&call.container, call.pause).await
}

pub(super) async fn import(
    agent: &Agent,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let images = match agent.storage() {
        Ok(storage) => storage.images.clone(),
        Err(error) => return reply::<()>(connection, Err(error)).await,
    };
    reply(connection, Ok(())).await?;
    let imported = stream::receive(
        connection,
        || false,
        |source| async {
            let store = images.clone();
            let unpacked = stream::blocking(move || store.unpack_new(source)).await?;
            images.keep_new(unpacked).await
        },
    )
    .await;
    reply(connection, imported).await
}

//! Calls about volumes.

use std::result::Result as StdResult;

use guest_protocol::{
    ErrorKind,
    frame::FrameError,
    methods::{
        VolumeBackup, VolumeCreate, VolumeInspect, VolumeRemove, VolumeRestore, VolumeUsage,
    },
    volume::Volume,
};

use super::{Connection, reply};
use crate::{
    agent::Agent,
    archive::{
        stream,
        tree::{Contents, write_tree},
    },
    containers::Containers,
    error::Result,
    images::unpack::{Rules, unpack_files},
    volumes::Wanted,
};

fn containers(agent: &Agent) -> Result<&Containers> {
    Ok(&agent.storage()?.containers)
}

pub(super) fn create(agent: &Agent, call: VolumeCreate) -> Result<Volume> {
    containers(agent)?.create_volume(&Wanted {
        name: call.name.filter(|name| !name.is_empty()),
        driver: call.driver,
        options: call.options,
        labels: call.labels,
    })
}

pub(super) fn list(agent: &Agent) -> Result<Vec<Volume>> {
    Ok(containers(agent)?.list_volumes())
}

pub(super) fn inspect(agent: &Agent, call: &VolumeInspect) -> Result<Volume> {
    containers(agent)?.volume(&call.name)
}

pub(super) async fn usage(agent: &Agent, call: VolumeUsage) -> Result<u64> {
    let volumes = containers(agent)?.volumes().clone();
    stream::blocking(move || volumes.usage(&call.name)).await
}

pub(super) fn remove(agent: &Agent, call: &VolumeRemove) -> Result<()> {
    match containers(agent)?.remove_volume(&call.name) {
        Err(error) if call.force && error.kind == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

pub(super) async fn backup(
    agent: &Agent,
    call: &VolumeBackup,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let opened = containers(agent).and_then(|containers| {
        let volumes = containers.volumes();
        Ok((volumes.hold(&call.name)?, volumes.open_files(&call.name)?))
    });
    let (hold, files) = match opened {
        Ok(opened) => opened,
        Err(error) => return reply::<()>(connection, Err(error)).await,
    };
    reply(connection, Ok(())).await?;
    let result = stream::send(
        connection,
        || false,
        |sink| {
            stream::blocking(move || {
                let _hold = hold;
                Ok(write_tree(sink, &files, b"", &Contents::backup())?)
            })
        },
    )
    .await?;
    reply(connection, result).await
}

pub(super) async fn restore(
    agent: &Agent,
    call: &VolumeRestore,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let prepare = || {
        let containers = containers(agent)?;
        let wanted = Wanted {
            name: Some(call.name.clone()),
            ..Wanted::default()
        };
        containers.create_volume(&wanted)?;
        Ok(containers.volumes().clone())
    };
    let volumes = match prepare() {
        Ok(volumes) => volumes,
        Err(error) => return reply::<()>(connection, Err(error)).await,
    };
    reply(connection, Ok(())).await?;
    let name = call.name.clone();
    let result = stream::receive(
        connection,
        || false,
        |mut source| {
            stream::blocking(move || {
                volumes.replace(&name, |folder| {
                    unpack_files(&mut source, folder, &Rules::files())?;
                    source.finish()
                })
            })
        },
    )
    .await;
    reply(connection, result).await
}

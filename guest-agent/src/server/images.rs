//! Calls about images.

use std::result::Result as StdResult;

use guest_protocol::{
    frame::FrameError,
    image::{Documents, Image, ImagesUsage, LayerBlob, Origin, Removed},
    methods::{
        ImageCreate, ImageDocuments, ImageInspect, ImagePushed, ImageRemove, ImageTag, LayerBlobs,
        LayerBlobsKeep, LayerImport, LayerWanted, LayersMissing,
    },
};

use super::{Connection, reply};
use crate::{agent::Agent, error::Result};

pub(super) fn missing(agent: &Agent, call: &LayersMissing) -> Result<Vec<String>> {
    agent.storage()?.images.missing(&call.diff_ids)
}

pub(super) async fn import(
    agent: &Agent,
    call: LayerImport,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let reservation = match agent.storage() {
        Ok(storage) => storage.images.reserve_layer(&call.layer).await,
        Err(error) => Err(error),
    };
    match reservation {
        Ok(Some(reservation)) => {
            reply(connection, Ok(LayerWanted::Send)).await?;
            let imported = reservation.import(connection).await;
            reply(connection, imported).await
        }
        Ok(None) => reply(connection, Ok(LayerWanted::Present)).await,
        Err(error) => reply::<LayerWanted>(connection, Err(error)).await,
    }
}

pub(super) fn create(agent: &Agent, call: &ImageCreate) -> Result<Image> {
    let storage = agent.storage()?;
    let image = tokio::task::block_in_place(|| {
        storage.images.create(
            &call.configuration,
            &call.manifest_media_type,
            &call.manifest,
            &call.references,
        )
    })?;
    let events = storage.containers.events();
    let name = call.references.first().unwrap_or(&image.id);
    if call.origin == Origin::Pull {
        events.image(&image.id, "pull", name);
        return Ok(image);
    }
    for name in &call.references {
        events.image(&image.id, "tag", name);
    }
    match &call.origin {
        Origin::Pull => {}
        Origin::Import => events.image(&image.id, "import", &image.id),
        Origin::Commit { container, comment } => {
            let reference = call.references.first().map_or("", String::as_str);
            let containers = &storage.containers;
            containers.tell_commit(container, comment, &image.id, reference);
        }
    }
    Ok(image)
}

pub(super) fn list(agent: &Agent) -> Result<Vec<Image>> {
    agent.storage()?.images.list()
}

pub(super) fn inspect(agent: &Agent, call: &ImageInspect) -> Result<Image> {
    agent.storage()?.images.resolve(&call.reference)
}

pub(super) fn tag(agent: &Agent, call: &ImageTag) -> Result<()> {
    let storage = agent.storage()?;
    tokio::task::block_in_place(|| storage.images.tag(&call.reference, &call.name))?;
    let image = storage.images.resolve(&call.name)?;
    storage
        .containers
        .events()
        .image(&image.id, "tag", &call.name);
    Ok(())
}

pub(super) fn remove(agent: &Agent, call: &ImageRemove) -> Result<Vec<Removed>> {
    let storage = agent.storage()?;
    let image = storage.images.resolve(&call.reference)?;
    let users = |id: &str| storage.containers.users_of(id);
    let removed =
        tokio::task::block_in_place(|| storage.images.remove(&call.reference, call.force, &users))?;
    for step in &removed {
        let (action, name) = match step {
            Removed::Untagged(name) => ("untag", name),
            Removed::Deleted(id) => ("delete", id),
        };
        storage.containers.events().image(&image.id, action, name);
    }
    Ok(removed)
}

pub(super) fn documents(agent: &Agent, call: &ImageDocuments) -> Result<Documents> {
    agent.storage()?.images.documents(&call.reference)
}

pub(super) fn keep_blobs(agent: &Agent, call: &LayerBlobsKeep) -> Result<()> {
    let storage = agent.storage()?;
    tokio::task::block_in_place(|| storage.images.keep_blobs(&call.blobs))
}

pub(super) fn blobs(agent: &Agent, call: &LayerBlobs) -> Result<Vec<LayerBlob>> {
    agent.storage()?.images.blobs(&call.diff_ids)
}

pub(super) fn pushed(agent: &Agent, call: &ImagePushed) -> Result<()> {
    let storage = agent.storage()?;
    let id = tokio::task::block_in_place(|| storage.images.pushed(call))?;
    storage
        .containers
        .events()
        .image(&id, "push", &call.reference);
    Ok(())
}

pub(super) fn usage(agent: &Agent) -> Result<ImagesUsage> {
    agent.storage()?.images.usage()
}

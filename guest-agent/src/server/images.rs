//! Calls about images.

use std::result::Result as StdResult;

use guest_protocol::{
    frame::FrameError,
    image::{Documents, Image, ImagesUsage, LayerBlob, Origin, Removed},
    methods::{
        ImageCreate, ImageDocuments, ImageInspect, ImagePushed, ImageRemove, ImageTag, LayerBlobs,
        LayerBlobsKeep, LayerImport, LayerWanted, LayersMissing,
    },
    reference::Reference,
};

use super::{Connection, reply};
use crate::{agent::Agent, error::Result, images::name_meant};

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
    let tagged = || {
        for name in &call.references {
            events.image(&image, &image.id, "tag", name);
        }
    };
    match &call.origin {
        Origin::Pull => {
            // By its tag, if it has one.
            let name = call.references.last().unwrap_or(&image.id);
            events.image(&image, name, "pull", &repository(name));
        }
        Origin::Import => {
            events.image(&image, &image.id, "import", &image.id);
            tagged();
        }
        Origin::Commit { container, comment } => {
            events.image(&image, &image.id, "create", &image.id);
            tagged();
            let reference = call.references.first().map_or("", String::as_str);
            let containers = &storage.containers;
            containers.tell_commit(container, comment, &image.id, reference);
        }
    }
    Ok(image)
}

/// A name without tag and digest.
fn repository(name: &str) -> String {
    let reference = Reference::parse(name);
    reference.map_or_else(|_| name.to_owned(), |name| name.familiar_name())
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
        .image(&image, &image.id, "tag", &call.name);
    Ok(())
}

pub(super) fn remove(agent: &Agent, call: &ImageRemove) -> Result<Vec<Removed>> {
    let storage = agent.storage()?;
    let image = storage.images.resolve(&call.reference)?;
    let users = |id: &str| storage.containers.users_of(id);
    let removed =
        tokio::task::block_in_place(|| storage.images.remove(&call.reference, call.force, &users))?;
    let events = storage.containers.events();
    // Docker does not tell of the digests that go with a repository's last tag.
    let untagged = match name_meant(&call.reference, &image.id) {
        Some(_) => 1,
        None => usize::MAX,
    };
    let is_name = |step: &&Removed| matches!(step, Removed::Untagged(_));
    for _ in removed.iter().filter(is_name).take(untagged) {
        events.image(&image, &image.id, "untag", &image.id);
    }
    // Its layers are no images.
    if removed.contains(&Removed::Deleted(image.id.clone())) {
        events.image_deleted(&image.id);
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
    let name = &call.reference;
    let events = storage.containers.events();
    events.image(
        &storage.images.resolve(&id)?,
        name,
        "push",
        &repository(name),
    );
    Ok(())
}

pub(super) fn usage(agent: &Agent) -> Result<ImagesUsage> {
    agent.storage()?.images.usage()
}

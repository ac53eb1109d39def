//! Calls that carry archives of images and layers.

use std::result::Result as StdResult;

use guest_protocol::{
    AgentError, ErrorKind,
    chunks::{self, ChunkReader},
    frame::{self, FrameError, Reply},
    image::LoadStep,
    methods::{ImageLoad, ImageSave, LayerArchive, LayerExport},
};
use tokio::{io::AsyncWrite, sync::mpsc};

use super::{Connection, reply};
use crate::{
    agent::Agent,
    error::Result,
    images::{
        self,
        pipe::{self, PipeWriter},
    },
};

/// How many steps of a load wait for the host.
const STEPS: usize = 64;

pub(super) async fn save(
    agent: &Agent,
    call: ImageSave,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let prepared = agent
        .storage()
        .and_then(|storage| tokio::task::block_in_place(|| storage.images.save(&call.references)));
    match prepared {
        Ok(archive) => {
            for id in archive.images() {
                tell(agent, id, "save");
            }
            reply(connection, Ok(())).await?;
            send(connection, move |output| archive.write(output)).await
        }
        Err(error) => reply::<()>(connection, Err(error)).await,
    }
}

pub(super) async fn export_layer(
    agent: &Agent,
    call: LayerExport,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let found = agent.storage().and_then(|storage| {
        let images = storage.images.clone();
        let size = tokio::task::block_in_place(|| images.archive_size(&call.diff_id))?;
        Ok((images, size))
    });
    match found {
        Ok((images, size)) => {
            reply(connection, Ok(LayerArchive { size })).await?;
            send(connection, move |output| {
                images.export_layer(&call.diff_id, output)
            })
            .await
        }
        Err(error) => reply::<LayerArchive>(connection, Err(error)).await,
    }
}

/// Sends what `produce`, which blocks, writes: chunks, their end, and a reply that
/// says whether it is whole.
async fn send(
    connection: &mut Connection,
    produce: impl FnOnce(&mut PipeWriter) -> Result<()> + Send + 'static,
) -> StdResult<(), FrameError> {
    let (mut writer, written) = pipe::writer();
    let producing = tokio::task::spawn_blocking(move || {
        produce(&mut writer)?;
        std::io::Write::flush(&mut writer)
            .map_err(|error| AgentError::new(ErrorKind::Unavailable, error.to_string()))
    });
    written.copy(connection).await?;
    let result = producing
        .await
        .unwrap_or_else(|error| Err(AgentError::system(error.to_string())));
    chunks::end(connection).await?;
    reply(connection, result).await
}

pub(super) async fn load(
    agent: &Agent,
    call: ImageLoad,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let storage = match agent.storage() {
        Ok(storage) => storage,
        Err(error) => return reply::<()>(connection, Err(error)).await,
    };
    reply(connection, Ok(())).await?;
    let (incoming, mut outgoing) = tokio::io::split(connection);
    let (feed, archive) = pipe::reader();
    let mut incoming = ChunkReader::new(incoming);
    let (sender, steps) = mpsc::channel(STEPS);
    let images = storage.images.clone();
    let loading = async {
        let feeding = feed.copy(&mut incoming);
        let work = async {
            let result = images::load(&images, archive, call.platform, &sender).await;
            drop(sender);
            result
        };
        // The archive may turn out bad before all of it is here, and is all read
        // before the work is done otherwise.
        tokio::pin!(work);
        tokio::select! {
            result = &mut work => result,
            () = feeding => work.await,
        }
    };
    let telling = pass_on(&mut outgoing, steps, |id| tell(agent, id, "load"));
    let (result, told) = tokio::join!(loading, telling);
    told?;
    frame::write(&mut outgoing, &Reply::from(result.map(|()| LoadStep::Done))).await
}

/// Tells that `action` happened to the image `id`.
fn tell(agent: &Agent, id: &str, action: &str) {
    let told = agent.storage().and_then(|storage| {
        let image = storage.images.resolve(id)?;
        let events = storage.containers.events();
        events.image(&image, id, action, id);
        Ok(())
    });
    // Removed by now, which is told, too.
    if let Err(error) = told {
        tracing::info!("no event tells of {action} of the image {id}: {error}");
    }
}

async fn pass_on(
    stream: &mut (impl AsyncWrite + Unpin),
    mut steps: mpsc::Receiver<LoadStep>,
    loaded: impl Fn(&str),
) -> StdResult<(), FrameError> {
    let mut result = Ok(());
    let mut last = None;
    while let Some(step) = steps.recv().await {
        // Once with all its names.
        if let LoadStep::Loaded { id, .. } = &step
            && last.as_ref() != Some(id)
        {
            loaded(id);
            last = Some(id.clone());
        }
        // Read on when the host is gone: images that are there are announced.
        if result.is_ok() {
            result = frame::write(stream, &Reply::from(Result::Ok(step))).await;
        }
    }
    result
}

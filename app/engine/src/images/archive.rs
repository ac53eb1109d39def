//! `docker save` and `docker load`: the agent does the work, the archive and the
//! news of it pass through here.

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use guest_protocol::{
    AgentError,
    chunks::{self, ChunkReader},
    frame::{self, Reply},
    image::LoadStep,
    methods::{ImageLoad, ImageSave},
};
use tokio::{io::AsyncReadExt, net::UnixStream};

use super::{ImportError, Progress, import::short};
use crate::{
    agent::{Agent, CallError},
    registry::Platform,
};

/// The size of a piece on its way, in bytes.
const PIECE: usize = 256 * 1024;

/// An archive of the images that `references` name. It ends in an error when the
/// agent could not write all of it.
pub(crate) async fn save(
    agent: &Agent,
    references: Vec<String>,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, ImportError> {
    let ((), guest) = agent.open(ImageSave { references }).await?;
    let archive = stream::unfold(Some(ChunkReader::new(guest)), |archive| async {
        let mut archive = archive?;
        let mut piece = bytes::BytesMut::with_capacity(PIECE);
        match archive.read_buf(&mut piece).await {
            Ok(0) => match check(archive).await {
                Ok(()) => None,
                Err(error) => Some((Err(io::Error::other(error)), None)),
            },
            Ok(_) => Some((Ok(piece.freeze()), Some(archive))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(archive)
}

/// What the agent says after an archive.
async fn check(archive: ChunkReader<UnixStream>) -> Result<(), CallError> {
    let reply: Reply<()> = frame::read(&mut archive.into_inner())
        .await
        .map_err(|error| CallError::connection("ImageSave", error))?;
    let result = Result::<(), AgentError>::from(reply);
    if let Err(error) = &result {
        tracing::warn!(%error, "an archive of images is not whole");
    }
    Ok(result?)
}

/// Makes images of the archive that `body` is. Steps of layers are told unless
/// `quiet`.
pub(crate) async fn load<S, E>(
    agent: &Agent,
    body: S,
    platform: Option<&Platform>,
    quiet: bool,
    progress: &Progress,
) -> Result<(), ImportError>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::fmt::Display,
{
    let platform = platform.map_or_else(|| Platform::of_machine().to_string(), ToString::to_string);
    let ((), guest) = agent.open(ImageLoad { platform }).await?;
    let (mut steps, mut archive) = guest.into_split();
    let broken = |error| CallError::connection("ImageLoad", error);
    let sending = async {
        let mut body = std::pin::pin!(body);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| {
                ImportError::Invalid(format!("the archive did not come whole: {error}"))
            })?;
            if chunks::write(&mut archive, &piece).await.is_err() {
                // The agent has heard enough, and says why.
                return Ok(());
            }
        }
        let _ = chunks::end(&mut archive).await;
        Ok::<_, ImportError>(())
    };
    let telling = async {
        loop {
            let reply: Reply<LoadStep> = frame::read(&mut steps).await.map_err(broken)?;
            let step = Result::<_, AgentError>::from(reply).map_err(CallError::from)?;
            if step == LoadStep::Done {
                return Ok::<_, ImportError>(());
            }
            tell(&step, quiet, progress).await?;
        }
    };
    tokio::pin!(telling);
    tokio::select! {
        biased;
        told = &mut telling => told,
        sent = sending => {
            sent?;
            telling.await
        }
    }
}

async fn tell(step: &LoadStep, quiet: bool, progress: &Progress) -> Result<(), ImportError> {
    match step {
        LoadStep::Layer { .. } if quiet => {}
        LoadStep::Layer {
            diff_id,
            current,
            total,
        } => {
            progress
                .bar(short(diff_id), "Loading layer", *total)
                .set(*current)
                .await?;
        }
        LoadStep::Renamed { name, id } => {
            progress
                .stream(&format!(
                    "The image {name} already exists, renaming the old one with ID {id} to empty string\n"
                ))
                .await?;
        }
        LoadStep::Loaded {
            name: Some(name), ..
        } => progress.stream(&format!("Loaded image: {name}\n")).await?,
        LoadStep::Loaded { id, name: None } => {
            progress.stream(&format!("Loaded image ID: {id}\n")).await?;
        }
        LoadStep::Done => {}
    }
    Ok(())
}

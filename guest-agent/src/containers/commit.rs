//! A layer of what a container changed in its root file system.
//!
//! Its upper directory is written as an archive and unpacked as any layer is: the
//! same code decides what a layer may hold, and its digest is known when it is there.

use std::{io, path::PathBuf};

use guest_protocol::{AgentError, container::Status, methods::Committed};

use super::{Containers, cgroup, cleanup::unmounted, mount_points};
use crate::{
    archive::tree::{Contents, WriteError, write_tree},
    error::{Context, Result},
    images::overlay,
};

/// Length of an archive without entries: two blocks of zeros.
const EMPTY_ARCHIVE: u64 = 1024;

impl Containers {
    /// Makes a layer of what a container changed; `pause` freezes it meanwhile.
    ///
    /// # Errors
    /// [`guest_protocol::ErrorKind::NotFound`], or why it cannot be made.
    pub(crate) async fn commit(&self, reference: &str, pause: bool) -> Result<Committed> {
        let entry = self.find(reference)?;
        let running = entry.live().process.is_some();
        // One that does not run is not started meanwhile.
        let _lifecycle = if running {
            None
        } else {
            Some(entry.lifecycle.lock().await)
        };
        if entry.history.borrow().removed {
            return Err(AgentError::no_such_container(reference));
        }
        unmounted_if(&entry, !running).await;
        let status = entry.record().container.state.status;
        let frozen = if pause && status == Status::Running {
            // Thawed also when it did not come to rest.
            let frozen = Frozen(entry.cgroup());
            cgroup::freeze(&frozen.0)
                .await
                .context(format_args!("cannot pause container {}", entry.id))?;
            Some(frozen)
        } else {
            None
        };
        let container = entry.container();
        let (base_configuration, base_manifest) =
            self.shared.images.description(&container.image_id)?;
        let contents = Contents::layer(mount_points::of(&container));
        let upper = self.shared.paths.container(&entry.id).join("upper");
        let images = self.shared.images.clone();
        let unpacked = crate::archive::stream::blocking(move || {
            overlay::make_directory(&upper, 0o755).context("cannot make the upper directory")?;
            let upper = std::fs::File::open(&upper)
                .context("cannot open the container's changes")?
                .into();
            let (reader, writer) = io::pipe().context("cannot make a pipe")?;
            std::thread::scope(|scope| {
                let written = scope.spawn(|| write_tree(writer, &upper, b"", &contents));
                let reader = io::BufReader::with_capacity(64 * 1024, reader);
                let unpacked = images.unpack_made(reader);
                let written = written.join().unwrap_or_else(|_| {
                    Err(WriteError::Output(io::Error::other(
                        "the archive's thread panicked",
                    )))
                });
                match (written, unpacked) {
                    (Ok(()), unpacked) => unpacked,
                    // The reason is on the other side of the pipe.
                    (Err(WriteError::Output(_)), Err(error)) => Err(error),
                    (Err(error), unpacked) => {
                        if let Ok(unpacked) = unpacked {
                            images.throw_away(&unpacked);
                        }
                        Err(error.into())
                    }
                }
            })
        })
        .await?;
        drop(frozen);
        let layer = self.shared.images.keep_new(unpacked).await?;
        Ok(Committed {
            layer: (layer.tar_size > EMPTY_ARCHIVE).then_some(layer),
            base_configuration,
            base_manifest,
            container_id: entry.id.clone(),
        })
    }

    /// Tells that an image was made of a container's changes.
    pub(crate) fn tell_commit(&self, id: &str, comment: &str, image: &str, reference: &str) {
        // One that was removed meanwhile has nothing to tell any more.
        if let Ok(entry) = self.find(id) {
            let more = [
                ("comment", comment.to_owned()),
                ("imageID", image.to_owned()),
                ("imageRef", reference.to_owned()),
            ];
            self.tell(&entry, "commit", &more);
        }
    }
}

/// A container whose processes do not run until this goes.
struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        // One that has ended has no cgroup any more.
        if let Err(error) = cgroup::thaw(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!("{} stays frozen: {error}", self.0.display());
        }
    }
}

async fn unmounted_if(entry: &super::Entry, wanted: bool) {
    if wanted {
        unmounted(entry).await;
    }
}

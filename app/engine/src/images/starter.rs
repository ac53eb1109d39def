//! The starter image: an OCI image layout that is embedded, so that a first
//! `run hello` needs no network.

use std::{collections::HashMap, io, sync::Arc};

use bytes::Bytes;
use guest_protocol::reference::Reference;
use oci_spec::image::ImageIndex;

use super::{
    ImportError, Progress,
    import::{Image, LayerBytes, has_digest, import, parse_manifest},
};
use crate::{
    agent::Agent,
    registry::{Manifest, RegistryError},
};

/// Its name, as users write it.
const NAME: &str = "hello:latest";

/// Whether `reference` names the starter image.
pub(crate) fn is_starter(reference: &Reference) -> bool {
    reference.digest().is_none() && reference.clone().or_latest().to_string() == NAME
}

/// Brings the starter image to the guest. `layout` is the tar of its OCI image
/// layout.
pub(crate) async fn import_starter(
    agent: &Arc<Agent>,
    layout: &'static [u8],
    progress: &Progress,
) -> Result<(), ImportError> {
    progress
        .status_of("latest", "Importing the starter image that comes with dctl")
        .await?;
    let layout = Layout::read(layout)?;
    let index: ImageIndex = serde_json::from_slice(layout.file("index.json")?)
        .map_err(|error| damaged(&format!("index.json: {error}")))?;
    let descriptor = index
        .manifests()
        .first()
        .ok_or_else(|| damaged("its index is empty"))?;
    let manifest = Manifest {
        media_type: descriptor.media_type().to_string(),
        bytes: layout.blob(descriptor.digest().as_ref())?,
        digest: descriptor.digest().to_string(),
    };
    let configuration = layout.blob(parse_manifest(&manifest)?.config().digest().as_ref())?;
    let image = Image {
        manifest,
        configuration,
        references: vec![NAME.to_owned()],
        repository: None,
    };
    let open = |digest: &str, _size: u64| {
        layout
            .blob(digest)
            .map(|bytes| LayerBytes::Embedded(Some(bytes)))
            .map_err(|error| RegistryError::Unsupported(error.to_string()))
    };
    import(agent, image, open, progress).await?;
    progress
        .status(format!("Status: Imported starter image {NAME}"))
        .await?;
    Ok(())
}

/// The files of an OCI image layout, within its tar.
struct Layout {
    files: HashMap<String, &'static [u8]>,
}

impl Layout {
    fn read(tar: &'static [u8]) -> Result<Self, ImportError> {
        let mut files = HashMap::new();
        let unreadable = |error: io::Error| damaged(&error.to_string());
        for entry in tar::Archive::new(tar).entries().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path().map_err(unreadable)?;
            let path = path.to_string_lossy();
            let name = path.strip_prefix("./").unwrap_or(&path).to_owned();
            let start = entry.raw_file_position() as usize;
            let content = start
                .checked_add(entry.size() as usize)
                .and_then(|end| tar.get(start..end))
                .ok_or_else(|| damaged("it is truncated"))?;
            files.insert(name, content);
        }
        Ok(Self { files })
    }

    fn file(&self, name: &str) -> Result<&'static [u8], ImportError> {
        self.files
            .get(name)
            .copied()
            .ok_or_else(|| damaged(&format!("{name} is missing")))
    }

    fn blob(&self, digest: &str) -> Result<Bytes, ImportError> {
        let bytes = self.file(&format!("blobs/{}", digest.replacen(':', "/", 1)))?;
        if !has_digest(bytes, digest) {
            return Err(damaged(&format!("{digest} does not have its digest")));
        }
        Ok(Bytes::from_static(bytes))
    }
}

fn damaged(reason: &str) -> ImportError {
    ImportError::Invalid(format!("the embedded starter image is damaged: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_name_is_the_starter_image_s() {
        let is = |name: &str| is_starter(&Reference::parse(name).unwrap());
        assert!(is("hello") && is("hello:latest") && is("docker.io/library/hello"));
        assert!(!is("hello:1") && !is("me/hello") && !is("localhost/hello"));
    }

    #[test]
    fn a_damaged_layout_is_refused() {
        assert!(Layout::read(&[7; 1024]).is_err());
        let layout = Layout::read(&[]).unwrap();
        let error = layout.file("index.json").unwrap_err().to_string();
        assert!(error.contains("index.json is missing"), "{error}");
    }
}

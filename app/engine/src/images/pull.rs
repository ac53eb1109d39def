//! Pulling from a registry.

use std::sync::Arc;

use bytes::Bytes;
use guest_protocol::{methods::ImageInspect, reference::Reference};
use oci_spec::image::ImageIndex;
use serde::Deserialize;

use super::{
    ImportError, Progress,
    import::{Configuration, Image, LayerBytes, import, parse_manifest},
};
use crate::{
    agent::Agent,
    registry::{Client, Credentials, Manifest, Platform},
};

/// The largest configuration that is read, in bytes: it travels to the guest in
/// one frame, together with the manifest.
const MAX_CONFIGURATION: u64 = 4 * 1024 * 1024;

/// Pulls the image that `reference` names, for `platform` or else for the machine.
pub(crate) async fn pull(
    agent: &Arc<Agent>,
    reference: &Reference,
    platform: Option<&Platform>,
    credentials: Credentials,
    progress: &Progress,
) -> Result<(), ImportError> {
    let client = Client::new(reference, credentials)?;
    pull_with(&client, agent, reference, platform, progress).await
}

/// Pulls every tag of a repository.
pub(crate) async fn pull_all_tags(
    agent: &Arc<Agent>,
    reference: &Reference,
    platform: Option<&Platform>,
    credentials: Credentials,
    progress: &Progress,
) -> Result<(), ImportError> {
    let client = Client::new(reference, credentials)?;
    for tag in client.tags().await? {
        let tagged = reference.clone().with_version(&tag).map_err(|error| {
            ImportError::Invalid(format!("the registry's tag {tag:?}: {error}"))
        })?;
        let client = client.for_reference(&tagged);
        pull_with(&client, agent, &tagged, platform, progress).await?;
    }
    Ok(())
}

async fn pull_with(
    client: &Client,
    agent: &Arc<Agent>,
    reference: &Reference,
    platform: Option<&Platform>,
    progress: &Progress,
) -> Result<(), ImportError> {
    let top = client.manifest(reference.version()).await?;
    let (manifest, configuration) = resolve(client, reference, top.clone(), platform).await?;
    progress
        .status_of(
            reference.version(),
            &format!("Pulling from {}", reference.path()),
        )
        .await?;
    let name = reference.to_string();
    let before = agent
        .call(ImageInspect {
            reference: name.clone(),
        })
        .await
        .ok();
    let mut references = vec![reference.familiar_with_digest(&top.digest)];
    references.extend(reference.tag().map(|_| name.clone()));
    let image = Image {
        manifest,
        configuration,
        references,
        repository: Some(reference.repository()),
    };
    let open =
        |digest: &str, size: u64| Ok(LayerBytes::Remote(Box::new(client.blob(digest, size)?)));
    import(agent, image, open, progress).await?;
    progress.status(format!("Digest: {}", top.digest)).await?;
    let after = agent
        .call(ImageInspect {
            reference: name.clone(),
        })
        .await?;
    let unchanged = before.is_some_and(|before| before.id == after.id);
    let outcome = if unchanged {
        format!("Status: Image is up to date for {name}")
    } else {
        format!("Status: Downloaded newer image for {name}")
    };
    progress.status(outcome).await?;
    Ok(())
}

/// From what a name leads to, an index or a manifest, to the manifest for the
/// platform and its configuration.
async fn resolve(
    client: &Client,
    reference: &Reference,
    top: Manifest,
    platform: Option<&Platform>,
) -> Result<(Manifest, Bytes), ImportError> {
    let machine = Platform::of_machine();
    let wanted = platform.unwrap_or(&machine);
    let manifest = match Kind::of(&top)? {
        Kind::Manifest => top,
        Kind::Index => {
            let index: ImageIndex = serde_json::from_slice(&top.bytes).map_err(|error| {
                ImportError::Invalid(format!("index {} is not understood: {error}", top.digest))
            })?;
            let chosen = wanted.choose(&index).ok_or_else(|| {
                ImportError::Platform(format!(
                    "no matching manifest for {wanted} in the manifest list entries"
                ))
            })?;
            let manifest = client.manifest(chosen.digest().as_ref()).await?;
            match Kind::of(&manifest)? {
                Kind::Manifest => manifest,
                Kind::Index => {
                    return Err(ImportError::Invalid(
                        "an index within an index is not supported".to_owned(),
                    ));
                }
            }
        }
    };
    let parsed = parse_manifest(&manifest)?;
    let descriptor = parsed.config();
    let media_type = descriptor.media_type().to_string();
    if !matches!(
        media_type.as_str(),
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
    ) {
        return Err(ImportError::Invalid(format!(
            "{reference} is no container image: its configuration is of type {media_type:?}"
        )));
    }
    let configuration = client
        .blob(descriptor.digest().as_ref(), descriptor.size())?
        .read(MAX_CONFIGURATION)
        .await?;
    let actual = Configuration::parse(&configuration)?.platform();
    if let Some(platform) = platform
        && !platform.runs(&actual)
    {
        return Err(ImportError::Platform(format!(
            "image with reference {reference} was found but does not match the specified platform: wanted {platform}, actual: {actual}"
        )));
    }
    Ok((manifest, configuration))
}

/// What a document that a registry calls a manifest is.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Manifest,
    Index,
}

impl Kind {
    /// By its own word, or else by the registry's.
    fn of(manifest: &Manifest) -> Result<Self, ImportError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            media_type: Option<String>,
            schema_version: Option<u32>,
        }
        let head: Head = serde_json::from_slice(&manifest.bytes).map_err(|error| {
            ImportError::Invalid(format!("manifest {} is no JSON: {error}", manifest.digest))
        })?;
        let announced = manifest
            .media_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        let media_type = head.media_type.as_deref().unwrap_or(announced);
        match media_type {
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => Ok(Self::Index),
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => Ok(Self::Manifest),
            _ if head.schema_version == Some(1) => Err(ImportError::Invalid(
                "manifests of Docker's schema version 1 are not supported: rebuild and push the image with a current tool"
                    .to_owned(),
            )),
            other => Err(ImportError::Invalid(format!(
                "manifests of type {other:?} are not supported"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(media_type: &str, json: &'static str) -> Result<Kind, String> {
        Kind::of(&Manifest {
            media_type: media_type.into(),
            bytes: Bytes::from_static(json.as_bytes()),
            digest: "sha256:0".into(),
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn a_document_says_what_it_is() {
        let index = "application/vnd.oci.image.index.v1+json";
        let manifest = "application/vnd.docker.distribution.manifest.v2+json; charset=utf-8";
        assert_eq!(kind(index, "{}"), Ok(Kind::Index));
        assert_eq!(kind(manifest, "{}"), Ok(Kind::Manifest));
        assert_eq!(
            kind(
                manifest,
                r#"{"mediaType":"application/vnd.oci.image.index.v1+json"}"#
            ),
            Ok(Kind::Index)
        );
        let old = kind("application/json", r#"{"schemaVersion":1}"#).unwrap_err();
        assert!(old.contains("schema version 1"), "{old}");
        assert!(kind("text/html", "<html>").is_err());
    }
}

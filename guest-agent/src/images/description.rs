//! What describes an image: the configuration and the manifest that an import
//! brings, which come from strangers and are checked here before the store keeps
//! them. Reads and writes nothing.

use guest_protocol::{AgentError, ErrorKind, reference::is_digest};
use sha2::{Digest, Sha256};

use super::overlay;

/// Media type of OCI's manifests.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The digest of a text, as configurations and manifests are named by.
pub(super) fn digest(text: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

/// Refuses what cannot be the digest of a layer's tar.
pub(super) fn check_diff_id(text: &str) -> Result<(), AgentError> {
    if is_digest(text) {
        Ok(())
    } else {
        Err(AgentError::invalid(format!(
            "{text:?} is no layer's digest: expected sha256: and 64 hex digits"
        )))
    }
}

/// The layers that a configuration names, bottom first.
pub(super) fn diff_ids(configuration: &str) -> Result<Vec<String>, AgentError> {
    #[derive(serde::Deserialize)]
    struct Configuration {
        rootfs: RootFs,
    }
    #[derive(serde::Deserialize)]
    struct RootFs {
        diff_ids: Vec<String>,
    }
    let corrupt = |reason: String| {
        AgentError::new(
            ErrorKind::Corrupt,
            format!("the image's configuration is not valid: {reason}"),
        )
    };
    let Configuration { rootfs } =
        serde_json::from_str(configuration).map_err(|error| corrupt(error.to_string()))?;
    if rootfs.diff_ids.is_empty() {
        return Err(corrupt("it names no layers".into()));
    }
    if rootfs.diff_ids.len() > overlay::MAX_LAYERS {
        return Err(corrupt(format!(
            "it names {} layers, the kernel takes {}",
            rootfs.diff_ids.len(),
            overlay::MAX_LAYERS
        )));
    }
    for diff_id in &rootfs.diff_ids {
        if !is_digest(diff_id) {
            return Err(corrupt(format!("{diff_id:?} is no layer's digest")));
        }
    }
    Ok(rootfs.diff_ids)
}

/// A manifest for the image `id` whose layers are not compressed: what it has when
/// it did not come from a registry. `layers` are diff ids with lengths in bytes.
pub(super) fn local_manifest(id: &str, configuration: &str, layers: &[(&str, u64)]) -> String {
    let layers: Vec<_> = layers
        .iter()
        .map(|(diff_id, size)| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": diff_id,
                "size": size,
            })
        })
        .collect();
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": id,
            "size": configuration.len(),
        },
        "layers": layers,
    })
    .to_string()
}

/// Checks that a manifest is that of the image `id`.
pub(super) fn check_manifest(manifest: &str, id: &str) -> Result<(), AgentError> {
    #[derive(serde::Deserialize)]
    struct Manifest {
        config: Configuration,
    }
    #[derive(serde::Deserialize)]
    struct Configuration {
        digest: String,
    }
    let corrupt = |reason: String| AgentError::new(ErrorKind::Corrupt, reason);
    let Manifest { config } = serde_json::from_str(manifest)
        .map_err(|error| corrupt(format!("the image's manifest is not valid: {error}")))?;
    if config.digest != id {
        return Err(corrupt(format!(
            "the image's configuration has digest {id}, its manifest says {}",
            config.digest
        )));
    }
    Ok(())
}

//! Images that are made here, of a container or of an archive: their configuration
//! and manifest.

use std::sync::Arc;

use guest_protocol::{
    docker::ContainerConfig,
    image::{Image, Origin},
    methods::{Committed, ImageCreate, NewLayer},
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    agent::{Agent, CallError},
    registry::Platform,
};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIGURATION: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// What is said of an image beside its layers.
#[derive(Debug, Default)]
pub(crate) struct About {
    /// What containers made of it are.
    pub(crate) config: ContainerConfig,
    /// Who made it.
    pub(crate) author: String,
    /// Why.
    pub(crate) comment: String,
    /// When, as RFC 3339.
    pub(crate) created: String,
    /// What made its last layer.
    pub(crate) created_by: String,
}

/// An image as the agent takes it.
#[derive(Debug, PartialEq)]
struct Made {
    configuration: Value,
    manifest: Value,
    media_type: &'static str,
}

/// Makes an image of the layer that a container's changes are.
pub(crate) async fn commit(
    agent: &Arc<Agent>,
    committed: &Committed,
    about: &About,
    references: Vec<String>,
) -> Result<Image, CallError> {
    let made = on_top(
        &committed.base_configuration,
        &committed.base_manifest,
        committed.layer.as_ref(),
        about,
    );
    let origin = Origin::Commit {
        container: committed.container_id.clone(),
        comment: about.comment.clone(),
    };
    create(agent, made, references, origin).await
}

/// Makes an image of one layer.
pub(crate) async fn import(
    agent: &Arc<Agent>,
    layer: &NewLayer,
    platform: &Platform,
    about: &About,
    references: Vec<String>,
) -> Result<Image, CallError> {
    let mut base = json!({"architecture": platform.architecture(), "os": platform.os()});
    if let Some(variant) = platform.variant() {
        base["variant"] = json!(variant);
    }
    let made = on_top(&base, &Value::Null, Some(layer), about);
    create(agent, made, references, Origin::Import).await
}

async fn create(
    agent: &Arc<Agent>,
    made: Made,
    references: Vec<String>,
    origin: Origin,
) -> Result<Image, CallError> {
    let configuration = made.configuration.to_string();
    let mut manifest = made.manifest;
    manifest["config"]["digest"] = json!(digest(&configuration));
    manifest["config"]["size"] = json!(configuration.len());
    agent
        .call(ImageCreate {
            configuration,
            manifest_media_type: made.media_type.to_owned(),
            manifest: manifest.to_string(),
            references,
            origin,
        })
        .await
}

fn digest(text: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

/// The image that `base` becomes with one more layer.
fn on_top(base: &Value, manifest: &Value, layer: Option<&NewLayer>, about: &About) -> Made {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_docker = manifest["mediaType"]
        .as_str()
        .is_some_and(|kind| kind == DOCKER_MANIFEST);
    let mut diff_ids = list(&base["rootfs"]["diff_ids"]);
    let mut layers = list(&manifest["layers"]);
    let mut step = Map::new();
    step.insert("created".into(), json!(about.created));
    for (key, text) in [
        ("author", &about.author),
        ("created_by", &about.created_by),
        ("comment", &about.comment),
    ] {
        if !text.is_empty() {
            step.insert(key.into(), json!(text));
        }
    }
    match layer {
        Some(layer) => {
            diff_ids.push(json!(layer.diff_id));
            layers.push(json!({
                "mediaType": if is_docker { DOCKER_LAYER } else { OCI_LAYER },
                "digest": layer.diff_id,
                "size": layer.tar_size,
            }));
        }
        None => {
            step.insert("empty_layer".into(), json!(true));
        }
    }
    let mut history = list(&base["history"]);
    history.push(Value::Object(step));
    let mut configuration = Map::new();
    for key in ["architecture", "os", "variant", "os.version", "os.features"] {
        if let Some(value) = base.get(key) {
            configuration.insert(key.into(), value.clone());
        }
    }
    configuration.insert("created".into(), json!(about.created));
    if !about.author.is_empty() {
        configuration.insert("author".into(), json!(about.author));
    }
    if !about.comment.is_empty() {
        configuration.insert("comment".into(), json!(about.comment));
    }
    configuration.insert("config".into(), of_image(&about.config));
    configuration.insert("history".into(), Value::Array(history));
    configuration.insert(
        "rootfs".into(),
        json!({"type": "layers", "diff_ids": diff_ids}),
    );
    let (media_type, configuration_type) = if is_docker {
        (DOCKER_MANIFEST, DOCKER_CONFIGURATION)
    } else {
        (OCI_MANIFEST, OCI_CONFIGURATION)
    };
    Made {
        configuration: Value::Object(configuration),
        manifest: json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": configuration_type},
            "layers": layers,
        }),
        media_type,
    }
}

/// What of a container's configuration is an image's: the rest is about one
/// container.
fn of_image(config: &ContainerConfig) -> Value {
    let image = ContainerConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: config.volumes.clone(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        healthcheck: config.healthcheck.clone(),
        shell: config.shell.clone(),
        on_build: config.on_build.clone(),
        ..ContainerConfig::default()
    };
    json!(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> NewLayer {
        NewLayer {
            diff_id: "sha256:new".into(),
            tar_size: 2048,
            size: 5,
        }
    }

    #[test]
    fn a_commit_adds_a_layer_and_a_step() {
        let base = json!({
            "architecture": "arm64", "os": "linux", "created": "then", "config": {"Cmd": ["x"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:old"]},
            "history": [{"created_by": "ADD"}],
        });
        let manifest = json!({
            "mediaType": DOCKER_MANIFEST,
            "layers": [{"mediaType": "gzipped", "digest": "sha256:blob", "size": 7}],
        });
        let about = About {
            config: ContainerConfig {
                cmd: Some(vec!["sh".into()]),
                hostname: Some("its-own".into()),
                ..ContainerConfig::default()
            },
            author: "me".into(),
            comment: "why".into(),
            created: "now".into(),
            created_by: "sh -c x".into(),
        };
        let made = on_top(&base, &manifest, Some(&layer()), &about);
        let configuration = &made.configuration;
        assert_eq!(configuration["architecture"], "arm64");
        assert_eq!(configuration["config"], json!({"Cmd": ["sh"]}));
        assert_eq!(
            configuration["rootfs"]["diff_ids"],
            json!(["sha256:old", "sha256:new"])
        );
        assert_eq!(
            configuration["history"][1],
            json!({"created": "now", "author": "me", "created_by": "sh -c x", "comment": "why"})
        );
        assert_eq!(made.media_type, DOCKER_MANIFEST);
        assert_eq!(made.manifest["layers"][1]["size"], 2048);
        assert_eq!(made.manifest["layers"][1]["mediaType"], DOCKER_LAYER);

        let unchanged = on_top(&base, &manifest, None, &about);
        assert_eq!(unchanged.manifest["layers"].as_array().unwrap().len(), 1);
        assert_eq!(unchanged.configuration["history"][1]["empty_layer"], true);
    }

    #[test]
    fn an_import_has_one_layer() {
        let about = About::default();
        let made = on_top(
            &json!({"os": "linux"}),
            &Value::Null,
            Some(&layer()),
            &about,
        );
        assert_eq!(made.media_type, OCI_MANIFEST);
        assert_eq!(
            made.configuration["rootfs"]["diff_ids"],
            json!(["sha256:new"])
        );
        assert_eq!(made.manifest["layers"].as_array().unwrap().len(), 1);
    }
}

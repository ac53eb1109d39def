//! Images in the shapes of the API: inspect, list and history.

use std::collections::HashMap;

use guest_protocol::{
    docker::{
        DriverData, HistoryResponseItem, ImageConfig, ImageInspect, ImageInspectMetadata,
        ImageInspectRootFs, ImageSummary,
    },
    image::Image,
};
use serde_json::Value;

use super::{
    ApiError,
    container_view::STORAGE_DRIVER,
    image_defaults, times,
    version::{ApiVersion, NO_VIRTUAL_SIZE},
};
use crate::registry::Platform;

fn text<'a>(configuration: &'a Value, key: &str) -> Option<&'a str> {
    configuration.get(key).and_then(Value::as_str)
}

/// What an image was made for, by its configuration.
pub(super) fn platform_of(configuration: &Value) -> Platform {
    Platform::new(
        text(configuration, "os").unwrap_or_default(),
        text(configuration, "architecture").unwrap_or_default(),
        text(configuration, "variant"),
    )
}

/// An image's labels.
pub(super) fn labels(image: &Image) -> HashMap<String, String> {
    image
        .configuration
        .pointer("/config/Labels")
        .and_then(|labels| serde_json::from_value(labels.clone()).ok())
        .unwrap_or_default()
}

/// When an image was made, in Unix seconds, if it says so.
pub(super) fn created(image: &Image) -> Option<i64> {
    text(&image.configuration, "created").map(times::unix_seconds)
}

/// An image as `GET /images/{name}/json` shows it.
///
/// # Errors
/// 500 when it cannot be put into words.
pub(super) fn inspect(image: Image, version: ApiVersion) -> Result<Value, ApiError> {
    let mut shown = serde_json::to_value(view(image, version))
        .map_err(|error| ApiError::internal(format!("cannot describe the image: {error}")))?;
    image_defaults::fill(&mut shown, version);
    Ok(shown)
}

fn view(image: Image, version: ApiVersion) -> ImageInspect {
    let configuration = &image.configuration;
    let owned = |key: &str| Some(text(configuration, key).unwrap_or_default().to_owned());
    let config = configuration
        .get("config")
        .and_then(|config| serde_json::from_value::<Option<ImageConfig>>(config.clone()).ok())
        .flatten()
        .unwrap_or_default();
    let layers = configuration
        .pointer("/rootfs/diff_ids")
        .and_then(|layers| serde_json::from_value(layers.clone()).ok());
    ImageInspect {
        parent: Some(String::new()),
        comment: owned("comment"),
        created: text(configuration, "created").map(str::to_owned),
        docker_version: owned("docker_version"),
        author: owned("author"),
        config: Some(config),
        architecture: owned("architecture"),
        variant: text(configuration, "variant").map(str::to_owned),
        os: owned("os"),
        os_version: text(configuration, "os.version").map(str::to_owned),
        size: Some(image.size as i64),
        virtual_size: (version < NO_VIRTUAL_SIZE).then_some(image.size as i64),
        graph_driver: Some(DriverData {
            name: STORAGE_DRIVER.to_owned(),
            data: HashMap::new(),
        }),
        root_fs: Some(ImageInspectRootFs {
            typ: "layers".to_owned(),
            layers,
        }),
        metadata: Some(ImageInspectMetadata {
            last_tag_time: Some(times::rfc3339(0)),
        }),
        id: Some(image.id),
        repo_tags: Some(image.repo_tags),
        repo_digests: Some(image.repo_digests),
        ..Default::default()
    }
}

/// An image as `GET /images/json` shows it.
///
/// `shared` is how many of its bytes other images have, too; -1 when nobody asked.
pub(super) fn summary(image: &Image, shared: i64, version: ApiVersion) -> ImageSummary {
    ImageSummary {
        id: image.id.clone(),
        parent_id: String::new(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        created: created(image).unwrap_or_default(),
        size: image.size as i64,
        shared_size: shared,
        virtual_size: (version < NO_VIRTUAL_SIZE).then_some(image.size as i64),
        labels: labels(image),
        containers: -1,
        manifests: None,
        descriptor: None,
    }
}

/// Refuses an image that was made for another platform than the one that is asked
/// for, if one is.
pub(super) fn require_platform(
    image: &Image,
    name: &str,
    platform: Option<&Platform>,
) -> Result<(), ApiError> {
    let actual = platform_of(&image.configuration);
    match platform {
        Some(wanted) if !wanted.runs(&actual) => Err(ApiError::not_found(format!(
            "image with reference {name} was found but its platform ({actual}) does not match the \
             specified platform ({wanted})"
        ))),
        _ => Ok(()),
    }
}

/// An image's history, newest first, with the sizes of its layers. Layers that the
/// history says nothing of are told without it.
pub(super) fn history(image: &Image) -> Vec<HistoryResponseItem> {
    let entries = image
        .configuration
        .get("history")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let is_layer = |entry: &&Value| entry.get("empty_layer").and_then(Value::as_bool) != Some(true);
    let mut sizes = image.layers.iter().map(|layer| layer.size as i64);
    let mut items: Vec<_> = entries
        .iter()
        .map(|entry| HistoryResponseItem {
            id: "<missing>".to_owned(),
            created: text(entry, "created").map_or(0, times::unix_seconds),
            created_by: text(entry, "created_by").unwrap_or_default().to_owned(),
            tags: Vec::new(),
            size: if is_layer(&entry) {
                sizes.next().unwrap_or(0)
            } else {
                0
            },
            comment: text(entry, "comment").unwrap_or_default().to_owned(),
        })
        .collect();
    items.extend(sizes.map(|size| HistoryResponseItem {
        id: "<missing>".to_owned(),
        created: created(image).unwrap_or_default(),
        created_by: String::new(),
        tags: Vec::new(),
        size,
        comment: String::new(),
    }));
    items.reverse();
    if let Some(newest) = items.first_mut() {
        newest.id.clone_from(&image.id);
        newest.tags.clone_from(&image.repo_tags);
    }
    items
}

#[cfg(test)]
mod tests {
    use guest_protocol::image::Layer;
    use serde_json::json;

    use super::{
        super::{MAX_VERSION, version::MULTIPLEXED_TYPE},
        *,
    };

    fn image() -> Image {
        Image {
            id: "sha256:ab".into(),
            repo_tags: vec!["busybox:latest".into()],
            configuration: json!({
                "architecture": "arm64", "os": "linux", "created": "2023-11-14T22:13:20Z",
                "config": {"Cmd": ["sh"], "Labels": {"a": "b"}, "Env": ["A=B"]},
                "rootfs": {"type": "layers", "diff_ids": ["sha256:1", "sha256:2"]},
                "history": [
                    {"created": "2023-11-14T22:13:20Z", "created_by": "COPY / /"},
                    {"created_by": "CMD sh", "empty_layer": true},
                ],
            }),
            size: 77,
            layers: vec![
                Layer {
                    diff_id: "sha256:1".into(),
                    size: 70,
                },
                Layer {
                    diff_id: "sha256:2".into(),
                    size: 7,
                },
            ],
            ..Default::default()
        }
    }

    #[test]
    fn old_clients_find_the_configuration_twice() {
        let view = inspect(image(), MULTIPLEXED_TYPE).unwrap();
        assert_eq!(view["ContainerConfig"]["Cmd"], json!(["sh"]));
        assert_eq!(view["Config"], view["ContainerConfig"]);
        let view = inspect(image(), MAX_VERSION).unwrap();
        assert_eq!(view.get("ContainerConfig"), None);
    }

    #[test]
    fn an_image_has_docker_s_shape() {
        let view = inspect(image(), MAX_VERSION).unwrap();
        assert_eq!(view["Config"]["Cmd"], json!(["sh"]));
        assert_eq!(view["RootFS"]["Layers"], json!(["sha256:1", "sha256:2"]));
        assert_eq!(view["Created"], "2023-11-14T22:13:20Z");
        assert_eq!(view["Architecture"], "arm64");
        let summary = summary(&image(), -1, MAX_VERSION);
        assert_eq!((summary.created, summary.size), (1_700_000_000, 77));
        assert_eq!(summary.labels["a"], "b");
        assert_eq!(
            platform_of(&image().configuration).to_string(),
            "linux/arm64"
        );
    }

    #[test]
    fn a_configuration_that_says_nothing_is_shown_all_the_same() {
        let image = Image {
            configuration: json!({"config": null, "history": 7}),
            ..Default::default()
        };
        assert_eq!(created(&image), None);
        assert!(history(&image).is_empty() && labels(&image).is_empty());
        assert!(inspect(image, MAX_VERSION).unwrap()["Config"].is_object());
    }

    #[test]
    fn history_is_newest_first() {
        let items = history(&image());
        // The second layer is one that the history does not know.
        let sizes: Vec<_> = items.iter().map(|item| item.size).collect();
        assert_eq!(sizes, [7, 0, 70]);
        assert_eq!(items[0].tags, ["busybox:latest"]);
        assert_eq!(items[1].created_by, "CMD sh");
        assert_eq!(items[1].id, "<missing>");
    }
}

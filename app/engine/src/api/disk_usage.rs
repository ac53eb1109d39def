//! `GET /system/df`: what takes the machine's disk.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use guest_protocol::{
    ErrorKind,
    methods::{ContainerList, ImageList, ImagesDiskUsage, VolumeList, VolumeUsage},
};
use serde_json::{Value, json};

use super::{ApiError, Context, container_list, image_view, parameters::Parameters, volumes};
use crate::agent::CallError;

/// `GET /system/df`
pub(super) async fn usage(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let kinds = parameters.all("type");
    let wanted = |kind: &str| kinds.is_empty() || kinds.iter().any(|wanted| wanted == kind);
    if let Some(unknown) = kinds.iter().find(|kind| {
        !matches!(
            kind.as_str(),
            "container" | "image" | "volume" | "build-cache"
        )
    }) {
        return Err(ApiError::bad_request(format!(
            "unknown object type: {unknown}"
        )));
    }
    let containers = context.agent.call(ContainerList {}).await?;
    let mut usage = json!({
        "LayersSize": 0,
        "Images": null,
        "Containers": null,
        "Volumes": null,
        "BuildCache": null,
    });
    if wanted("image") {
        let layers = context.agent.call(ImagesDiskUsage {}).await?;
        let mut users: BTreeMap<&str, i64> = BTreeMap::new();
        for container in &containers {
            *users.entry(&container.image_id).or_default() += 1;
        }
        let images: Vec<_> = context
            .agent
            .call(ImageList {})
            .await?
            .iter()
            .map(|image| {
                let shared = layers.shared.get(&image.id).map_or(0, |size| *size as i64);
                let mut summary = image_view::summary(image, shared, parameters.version);
                summary.containers = users.get(image.id.as_str()).copied().unwrap_or(0);
                summary
            })
            .collect();
        usage["LayersSize"] = json!(layers.layers_size);
        usage["Images"] = json!(images);
    }
    if wanted("volume") {
        usage["Volumes"] = json!(shown_volumes(&context).await?);
    }
    if wanted("container") {
        let all = Parameters::of(&[("all", "1"), ("size", "1")], parameters.version);
        let Json(containers) = container_list::list(State(context), all).await?;
        usage["Containers"] = json!(containers);
    }
    if wanted("build-cache") {
        usage["BuildCache"] = json!([]);
    }
    Ok(Json(usage))
}

async fn shown_volumes(context: &Context) -> Result<Vec<Value>, ApiError> {
    let mut volumes = Vec::new();
    for volume in context.agent.call(VolumeList {}).await? {
        let name = volume.name.clone();
        // It may have been removed meanwhile, or be about to.
        let size = match context.agent.call(VolumeUsage { name }).await {
            Err(error) if error.is_not_found() => continue,
            Err(CallError::Agent(error)) if error.kind == ErrorKind::Conflict => continue,
            size => size?,
        };
        let mut shown = volumes::view(&volume);
        shown["UsageData"] = json!({"RefCount": volume.users.len(), "Size": size});
        volumes.push(shown);
    }
    Ok(volumes)
}

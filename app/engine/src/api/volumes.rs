//! Volumes: create, list, inspect, remove, prune, and their backup and restore.

use std::collections::HashMap;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use guest_protocol::{
    docker::VolumeCreateOptions,
    methods::{
        VolumeBackup, VolumeCreate, VolumeInspect, VolumeList, VolumeRemove, VolumeRestore,
        VolumeUsage,
    },
    volume::Volume,
};
use regex::Regex;
use serde_json::{Value, json};

use super::{
    ApiError, Context,
    archive_stream::{download, upload},
    filters::Filters,
    parameters::{JsonBody, Parameters},
    swarm, times,
    version::PRUNES_ANONYMOUS_VOLUMES,
};
use crate::agent::CallError;

/// A volume as Docker describes it.
pub(super) fn view(volume: &Volume) -> Value {
    json!({
        "CreatedAt": times::rfc3339(volume.created),
        "Driver": volume.driver,
        "Labels": if volume.labels.is_empty() { Value::Null } else { json!(volume.labels) },
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": if volume.options.is_empty() { Value::Null } else { json!(volume.options) },
        "Scope": "local",
    })
}

/// `GET /volumes`
pub(super) async fn list(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let filters = parameters
        .filters()
        .map_err(|error| error.about("", "error reading volume filters: "))?;
    filters
        .allow(&["dangling", "driver", "label", "label!", "name"])
        .map_err(ApiError::bad_request)?;
    let dangling = filters.flag("dangling").map_err(ApiError::bad_request)?;
    let volumes = context.agent.call(VolumeList {}).await?;
    let shown: Vec<Value> = volumes
        .iter()
        .filter(|volume| dangling.is_none_or(|dangling| volume.users.is_empty() == dangling))
        .filter(|volume| filters.exact("driver", &volume.driver))
        .filter(|volume| filters.labels(&labels(volume)))
        .filter(|volume| filters.any("name", |pattern| matches_name(pattern, &volume.name)))
        .map(view)
        .collect();
    Ok(Json(json!({"Volumes": shown, "Warnings": null})))
}

fn labels(volume: &Volume) -> HashMap<String, String> {
    volume.labels.clone().into_iter().collect()
}

/// Whether a name holds what the pattern, a regular expression, describes.
fn matches_name(pattern: &str, name: &str) -> bool {
    name.contains(pattern) || Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(name))
}

/// `POST /volumes/create`
pub(super) async fn create(
    State(context): State<Context>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let named: Value = body.read()?;
    if named
        .get("ClusterVolumeSpec")
        .is_some_and(|spec| !spec.is_null())
    {
        return Err(swarm::not_a_manager());
    }
    let options: VolumeCreateOptions = body.read()?;
    let request = VolumeCreate {
        name: options.name.filter(|name| !name.is_empty()),
        driver: options.driver.unwrap_or_default(),
        options: options.driver_opts.into_iter().flatten().collect(),
        labels: options.labels.into_iter().flatten().collect(),
    };
    let name = request.name.clone().unwrap_or_default();
    let volume = context
        .agent
        .call(request)
        .await
        .map_err(|error| match error {
            CallError::Agent(mut error) => {
                error.message = format!("create {name}: {}", error.message);
                CallError::Agent(error)
            }
            error => error,
        })?;
    Ok((StatusCode::CREATED, Json(view(&volume))).into_response())
}

/// `GET /volumes/{name}`
pub(super) async fn inspect(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let volume = context.agent.call(VolumeInspect { name }).await?;
    Ok(Json(view(&volume)))
}

/// `PUT /volumes/{name}`: changes of what only a swarm has.
pub(super) async fn update() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    )
}

/// `DELETE /volumes/{name}`
pub(super) async fn remove(
    State(context): State<Context>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<StatusCode, ApiError> {
    let force = parameters.flag("force");
    context.agent.call(VolumeRemove { name, force }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /volumes/prune`
pub(super) async fn prune(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let filters = parameters.filters()?;
    filters
        .allow(&["all", "label", "label!"])
        .map_err(ApiError::bad_request)?;
    let all = filters.flag("all").map_err(ApiError::bad_request)?;
    // Older clients mean all volumes.
    let all = all.unwrap_or(parameters.version < PRUNES_ANONYMOUS_VOLUMES);
    let mut deleted = Vec::new();
    let mut reclaimed = 0_u64;
    for volume in context.agent.call(VolumeList {}).await? {
        if !is_pruned(&volume, all, &filters) {
            continue;
        }
        let name = volume.name;
        let usage = context.agent.call(VolumeUsage { name: name.clone() }).await;
        let request = VolumeRemove {
            name: name.clone(),
            force: false,
        };
        match context.agent.call(request).await {
            Ok(()) => {
                reclaimed = reclaimed.saturating_add(usage.unwrap_or(0));
                deleted.push(name);
            }
            // In use or gone by now.
            Err(CallError::Agent(error)) => tracing::info!(volume = name, %error, "not pruned"),
            Err(error) => return Err(error.into()),
        }
    }
    super::events::tell_pruned(&context, "volume", reclaimed).await?;
    Ok(Json(
        json!({"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed}),
    ))
}

fn is_pruned(volume: &Volume, all: bool, filters: &Filters) -> bool {
    volume.users.is_empty() && (all || volume.is_anonymous()) && filters.labels(&labels(volume))
}

/// `GET /dctl/volumes/{name}/backup`: its files as a tar.
pub(super) async fn backup(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let ((), guest) = context.agent.open(VolumeBackup { name }).await?;
    Ok(([(CONTENT_TYPE, "application/x-tar")], download(guest)).into_response())
}

/// `POST /dctl/volumes/{name}/restore`: a tar's files in place of its own.
pub(super) async fn restore(
    State(context): State<Context>,
    Path(name): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let ((), guest) = context.agent.open(VolumeRestore { name }).await?;
    upload::<VolumeRestore, ()>(guest, body.into_data_stream()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use guest_protocol::volume::ANONYMOUS_LABEL;

    use super::*;

    fn volume(labels: &[&str], users: &[&str]) -> Volume {
        Volume {
            name: "store".into(),
            driver: "local".into(),
            labels: labels
                .iter()
                .map(|&label| (label.to_owned(), String::new()))
                .collect(),
            users: users.iter().map(|&user| user.to_owned()).collect(),
            created: 1_700_000_000_000_000_000,
            ..Volume::default()
        }
    }

    #[test]
    fn a_volume_has_docker_s_shape() {
        let view = view(&volume(&[], &[]));
        assert_eq!(view["Scope"], "local");
        assert_eq!(view["CreatedAt"], "2023-11-14T22:13:20Z");
        assert_eq!(view["Options"], Value::Null);
    }

    #[test]
    fn prune_takes_what_nobody_has_and_by_itself_only_what_has_no_name() {
        let none = Filters::default();
        let pruned = |volume: &Volume, all| is_pruned(volume, all, &none);
        assert!(pruned(&volume(&[ANONYMOUS_LABEL], &[]), false));
        assert!(!pruned(&volume(&[], &[]), false));
        assert!(pruned(&volume(&[], &[]), true));
        assert!(!pruned(&volume(&[ANONYMOUS_LABEL], &["c"]), true));
        let kept = Filters::parse(r#"{"label!":["keep"]}"#).unwrap();
        assert!(!is_pruned(&volume(&["keep"], &[]), true, &kept));
    }

    #[test]
    fn names_are_matched_by_part_or_expression() {
        assert!(matches_name("tor", "store"));
        assert!(matches_name("^st.*e$", "store"));
        assert!(!matches_name("^tor", "store"));
        assert!(!matches_name("(", "store"));
    }
}

//! Images that are made here: commit and import.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use guest_protocol::{
    docker::ContainerConfig,
    methods::{ContainerCommit, ContainerInspect, LayerImportNew, NewLayer},
    reference::Reference,
};
use serde_json::json;

use super::{
    ApiError, Context,
    archive_stream::upload,
    images::with_tag,
    parameters::{JsonBody, Parameters},
    times,
};
use crate::{
    images::{About, apply_changes, commit_image, download, import_image},
    registry::Platform,
};

/// `POST /commit`
pub(super) async fn commit(
    State(context): State<Context>,
    parameters: Parameters,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let container = parameters
        .text("container")
        .ok_or_else(|| ApiError::bad_request("invalid name or ID supplied: \"\""))?
        .to_owned();
    let references = references(&parameters)?;
    let given: Option<ContainerConfig> = body.read()?;
    let found = context
        .agent
        .call(ContainerInspect {
            container: container.clone(),
        })
        .await?;
    let command = std::iter::once(found.path.as_str())
        .chain(found.args.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(" ");
    let mut config = found.config;
    if let Some(given) = given {
        lay_over(&mut config, given);
    }
    apply_changes(&mut config, &parameters.texts("changes")).map_err(ApiError::bad_request)?;
    let pause = parameters.text("pause").is_none() || parameters.flag("pause");
    let committed = context
        .agent
        .call(ContainerCommit { container, pause })
        .await?;
    let about = About {
        config,
        author: parameters.text("author").unwrap_or_default().to_owned(),
        comment: parameters.text("comment").unwrap_or_default().to_owned(),
        created: times::rfc3339(times::now()),
        created_by: command,
    };
    let image = commit_image(&context.agent, &committed, &about, references).await?;
    Ok((StatusCode::CREATED, Json(json!({"Id": image.id}))).into_response())
}

/// Puts what a client gave over a container's configuration.
fn lay_over(config: &mut ContainerConfig, given: ContainerConfig) {
    fn set<T>(slot: &mut Option<T>, value: Option<T>, is_empty: impl Fn(&T) -> bool) {
        if value.as_ref().is_some_and(|value| !is_empty(value)) {
            *slot = value;
        }
    }
    set(&mut config.cmd, given.cmd, Vec::is_empty);
    set(&mut config.entrypoint, given.entrypoint, Vec::is_empty);
    set(&mut config.user, given.user, String::is_empty);
    set(&mut config.working_dir, given.working_dir, String::is_empty);
    set(&mut config.stop_signal, given.stop_signal, String::is_empty);
    set(&mut config.healthcheck, given.healthcheck, |_| false);
    set(&mut config.on_build, given.on_build, Vec::is_empty);
    set(&mut config.env, given.env, Vec::is_empty);
    for (slot, more) in [
        (&mut config.exposed_ports, given.exposed_ports),
        (&mut config.volumes, given.volumes),
    ] {
        if let Some(more) = more {
            slot.get_or_insert_default().extend(more);
        }
    }
    if let Some(labels) = given.labels {
        config.labels.get_or_insert_default().extend(labels);
    }
}

/// The name that a new image gets, if it gets one.
fn references(parameters: &Parameters) -> Result<Vec<String>, ApiError> {
    let Some(repository) = parameters.text("repo") else {
        return Ok(Vec::new());
    };
    let invalid = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
    let mut reference = Reference::parse(repository).map_err(|error| invalid(&error))?;
    if reference.digest().is_some() {
        return Err(ApiError::bad_request("cannot import digest reference"));
    }
    if let Some(tag) = parameters.text("tag") {
        reference = with_tag(reference, tag)?;
    }
    Ok(vec![reference.or_latest().to_string()])
}

/// `POST /images/create?fromSrc=…`: an image of an archive, which is the body or is
/// fetched.
pub(super) async fn import(
    context: Context,
    parameters: &Parameters,
    source: &str,
    body: Body,
) -> Result<Response, ApiError> {
    let references = references(parameters)?;
    let platform = match parameters.text("platform") {
        Some(text) => Platform::parse(text).map_err(ApiError::bad_request)?,
        None => Platform::of_machine(),
    };
    let mut config = ContainerConfig::default();
    apply_changes(&mut config, &parameters.texts("changes")).map_err(ApiError::bad_request)?;
    let mut lines = String::new();
    let layer: NewLayer = if source == "-" {
        bring(&context, body.into_data_stream()).await?
    } else {
        let response = download(source).await?;
        lines = format!(
            "{}\r\n",
            json!({"status": format!("Downloading from {source}")})
        );
        bring(&context, response.map_err(axum::Error::new)).await?
    };
    let comment = parameters
        .text("message")
        .map_or_else(|| format!("Imported from {source}"), str::to_owned);
    let about = About {
        config,
        comment,
        created: times::rfc3339(times::now()),
        ..About::default()
    };
    let image = import_image(&context.agent, &layer, &platform, &about, references).await?;
    lines.push_str(&json!({"status": image.id}).to_string());
    lines.push_str("\r\n");
    Ok(([(CONTENT_TYPE, "application/json")], lines).into_response())
}

/// Makes a layer of an archive, whatever it is compressed with.
async fn bring(
    context: &Context,
    archive: impl stream::Stream<Item = Result<Bytes, axum::Error>>,
) -> Result<NewLayer, ApiError> {
    let mut archive = std::pin::pin!(archive);
    let head = loop {
        match archive.next().await {
            Some(Ok(piece)) if piece.is_empty() => {}
            Some(Ok(piece)) => break piece,
            Some(Err(error)) => return Err(ApiError::bad_request(error.to_string())),
            None => return Err(ApiError::bad_request("the archive is empty")),
        }
    };
    let ((), guest) = context.agent.open(LayerImportNew {}).await?;
    let head = stream::once(future::ready(Ok(head)));
    upload::<LayerImportNew, NewLayer>(guest, head.chain(archive)).await
}

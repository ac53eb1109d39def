//! Containers: create, and everything that changes one.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use dctl_machine::UserNamespace;
use futures_util::stream;
use guest_protocol::{
    chunks::ChunkReader,
    docker::{
        ContainerConfig, ContainerTopResponse, ContainerUpdateBody, ContainerWaitExitError,
        ContainerWaitResponse, EndpointSettings, HostConfig, NetworkingConfig,
    },
    frame,
    methods::{
        ContainerChanges, ContainerCreate, ContainerCreated, ContainerKill, ContainerPause,
        ContainerRemove, ContainerRename, ContainerResize, ContainerRestart, ContainerStart,
        ContainerStop, ContainerTop, ContainerUnpause, ContainerUpdate, ContainerWait,
        ImageInspect, WaitCondition, WaitResult,
    },
    network::DEFAULT_NETWORK,
    reference::Reference,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiError, Context, container_input,
    hijack::stream_body,
    image_view::platform_of,
    parameters::{JsonBody, Parameters},
};
use crate::{
    images::{Progress, emulate, import_starter, is_starter},
    registry::Platform,
};

/// `POST /containers/create`
pub(super) async fn create(
    State(context): State<Context>,
    parameters: Parameters,
    body: JsonBody,
) -> Result<Response, ApiError> {
    #[derive(Default, Deserialize)]
    struct More {
        #[serde(rename = "HostConfig")]
        host_config: Option<HostConfig>,
        #[serde(rename = "NetworkingConfig")]
        networks: Option<NetworkingConfig>,
        /// Older clients name the first network's here.
        #[serde(rename = "MacAddress")]
        mac_address: Option<String>,
    }
    let mut body: Value = body.read_required()?;
    // A client that sends nothing of a container means nothing.
    if body.as_object().is_none_or(serde_json::Map::is_empty) && !body.is_array() {
        return Err(ApiError::bad_request(
            if body.is_object() || body.is_null() {
                "config cannot be empty in order to create a container".to_owned()
            } else {
                format!("invalid JSON: {body} is no container's configuration")
            },
        ));
    }
    container_input::check_names(&body)?;
    // Docker takes a text for a list of one.
    for key in ["Cmd", "Entrypoint"] {
        if let Some(value @ Value::String(_)) = body.get_mut(key) {
            *value = json!([value.take()]);
        }
    }
    let invalid =
        |error: serde_json::Error| ApiError::bad_request(format!("invalid JSON: {error}"));
    let config = ContainerConfig::deserialize(&body).map_err(invalid)?;
    let host = More::deserialize(&body).map_err(invalid)?;
    let image = config.image.clone().unwrap_or_default();
    if image.is_empty() {
        return Err(ApiError::bad_request("no command specified"));
    }
    if let Some(platform) = parameters.text("platform") {
        require_platform(&context, &image, platform).await?;
    }
    let mut host_config = host.host_config.unwrap_or_default();
    crate::ports::check(&host_config).map_err(ApiError::bad_request)?;
    container_input::check(&config, &host_config)?;
    if host_config
        .userns_mode
        .as_deref()
        .unwrap_or_default()
        .is_empty()
        && context.agent.guest().user_namespace().await? == UserNamespace::Private
    {
        host_config.userns_mode = Some("private".to_owned());
    }
    let discarded = crate::ports::discarded(&host_config);
    let networks = networks(host.networks, host.mac_address, &host_config);
    context.shares.name_socket(&mut host_config);
    let shared = context.shares.share(&host_config).await?;
    let request = ContainerCreate {
        networks,
        name: parameters
            .text("name")
            .map(|name| name.trim_start_matches('/').to_owned()),
        config: Box::new(config),
        host_config: Box::new(host_config),
    };
    let created = match context.agent.call(request.clone()).await {
        Err(error) if error.is_not_found() && has_starter(&context, &image) => {
            bring_starter(&context).await?;
            context.agent.call(request).await
        }
        other => other,
    };
    let in_vain = created.is_err() && !shared.is_empty();
    drop(shared);
    if in_vain && let Err(error) = context.shares.reconcile(&context.agent).await {
        tracing::warn!(%error, "what was shared for a container stays shared");
    }
    let ContainerCreated {
        id,
        mut warnings,
        platform,
    } = created?;
    if let Some(warning) = emulated(&context, &id, &platform, &parameters).await? {
        warnings.push(warning);
    }
    warnings.extend(discarded.map(str::to_owned));
    Ok((
        StatusCode::CREATED,
        Json(json!({"Id": id, "Warnings": warnings})),
    )
        .into_response())
}

/// What a new container asks of its networks.
fn networks(
    config: Option<NetworkingConfig>,
    mac_address: Option<String>,
    host: &HostConfig,
) -> BTreeMap<String, EndpointSettings> {
    let config = config.and_then(|config| config.endpoints_config);
    let mut networks: BTreeMap<_, _> = config.into_iter().flatten().collect();
    if let Some(address) = mac_address.filter(|address| !address.is_empty()) {
        let first = host.network_mode.clone().filter(|mode| !mode.is_empty());
        let settings: &mut EndpointSettings = networks
            .entry(first.unwrap_or_else(|| DEFAULT_NETWORK.to_owned()))
            .or_default();
        settings.mac_address.get_or_insert(address);
    }
    networks
}

/// Sees to it that a container whose image is for `platform` can run. A warning when
/// nobody has asked for another platform than the machine's; without an emulator the
/// container goes again.
async fn emulated(
    context: &Context,
    id: &str,
    platform: &str,
    parameters: &Parameters,
) -> Result<Option<String>, ApiError> {
    let Ok(platform) = Platform::parse(platform) else {
        return Ok(None);
    };
    match emulate(&context.agent, &platform).await {
        Ok(true) if parameters.text("platform").is_none() => Ok(Some(format!(
            "The requested image's platform ({platform}) does not match the detected host \
             platform ({}) and no specific platform was requested",
            Platform::of_machine()
        ))),
        Ok(_) => Ok(None),
        Err(error) => {
            let remove = ContainerRemove {
                container: id.to_owned(),
                force: false,
                volumes: true,
            };
            context.agent.call(remove).await?;
            Err(ApiError::bad_request(error.to_string()))
        }
    }
}

/// Whether `image` is the starter image's name and this binary has it.
fn has_starter(context: &Context, image: &str) -> bool {
    context.starter.is_some()
        && Reference::parse(image).is_ok_and(|reference| is_starter(&reference))
}

/// Imports the starter image; nobody watches.
async fn bring_starter(context: &Context) -> Result<(), ApiError> {
    let Some(layout) = context.starter else {
        return Ok(());
    };
    let (progress, mut lines) = Progress::channel();
    let watch = async move { while lines.recv().await.is_some() {} };
    let import = async move { import_starter(&context.agent, layout, &progress).await };
    let (imported, ()) = tokio::join!(import, watch);
    Ok(imported?)
}

/// Refuses an image that was made for another platform, in the words at which
/// clients pull the right one.
async fn require_platform(context: &Context, image: &str, platform: &str) -> Result<(), ApiError> {
    let wanted = Platform::parse(platform).map_err(ApiError::bad_request)?;
    let reference = image.to_owned();
    let found = match context.agent.call(ImageInspect { reference }).await {
        Ok(found) => found,
        // Creating it says so, or brings the starter image.
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let actual = platform_of(&found.configuration);
    if wanted.runs(&actual) {
        return Ok(());
    }
    Err(ApiError::not_found(format!(
        "image with reference {image} was found but its platform ({actual}) does not match the specified platform ({wanted})"
    )))
}

/// `POST /containers/{id}/start`
pub(super) async fn start(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    // Clients of old send an empty object, or nothing of seven bytes at most.
    if body.len() > 7 {
        return Err(ApiError::bad_request(
            "starting container with non-empty request body was deprecated since API v1.22 and \
             removed in v1.24",
        ));
    }
    if parameters.text("checkpoint").is_some() {
        return Err(ApiError::bad_request(
            "checkpoint is only supported in experimental mode",
        ));
    }
    context.shares.retry().await;
    let ports = context.ports.prepare(&container).await?;
    let started = context.agent.call(ContainerStart { container }).await;
    ports.settle().await;
    started?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/stop`
pub(super) async fn stop(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<StatusCode, ApiError> {
    let signal = parameters.text("signal").map(str::to_owned);
    let timeout = parameters.number("t")?;
    let request = ContainerStop {
        container,
        signal,
        timeout,
    };
    context.agent.call(request).await?;
    context.ports.synchronise().await;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/restart`
pub(super) async fn restart(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<StatusCode, ApiError> {
    let signal = parameters.text("signal").map(str::to_owned);
    let timeout = parameters.number("t")?;
    let ports = context.ports.prepare(&container).await?;
    context.shares.retry().await;
    let name = container.clone();
    let request = ContainerRestart {
        container,
        signal,
        timeout,
    };
    let restarted = context.agent.call(request).await;
    ports.settle().await;
    restarted.map_err(|error| {
        ApiError::from(error).about(
            "invalid signal",
            &format!("Cannot restart container {name}: "),
        )
    })?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/kill`
pub(super) async fn kill(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<StatusCode, ApiError> {
    let signal = parameters.text("signal").unwrap_or_default().to_owned();
    let prefix = format!("cannot kill container: {container}: ");
    let killed = context
        .agent
        .call(ContainerKill { container, signal })
        .await;
    killed.map_err(|error| ApiError::from(error).about("", &prefix))?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/rename`
pub(super) async fn rename(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<StatusCode, ApiError> {
    let name = parameters
        .text("name")
        .ok_or_else(|| ApiError::bad_request("Neither old nor new names may be empty"))?;
    let name = name.trim_start_matches('/').to_owned();
    let renamed = context
        .agent
        .call(ContainerRename { container, name })
        .await;
    renamed.map_err(|error| {
        let prefix = "Error when allocating new name: ";
        let mut error = ApiError::from(error).about("Conflict.", prefix);
        if let Some(rest) = error.message.strip_prefix("Invalid container name (") {
            error.message = format!("{prefix}Invalid container name (/{rest}");
        }
        error
    })?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/resize`
pub(super) async fn resize(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<StatusCode, ApiError> {
    let (height, width) = parameters.terminal_size()?;
    let request = ContainerResize {
        container,
        height,
        width,
    };
    context.agent.call(request).await?;
    Ok(StatusCode::OK)
}

/// `GET /containers/{id}/top`
pub(super) async fn top(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<Json<ContainerTopResponse>, ApiError> {
    let options = parameters.text("ps_args").unwrap_or_default().to_owned();
    let list = context
        .agent
        .call(ContainerTop { container, options })
        .await?;
    Ok(Json(ContainerTopResponse {
        titles: Some(list.titles),
        processes: Some(list.processes),
    }))
}

/// `POST /containers/{id}/pause`
pub(super) async fn pause(
    State(context): State<Context>,
    Path(container): Path<String>,
) -> Result<StatusCode, ApiError> {
    context.agent.call(ContainerPause { container }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/unpause`
pub(super) async fn unpause(
    State(context): State<Context>,
    Path(container): Path<String>,
) -> Result<StatusCode, ApiError> {
    context.agent.call(ContainerUnpause { container }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/update`
pub(super) async fn update(
    State(context): State<Context>,
    Path(container): Path<String>,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    let named: Value = body.read()?;
    let policy = named.pointer("/RestartPolicy/Name");
    container_input::check_restart_policy(policy.and_then(Value::as_str))?;
    let request = ContainerUpdate {
        container,
        change: Box::new(body.read::<ContainerUpdateBody>()?),
    };
    let warnings = context.agent.call(request).await?;
    let warnings = (!warnings.is_empty()).then_some(warnings);
    Ok(Json(json!({"Warnings": warnings})))
}

/// `GET /containers/{id}/changes`
pub(super) async fn changes(
    State(context): State<Context>,
    Path(container): Path<String>,
) -> Result<Response, ApiError> {
    let ((), guest) = context.agent.open(ContainerChanges { container }).await?;
    // JSON already. A response that breaks off is cut off.
    let body = stream_body(ChunkReader::new(guest));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// `DELETE /containers/{id}`
pub(super) async fn remove(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<StatusCode, ApiError> {
    if parameters.flag("link") {
        return Err(ApiError::bad_request(
            "Conflict, cannot remove the default link name of the container",
        ));
    }
    let force = parameters.flag("force");
    let volumes = parameters.flag("v");
    let request = ContainerRemove {
        container,
        force,
        volumes,
    };
    context.agent.call(request).await?;
    context.ports.synchronise().await;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/wait`
///
/// The status goes out as soon as the wait is registered, so that a client can
/// start the container and miss nothing; the result follows.
pub(super) async fn wait(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let condition = match parameters.text("condition") {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "invalid condition: {other:?}"
            )));
        }
    };
    let request = ContainerWait {
        container,
        condition,
    };
    let ((), mut guest) = context.agent.open(request).await?;
    let result = stream::once(async move {
        let result = match frame::read::<_, frame::Reply<WaitResult>>(&mut guest).await {
            Ok(frame::Reply::Ok(result)) => result,
            Ok(frame::Reply::Error(error)) => WaitResult {
                exit_code: -1,
                error: Some(error.message),
            },
            Err(error) => WaitResult {
                exit_code: -1,
                error: Some(format!("the machine went away: {error}")),
            },
        };
        let body = ContainerWaitResponse {
            status_code: result.exit_code,
            error: result.error.map(|message| ContainerWaitExitError {
                message: Some(message),
            }),
        };
        serde_json::to_vec(&body).map(Bytes::from)
    });
    Ok((
        [(CONTENT_TYPE, "application/json")],
        Body::from_stream(result),
    )
        .into_response())
}

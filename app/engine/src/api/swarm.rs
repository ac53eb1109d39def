//! Swarm, nodes, services, tasks, secrets and configs: the answers of an engine that is
//! in no swarm. dctl has none to offer, so that it never is in one.

use axum::{Json, http::StatusCode};
use serde_json::Value;

use super::{
    ApiError,
    parameters::{JsonBody, Parameters},
};

const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \
                             \"docker swarm join\" to connect this node to swarm and try again.";

/// What is left to a manager.
pub(super) fn not_a_manager() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NOT_A_MANAGER)
}

/// Everything that only a manager answers.
pub(super) async fn manager() -> ApiError {
    not_a_manager()
}

/// Lists, which a manager would filter.
pub(super) async fn list(parameters: Parameters) -> Result<Json<Value>, ApiError> {
    parameters.filters()?;
    Err(not_a_manager())
}

/// What a manager would be told as JSON.
pub(super) async fn create(body: JsonBody) -> Result<Json<Value>, ApiError> {
    body.read::<Value>()?;
    Err(not_a_manager())
}

/// `POST /swarm/init` and `/swarm/join`
pub(super) async fn init(body: JsonBody) -> Result<Json<Value>, ApiError> {
    let body: Value = body.read()?;
    let address = body.get("ListenAddr").and_then(Value::as_str);
    if address.unwrap_or_default().is_empty() {
        return Err(ApiError::bad_request(
            "invalid ListenAddr \"\": invalid empty address",
        ));
    }
    Err(ApiError::not_implemented("swarm mode"))
}

/// `POST /swarm/leave`
pub(super) async fn leave() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not part of a swarm",
    )
}

/// `POST /swarm/update`
pub(super) async fn update(
    parameters: Parameters,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    body.read::<Value>()?;
    version(&parameters, "swarm")
}

/// `POST /nodes/{id}/update`
pub(super) async fn update_node(
    parameters: Parameters,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    body.read::<Value>()?;
    version(&parameters, "node")
}

/// `POST /services/{id}/update`
pub(super) async fn update_service(
    parameters: Parameters,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    body.read::<Value>()?;
    version(&parameters, "service")
}

/// `POST /secrets/{id}/update`
pub(super) async fn update_secret(
    parameters: Parameters,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    body.read::<Value>()?;
    version(&parameters, "secret")
}

/// `POST /configs/{id}/update`
pub(super) async fn update_config(
    parameters: Parameters,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    body.read::<Value>()?;
    version(&parameters, "config")
}

/// Which version of an object a change is about.
fn version(parameters: &Parameters, kind: &str) -> Result<Json<Value>, ApiError> {
    let text = parameters.text("version").unwrap_or_default();
    if text.parse::<u64>().is_ok() {
        return Err(not_a_manager());
    }
    let message = match kind {
        "secret" | "config" => format!("invalid {kind} version"),
        _ => format!(
            "invalid {kind} version '{text}': strconv.ParseUint: parsing {text:?}: invalid syntax"
        ),
    };
    Err(ApiError::bad_request(message))
}

/// `GET /services/{id}/logs` and `/tasks/{id}/logs`
pub(super) async fn logs(parameters: Parameters) -> ApiError {
    if parameters.flag("stdout") || parameters.flag("stderr") {
        return not_a_manager();
    }
    ApiError::bad_request("Bad parameters: you must choose at least one stream")
}

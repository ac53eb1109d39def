//! Builds: there is no builder yet, and so nothing that one has left behind.

use axum::{Json, http::header::CONTENT_TYPE, response::IntoResponse};
use serde_json::{Value, json};

use super::{ApiError, parameters::Parameters};

/// `POST /build`, `/session` and `/grpc`
pub(super) async fn build() -> ApiError {
    ApiError::not_implemented("building images")
}

/// `POST /build/prune`
pub(super) async fn prune(parameters: Parameters) -> Result<Json<Value>, ApiError> {
    parameters.filters()?;
    Ok(Json(json!({"CachesDeleted": null, "SpaceReclaimed": 0})))
}

/// `POST /build/cancel`
pub(super) async fn cancel(parameters: Parameters) -> Result<impl IntoResponse, ApiError> {
    match parameters.text("id") {
        None => Err(ApiError::bad_request("build ID not provided")),
        // It has ended, or there never was one.
        Some(_) => Ok([(CONTENT_TYPE, "application/json")]),
    }
}

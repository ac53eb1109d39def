//! Networks and volumes: there are none yet, and lists say so.

use axum::{Json, extract::Path};
use guest_protocol::docker::VolumeListResponse;
use serde_json::{Value, json};

use super::ApiError;

/// `GET /networks`
pub(super) async fn list_networks() -> Json<Value> {
    Json(json!([]))
}

/// `GET /networks/{name}`
pub(super) async fn inspect_network(Path(name): Path<String>) -> ApiError {
    ApiError::not_found(format!("network {name} not found"))
}

/// `GET /volumes`
pub(super) async fn list_volumes() -> Json<VolumeListResponse> {
    Json(VolumeListResponse {
        volumes: Some(Vec::new()),
        warnings: Some(Vec::new()),
    })
}

/// `GET /volumes/{name}`
pub(super) async fn inspect_volume(Path(name): Path<String>) -> ApiError {
    ApiError::not_found(format!("get {name}: no such volume"))
}

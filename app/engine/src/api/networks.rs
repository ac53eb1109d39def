//! Networks: there are none yet, and lists say so.

use axum::{Json, extract::Path};
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

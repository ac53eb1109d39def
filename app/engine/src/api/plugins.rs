//! Plugins, of which there are none.

use axum::{Json, extract::Path};
use serde_json::{Value, json};

use super::{ApiError, parameters::Parameters};

/// `GET /plugins`
pub(super) async fn list(parameters: Parameters) -> Result<Json<Value>, ApiError> {
    let filters = parameters.filters()?;
    filters
        .allow(&["capability", "enabled"])
        .map_err(ApiError::bad_request)?;
    filters.flag("enabled").map_err(ApiError::bad_request)?;
    Ok(Json(json!([])))
}

/// Everything about one plugin. Names have slashes, and what is asked of it follows.
pub(super) async fn one(Path(path): Path<String>) -> ApiError {
    let actions = ["/json", "/enable", "/disable", "/push", "/set", "/upgrade"];
    let name = actions.iter().find_map(|action| path.strip_suffix(action));
    ApiError::not_found(format!("plugin {:?} not found", name.unwrap_or(&path)))
}

/// What would bring a plugin.
pub(super) async fn bring() -> ApiError {
    ApiError::not_implemented("plugins")
}

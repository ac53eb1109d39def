//! `POST /containers/prune`.

use axum::{Json, extract::State};
use guest_protocol::methods::{ContainerList, ContainerRemove, ContainerSizes};
use serde_json::{Value, json};

use super::{ApiError, Context, parameters::Parameters, times};
use crate::agent::CallError;

/// `POST /containers/prune`
pub(super) async fn prune(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let filters = parameters.filters()?;
    filters
        .allow(&["label", "label!", "until"])
        .map_err(ApiError::bad_request)?;
    let until = match filters.get("until") {
        [] => None,
        [until] => Some(times::parse(until).map_err(ApiError::bad_request)?),
        _ => {
            return Err(ApiError::bad_request(
                "more than one until filter specified",
            ));
        }
    };
    let (mut deleted, mut reclaimed) = (Vec::new(), 0_u64);
    for container in context.agent.call(ContainerList {}).await? {
        let labels = container.config.labels.unwrap_or_default();
        if container.state.is_running()
            || until.is_some_and(|until| container.created > until)
            || !filters.labels(&labels)
        {
            continue;
        }
        match remove(&context, &container.id).await {
            Ok(bytes) => {
                deleted.push(container.id);
                reclaimed = reclaimed.saturating_add(bytes);
            }
            // Started or removed meanwhile: no longer ours to prune.
            Err(CallError::Agent(error)) => {
                tracing::info!(container = %container.id, %error, "not pruned");
            }
            Err(error) => return Err(error.into()),
        }
    }
    super::events::tell_pruned(&context, "container", reclaimed).await?;
    let deleted = (!deleted.is_empty()).then_some(deleted);
    Ok(Json(
        json!({"ContainersDeleted": deleted, "SpaceReclaimed": reclaimed}),
    ))
}

/// Removes one, and says how many bytes it had written.
async fn remove(context: &Context, id: &str) -> Result<u64, CallError> {
    let container = Some(id.to_owned());
    let sizes = context.agent.call(ContainerSizes { container }).await?;
    let request = ContainerRemove {
        container: id.to_owned(),
        force: false,
        volumes: false,
    };
    context.agent.call(request).await?;
    Ok(sizes.get(id).map_or(0, |usage| usage.written))
}

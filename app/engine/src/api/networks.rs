//! Networks: create, list, inspect, connect, disconnect, remove, prune.

use std::collections::HashMap;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use guest_protocol::{
    docker::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest},
    methods::{
        NetworkConnect, NetworkCreate, NetworkDisconnect, NetworkInspect, NetworkList,
        NetworkRemove,
    },
    network::Network,
};
use regex::Regex;
use serde_json::{Value, json};

use super::{
    ApiError, Context,
    filters::Filters,
    parameters::{JsonBody, Parameters},
    times,
};
use crate::agent::CallError;

const FILTERS: &[&str] = &[
    "dangling", "driver", "id", "label", "label!", "name", "scope", "type", "until",
];

/// A network as Docker describes it.
fn view(network: &Network) -> Value {
    let mut ipam = json!(network.ipam);
    for field in ["Config", "Options"] {
        let is_empty = match &ipam[field] {
            Value::Array(list) => list.is_empty(),
            Value::Object(object) => object.is_empty(),
            _ => true,
        };
        if is_empty {
            ipam[field] = Value::Null;
        }
    }
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": times::rfc3339(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": ipam,
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": network.containers,
        "Options": network.options,
        "Labels": network.labels,
    })
}

/// `GET /networks`
pub(super) async fn list(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let filters = parameters.filters()?;
    filters.allow(FILTERS).map_err(ApiError::bad_request)?;
    for kind in filters.get("type") {
        if !["custom", "builtin"].contains(&kind.as_str()) {
            return Err(ApiError::bad_request(format!(
                "invalid filter: 'type'='{kind}'"
            )));
        }
    }
    let dangling = filters.flag("dangling").map_err(ApiError::bad_request)?;
    let networks = context.agent.call(NetworkList {}).await?;
    let shown = networks
        .iter()
        .filter(|network| {
            let used = !network.containers.is_empty() || network.is_predefined();
            dangling.is_none_or(|dangling| used != dangling)
        })
        .filter(|network| matches(&filters, network))
        .map(|network| {
            let mut view = view(network);
            // The list does not tell who is in them.
            view["Containers"] = json!({});
            view
        })
        .collect();
    Ok(Json(shown))
}

fn matches(filters: &Filters, network: &Network) -> bool {
    let kind = if network.is_predefined() {
        "builtin"
    } else {
        "custom"
    };
    filters.exact("driver", &network.driver)
        && filters.exact("type", kind)
        && filters.exact("scope", "local")
        && filters.any("id", |id| network.id.contains(id.as_str()))
        && filters.any("name", |pattern| matches_name(pattern, &network.name))
        && filters.labels(&labels(network))
}

/// Whether a name holds what the pattern, a regular expression, describes.
fn matches_name(pattern: &str, name: &str) -> bool {
    name.contains(pattern) || Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(name))
}

fn labels(network: &Network) -> HashMap<String, String> {
    network.labels.clone().into_iter().collect()
}

/// `POST /networks/create`
pub(super) async fn create(
    State(context): State<Context>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let request = Box::new(body.read::<NetworkCreateRequest>()?);
    let created = context.agent.call(NetworkCreate { request }).await?;
    let body = json!({"Id": created.id, "Warning": created.warning});
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// `GET /networks/{name}`
pub(super) async fn inspect(
    State(context): State<Context>,
    Path(network): Path<String>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let scope = parameters.text("scope").unwrap_or("local");
    if scope != "local" {
        return Err(ApiError::not_found(format!("network {network} not found")));
    }
    let network = context.agent.call(NetworkInspect { network }).await?;
    Ok(Json(view(&network)))
}

/// `DELETE /networks/{name}`
pub(super) async fn remove(
    State(context): State<Context>,
    Path(network): Path<String>,
) -> Result<StatusCode, ApiError> {
    context.agent.call(NetworkRemove { network }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /networks/{name}/connect`
pub(super) async fn connect(
    State(context): State<Context>,
    Path(network): Path<String>,
    body: JsonBody,
) -> Result<StatusCode, ApiError> {
    let request: NetworkConnectRequest = body.read()?;
    let call = NetworkConnect {
        network,
        container: required(request.container)?,
        settings: Box::new(request.endpoint_config.unwrap_or_default()),
    };
    context.agent.call(call).await?;
    Ok(StatusCode::OK)
}

/// `POST /networks/{name}/disconnect`
pub(super) async fn disconnect(
    State(context): State<Context>,
    Path(network): Path<String>,
    body: JsonBody,
) -> Result<StatusCode, ApiError> {
    let request: NetworkDisconnectRequest = body.read()?;
    let call = NetworkDisconnect {
        network,
        container: required(request.container)?,
    };
    context.agent.call(call).await?;
    Ok(StatusCode::OK)
}

/// The container that a request names.
fn required(container: Option<String>) -> Result<String, ApiError> {
    container
        .filter(|container| !container.is_empty())
        .ok_or_else(|| ApiError::bad_request("invalid name or ID supplied: \"\""))
}

/// `POST /networks/prune`
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
        [time] => Some(times::parse(time).map_err(ApiError::bad_request)?),
        _ => {
            return Err(ApiError::bad_request(
                "more than one until filter specified",
            ));
        }
    };
    let mut deleted = Vec::new();
    for network in context.agent.call(NetworkList {}).await? {
        if !is_pruned(&network, until, &filters) {
            continue;
        }
        let call = NetworkRemove {
            network: network.id,
        };
        match context.agent.call(call).await {
            Ok(()) => deleted.push(network.name),
            // In use or gone by now.
            Err(CallError::Agent(error)) => {
                tracing::info!(network = network.name, %error, "not pruned");
            }
            Err(error) => return Err(error.into()),
        }
    }
    super::events::tell_pruned(&context, "network", 0).await?;
    let deleted = (!deleted.is_empty()).then_some(deleted);
    Ok(Json(json!({"NetworksDeleted": deleted})))
}

fn is_pruned(network: &Network, until: Option<i64>, filters: &Filters) -> bool {
    !network.is_predefined()
        && !network.config_only
        && network.containers.is_empty()
        && until.is_none_or(|until| network.created <= until)
        && filters.labels(&labels(network))
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::NetworkContainer;

    use super::*;

    fn network(name: &str) -> Network {
        Network {
            id: "ab".repeat(32),
            name: name.into(),
            driver: "bridge".into(),
            labels: [("tier".to_owned(), "front".to_owned())].into(),
            created: 1_700_000_000_000_000_000,
            ..Network::default()
        }
    }

    #[test]
    fn a_network_has_docker_s_shape() {
        let view = view(&network("net"));
        assert_eq!(view["Created"], "2023-11-14T22:13:20Z");
        assert_eq!(view["Scope"], "local");
        assert_eq!(view["ConfigFrom"]["Network"], "");
        assert_eq!(view["Containers"], json!({}));
    }

    #[test]
    fn filters_select() {
        let selects = |json: &str| matches(&Filters::parse(json).unwrap(), &network("my-net"));
        for json in [
            r#"{"name":["net"]}"#,
            r#"{"name":["^my-net$"]}"#,
            r#"{"id":["abab"]}"#,
            r#"{"type":["custom"]}"#,
            r#"{"driver":["bridge"],"label":["tier=front"]}"#,
        ] {
            assert!(selects(json), "{json}");
        }
        for json in [
            r#"{"name":["^net"]}"#,
            r#"{"type":["builtin"]}"#,
            r#"{"driver":["host"]}"#,
            r#"{"scope":["swarm"]}"#,
        ] {
            assert!(!selects(json), "{json}");
        }
    }

    #[test]
    fn prune_takes_what_nobody_is_in() {
        let all = Filters::default();
        assert!(is_pruned(&network("net"), None, &all));
        assert!(is_pruned(&network("net"), Some(i64::MAX), &all));
        assert!(!is_pruned(&network("net"), Some(0), &all));
        assert!(!is_pruned(&network("bridge"), None, &all));
        let mut used = network("net");
        let container = NetworkContainer::default();
        used.containers.insert("c".into(), container);
        assert!(!is_pruned(&used, None, &all));
    }
}

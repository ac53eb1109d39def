//! A container in the shape of `GET /containers/{id}/json`.

use std::collections::HashMap;

use axum::{
    Json,
    extract::{Path, State},
};
use guest_protocol::{
    container::{Container, ContainerState, Health, HealthStatus, Status},
    docker::{
        self, ContainerInspectResponse, ContainerStateStatusEnum, DriverData, HealthStatusEnum,
        HealthcheckResult, NetworkSettings,
    },
    methods::{ContainerInspect, ContainerSizes},
};
use serde_json::Value;

use super::{
    ApiError, Context, container_defaults, container_networks, parameters::Parameters, times,
};
use crate::ports::view;

/// The storage driver's name that clients see.
pub(super) const STORAGE_DRIVER: &str = "overlay2";

/// `GET /containers/{id}/json`
pub(super) async fn inspect(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let container = context.agent.call(ContainerInspect { container }).await?;
    let id = container.id.clone();
    let mut response = response(container);
    if parameters.flag("size") {
        let container = Some(id.clone());
        let sizes = context.agent.call(ContainerSizes { container }).await?;
        let usage = sizes.get(&id).copied().unwrap_or_default();
        response.size_rw = i64::try_from(usage.written).ok();
        response.size_root_fs = i64::try_from(usage.total).ok();
    }
    let mut response = serde_json::to_value(&response)
        .map_err(|error| ApiError::internal(format!("cannot describe the container: {error}")))?;
    container_defaults::fill(&mut response);
    Ok(Json(response))
}

/// A container as Docker describes it.
fn response(mut container: Container) -> ContainerInspectResponse {
    let network_settings = NetworkSettings {
        ports: Some(view::port_map(&container)),
        ..container_networks::settings(&container)
    };
    container.host_config.links = container_networks::links(&container);
    ContainerInspectResponse {
        id: Some(container.id),
        created: Some(times::rfc3339(container.created)),
        path: Some(container.path),
        args: Some(container.args),
        state: Some(state(&container.state)),
        image: Some(container.image_id),
        resolv_conf_path: Some(String::new()),
        hostname_path: Some(String::new()),
        hosts_path: Some(String::new()),
        log_path: Some(
            if container.state.started_at == 0 && container.state.error.is_empty() {
                String::new()
            } else {
                container.log_path
            },
        ),
        name: Some(format!("/{}", container.name)),
        restart_count: Some(container.restart_count),
        driver: Some(STORAGE_DRIVER.to_owned()),
        platform: Some(container.platform),
        mount_label: Some(String::new()),
        process_label: Some(String::new()),
        app_armor_profile: Some(String::new()),
        // Absent and empty differ for no client; Docker says null.
        exec_ids: (!container.exec_ids.is_empty()).then_some(container.exec_ids),
        host_config: Some(container.host_config),
        graph_driver: Some(DriverData {
            name: STORAGE_DRIVER.to_owned(),
            data: HashMap::new(),
        }),
        mounts: Some(container.mounts),
        config: Some(container.config),
        network_settings: Some(network_settings),
        ..Default::default()
    }
}

fn state(state: &ContainerState) -> docker::ContainerState {
    docker::ContainerState {
        status: Some(match state.status {
            Status::Created => ContainerStateStatusEnum::CREATED,
            Status::Running => ContainerStateStatusEnum::RUNNING,
            Status::Paused => ContainerStateStatusEnum::PAUSED,
            Status::Restarting => ContainerStateStatusEnum::RESTARTING,
            Status::Removing => ContainerStateStatusEnum::REMOVING,
            Status::Exited => ContainerStateStatusEnum::EXITED,
            Status::Dead => ContainerStateStatusEnum::DEAD,
        }),
        running: Some(state.is_running()),
        paused: Some(state.status == Status::Paused),
        restarting: Some(state.status == Status::Restarting),
        oom_killed: Some(state.oom_killed),
        dead: Some(state.status == Status::Dead),
        pid: Some(i64::from(state.pid)),
        exit_code: Some(state.exit_code),
        error: Some(state.error.clone()),
        started_at: Some(times::rfc3339(state.started_at)),
        finished_at: Some(times::rfc3339(state.finished_at)),
        health: state.health.as_ref().map(health),
    }
}

fn health(health: &Health) -> docker::Health {
    docker::Health {
        status: Some(match health.status {
            HealthStatus::Starting => HealthStatusEnum::STARTING,
            HealthStatus::Healthy => HealthStatusEnum::HEALTHY,
            HealthStatus::Unhealthy => HealthStatusEnum::UNHEALTHY,
        }),
        failing_streak: Some(health.failing_streak),
        log: Some(
            health
                .log
                .iter()
                .map(|probe| HealthcheckResult {
                    start: Some(times::rfc3339(probe.start)),
                    end: Some(times::rfc3339(probe.end)),
                    exit_code: Some(probe.exit_code),
                    output: Some(probe.output.clone()),
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_docker_s_shape() {
        let container = Container {
            id: "ab".repeat(32),
            name: "web".into(),
            created: 1_700_000_000_000_000_000,
            state: ContainerState {
                status: Status::Exited,
                exit_code: 137,
                started_at: 1_700_000_001_000_000_000,
                ..Default::default()
            },
            ..Default::default()
        };
        let json = serde_json::to_value(response(container)).unwrap();
        assert_eq!(json["Name"], "/web");
        assert_eq!(json["Created"], "2023-11-14T22:13:20Z");
        assert_eq!(json["State"]["Status"], "exited");
        assert_eq!(json["State"]["ExitCode"], 137);
        assert_eq!(json["State"]["Running"], false);
        assert_eq!(json["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
        assert_eq!(json["NetworkSettings"]["Ports"], serde_json::json!({}));
        assert_eq!(json["GraphDriver"]["Name"], "overlay2");
    }
}

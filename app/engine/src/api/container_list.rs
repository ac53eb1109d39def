//! `GET /containers/json`: the list, its filters, and the words of its columns.

use std::collections::{BTreeMap, HashMap};

use axum::{Json, extract::State};
use guest_protocol::{
    container::{Container, HealthStatus, Status},
    docker::{
        ContainerSummary, ContainerSummaryHostConfig, ContainerSummaryNetworkSettings,
        ContainerSummaryStateEnum,
    },
    methods::{ContainerList, ContainerSizes, DiskUsage, ImageInspect},
};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::{
    ApiError, Context, container_defaults, container_networks::shown_networks, filters::Filters,
    parameters::Parameters, times,
};
use crate::ports::view;

/// The filters of `docker ps`.
const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
/// Filters that also show containers which do not run.
const SHOW_ALL: &[&str] = &["before", "since", "status", "exited"];
/// The largest compiled `name` filter, in bytes.
const MAX_PATTERN: usize = 256 * 1024;

/// `GET /containers/json`
pub(super) async fn list(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = parameters.filters()?;
    filters.allow(FILTERS).map_err(ApiError::bad_request)?;
    let limit: i64 = parameters.number("limit")?.unwrap_or(0);
    let all = parameters.flag("all")
        || limit > 0
        || SHOW_ALL.iter().any(|key| !filters.get(key).is_empty());
    let containers = context.agent.call(ContainerList {}).await?;
    let mut selection = Selection::new(&filters, &containers)?;
    for ancestor in filters.get("ancestor") {
        let reference = ancestor.clone();
        match context.agent.call(ImageInspect { reference }).await {
            Ok(image) => selection.ancestors.push(image.id),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let now = times::now();
    let sizes = if parameters.flag("size") {
        let all = ContainerSizes { container: None };
        context.agent.call(all).await?
    } else {
        BTreeMap::new()
    };
    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
    let summaries = containers
        .iter()
        .filter(|container| all || container.state.is_running())
        .filter(|container| selection.includes(container))
        .take(limit.unwrap_or(usize::MAX))
        .map(|container| {
            let summary = summary(container, now, sizes.get(&container.id));
            let mut summary = serde_json::to_value(&summary)?;
            container_defaults::fill_networks(&mut summary);
            Ok(summary)
        })
        .collect::<Result<_, serde_json::Error>>();
    let failed = |error| ApiError::internal(format!("cannot describe the containers: {error}"));
    Ok(Json(summaries.map_err(failed)?))
}

/// The filters, made ready.
struct Selection<'a> {
    filters: &'a Filters,
    names: Vec<Regex>,
    exit_codes: Vec<i64>,
    /// Ids of images, if `ancestor` was given.
    ancestors: Vec<String>,
    created_before: Option<i64>,
    created_after: Option<i64>,
    exposed: Vec<PortRange>,
    published: Vec<PortRange>,
}

/// The value of an `expose` filter: `80`, `80/udp`, `8000-8100/tcp`.
struct PortRange {
    ports: std::ops::RangeInclusive<u16>,
    protocol: String,
}

impl PortRange {
    fn parse(text: &str) -> Option<Self> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        Some(Self {
            ports: first.parse().ok()?..=last.parse().ok()?,
            protocol: protocol.to_ascii_lowercase(),
        })
    }

    fn includes(&self, exposed: &str) -> bool {
        Self::parse(exposed).is_some_and(|exposed| {
            exposed.protocol == self.protocol && self.ports.contains(exposed.ports.start())
        })
    }
}

impl<'a> Selection<'a> {
    fn new(filters: &'a Filters, containers: &[Container]) -> Result<Self, ApiError> {
        let names = filters
            .get("name")
            .iter()
            .map(|pattern| {
                RegexBuilder::new(pattern)
                    .size_limit(MAX_PATTERN)
                    .build()
                    .map_err(|_| ApiError::bad_request(format!("invalid filter 'name={pattern}'")))
            })
            .collect::<Result<_, _>>()?;
        let exit_codes = filters
            .get("exited")
            .iter()
            .map(|code| {
                code.parse()
                    .map_err(|_| ApiError::bad_request(format!("invalid filter 'exited={code}'")))
            })
            .collect::<Result<_, _>>()?;
        for status in filters.get("status") {
            let known = [
                "created",
                "running",
                "paused",
                "restarting",
                "removing",
                "exited",
                "dead",
            ];
            if !known.contains(&status.as_str()) {
                return Err(ApiError::bad_request(format!(
                    "invalid filter 'status={status}': invalid value for state ({status}): must be one of {}",
                    known.join(", ")
                )));
            }
        }
        let created = |key: &str| -> Result<Option<i64>, ApiError> {
            let Some(wanted) = filters.get(key).first() else {
                return Ok(None);
            };
            containers
                .iter()
                .find(|c| c.name == *wanted || c.id.starts_with(wanted.as_str()))
                .map(|c| Some(c.created))
                .ok_or_else(|| ApiError::not_found(format!("No such container: {wanted}")))
        };
        let port_range = |key: &str, text: &String| {
            PortRange::parse(text)
                .ok_or_else(|| ApiError::bad_request(format!("invalid filter '{key}={text}'")))
        };
        let expose = filters.get("expose").iter();
        let exposed = expose
            .map(|text| port_range("expose", text))
            .collect::<Result<_, _>>()?;
        let publish = filters.get("publish").iter();
        let published = publish
            .map(|text| port_range("publish", text))
            .collect::<Result<_, _>>()?;
        for (key, known) in [
            ("health", &["none", "starting", "healthy", "unhealthy"][..]),
            ("is-task", &["true", "false", "1", "0"]),
        ] {
            if let Some(wrong) = filters
                .get(key)
                .iter()
                .find(|v| !known.contains(&v.as_str()))
            {
                return Err(ApiError::bad_request(match key {
                    "health" => format!(
                        "invalid filter 'health={wrong}': invalid value for health ({wrong}): must be one of {}",
                        known.join(", ")
                    ),
                    _ => format!("invalid filter '{key}=[{wrong}]'"),
                }));
            }
        }
        Ok(Self {
            filters,
            exposed,
            published,
            names,
            exit_codes,
            ancestors: Vec::new(),
            created_before: created("before")?,
            created_after: created("since")?,
        })
    }

    fn includes(&self, container: &Container) -> bool {
        let filters = self.filters;
        let config = &container.config;
        let slashed = format!("/{}", container.name);
        let health = match &container.state.health {
            Some(health) => health.status.as_str(),
            None => "none",
        };
        let exposes = |wanted: &PortRange| {
            let ports = config.exposed_ports.iter().flat_map(|ports| ports.keys());
            ports.into_iter().any(|port| wanted.includes(port))
        };
        let publishes = |wanted: &PortRange| {
            let mut ports = view::port_list(container).into_iter();
            ports.any(|port| {
                let transport = port.typ.map(|kind| kind.to_string()).unwrap_or_default();
                port.public_port
                    .is_some_and(|port| wanted.includes(&format!("{port}/{transport}")))
            })
        };
        filters.any("id", |id| container.id.starts_with(id.as_str()))
            && (self.names.is_empty()
                || self
                    .names
                    .iter()
                    .any(|name| name.is_match(&container.name) || name.is_match(&slashed)))
            && filters.exact("status", word(container.state.status))
            && (self.exit_codes.is_empty()
                || (container.state.status == Status::Exited
                    && self.exit_codes.contains(&container.state.exit_code)))
            && (filters.get("ancestor").is_empty() || self.ancestors.contains(&container.image_id))
            && self
                .created_before
                .is_none_or(|time| container.created < time)
            && self
                .created_after
                .is_none_or(|time| container.created > time)
            && filters.labels(config.labels.as_ref().unwrap_or(&HashMap::new()))
            && filters.any("network", |wanted| in_network(container, wanted))
            && filters.exact("health", health)
            && filters.any("is-task", |wanted| wanted == "false" || wanted == "0")
            && (self.exposed.is_empty() || self.exposed.iter().any(exposes))
            && (self.published.is_empty() || self.published.iter().any(publishes))
            && filters.any("volume", |wanted| {
                container.mounts.iter().any(|mount| {
                    mount.name.as_ref() == Some(wanted)
                        || mount.destination.as_ref() == Some(wanted)
                        || mount.source.as_ref() == Some(wanted)
                })
            })
    }
}

/// Whether a container is, or is to be, in the network of that name or id.
fn in_network(container: &Container, wanted: &str) -> bool {
    let mut networks = container.networks.iter();
    networks.any(|(name, settings)| {
        let id = settings.network_id.as_deref().unwrap_or_default();
        name == wanted || (!wanted.is_empty() && id.starts_with(wanted))
    })
}

/// A container in the shape of the list.
fn summary(container: &Container, now: i64, size: Option<&DiskUsage>) -> ContainerSummary {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    ContainerSummary {
        id: Some(container.id.clone()),
        names: Some(vec![format!("/{}", container.name)]),
        image: Some(container.image.clone()),
        image_id: Some(container.image_id.clone()),
        command: Some(command_line(container)),
        created: Some(container.created / 1_000_000_000),
        ports: Some(view::port_list(container)),
        size_rw: size.map(|size| bytes(size.written)),
        size_root_fs: size.map(|size| bytes(size.total)),
        labels: Some(container.config.labels.clone().unwrap_or_default()),
        state: Some(match container.state.status {
            Status::Created => ContainerSummaryStateEnum::CREATED,
            Status::Running => ContainerSummaryStateEnum::RUNNING,
            Status::Paused => ContainerSummaryStateEnum::PAUSED,
            Status::Restarting => ContainerSummaryStateEnum::RESTARTING,
            Status::Removing => ContainerSummaryStateEnum::REMOVING,
            Status::Exited => ContainerSummaryStateEnum::EXITED,
            Status::Dead => ContainerSummaryStateEnum::DEAD,
        }),
        status: Some(status_text(container, now)),
        host_config: Some(ContainerSummaryHostConfig {
            network_mode: container.host_config.network_mode.clone(),
            annotations: container.host_config.annotations.clone(),
        }),
        network_settings: Some(ContainerSummaryNetworkSettings {
            networks: Some(shown_networks(container)),
        }),
        mounts: Some(container.mounts.clone()),
        ..Default::default()
    }
}

/// Docker's word for a status.
fn word(status: Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Restarting => "restarting",
        Status::Removing => "removing",
        Status::Exited => "exited",
        Status::Dead => "dead",
    }
}

/// Program and arguments on one line; those with spaces in quotes, as Docker
/// does.
fn command_line(container: &Container) -> String {
    let mut line = container.path.clone();
    for argument in &container.args {
        line.push(' ');
        if argument.contains(' ') {
            line.push('\'');
            line.push_str(argument);
            line.push('\'');
        } else {
            line.push_str(argument);
        }
    }
    line
}

/// The column `STATUS`: `Up 5 minutes`, `Exited (0) 2 hours ago`.
fn status_text(container: &Container, now: i64) -> String {
    let state = &container.state;
    let up = times::in_words(now - state.started_at);
    let ago = times::in_words(now - state.finished_at);
    match state.status {
        Status::Running => match state.health.as_ref().map(|health| health.status) {
            None => format!("Up {up}"),
            Some(HealthStatus::Starting) => format!("Up {up} (health: starting)"),
            Some(health) => format!("Up {up} ({})", health.as_str()),
        },
        Status::Paused => format!("Up {up} (Paused)"),
        Status::Restarting => format!("Restarting ({}) {ago} ago", state.exit_code),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited => format!("Exited ({}) {ago} ago", state.exit_code),
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::{
        container::Health,
        port::{PublishedPort, Transport},
    };

    use super::*;

    fn container(name: &str, status: Status) -> Container {
        let mut container = Container {
            id: format!("{name}{}", "0".repeat(64 - name.len())),
            name: name.into(),
            created: name.len() as i64,
            path: "/bin/sh".into(),
            args: vec!["-c".into(), "echo hi".into()],
            ..Default::default()
        };
        container.state.status = status;
        container
    }

    fn names(json: &str, containers: &[Container]) -> Result<Vec<String>, String> {
        let filters = Filters::parse(json)?;
        let selection = Selection::new(&filters, containers).map_err(|error| error.message)?;
        Ok(containers
            .iter()
            .filter(|c| selection.includes(c))
            .map(|c| c.name.clone())
            .collect())
    }

    #[test]
    fn filters_select() {
        let mut containers = [
            container("web", Status::Running),
            container("db", Status::Exited),
            container("webby", Status::Created),
        ];
        containers[1].state.exit_code = 3;
        let select = |json: &str| names(json, &containers).unwrap().join(" ");
        assert_eq!(select("{}"), "web db webby");
        assert_eq!(select(r#"{"name":["web"]}"#), "web webby");
        assert_eq!(select(r#"{"name":["^/web$"]}"#), "web");
        assert_eq!(select(r#"{"name":["^web$","db"]}"#), "web db");
        assert_eq!(select(r#"{"status":["running","created"]}"#), "web webby");
        assert_eq!(select(r#"{"exited":["3"]}"#), "db");
        assert_eq!(select(r#"{"exited":["0"]}"#), "");
        assert_eq!(select(r#"{"since":["db"]}"#), "web webby");
        assert_eq!(select(r#"{"before":["web"]}"#), "db");
        assert_eq!(select(r#"{"id":["web0"]}"#), "web");
        assert_eq!(select(r#"{"ancestor":["busybox"]}"#), "");
        containers[0].state.health = Some(Health {
            status: HealthStatus::Healthy,
            ..Health::default()
        });
        containers[2].config = serde_json::from_str(r#"{"ExposedPorts":{"8080/tcp":{}}}"#).unwrap();
        let select = |json: &str| names(json, &containers).unwrap().join(" ");
        assert_eq!(select(r#"{"health":["healthy"]}"#), "web");
        assert_eq!(select(r#"{"health":["none"]}"#), "db webby");
        assert_eq!(select(r#"{"expose":["8080"]}"#), "webby");
        assert_eq!(select(r#"{"expose":["8000-9000/tcp"]}"#), "webby");
        assert_eq!(select(r#"{"expose":["8080/udp"]}"#), "");
        assert_eq!(select(r#"{"is-task":["true"]}"#), "");
        assert!(status_text(&containers[0], containers[0].state.started_at).ends_with("(healthy)"));
        for bad in [
            r#"{"health":["fine"]}"#,
            r#"{"expose":["http"]}"#,
            r#"{"status":["busy"]}"#,
            r#"{"exited":["x"]}"#,
            r#"{"name":["("]}"#,
            r#"{"since":["nobody"]}"#,
        ] {
            assert!(names(bad, &containers).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_published_is_found_by_its_port_on_the_host() {
        let mut web = container("web", Status::Running);
        web.ports = vec![PublishedPort {
            container_port: 53,
            transport: Transport::Udp,
            host_ip: "::".into(),
            host_port: 8053,
        }];
        let containers = [web];
        let found = |filter: &str| {
            let json = format!(r#"{{"publish":["{filter}"]}}"#);
            !names(&json, &containers).unwrap().is_empty()
        };
        assert!(found("8053/udp") && found("8000-9000/udp"));
        assert!(!found("8053") && !found("53/udp"));
    }

    #[test]
    fn columns_are_docker_s() {
        let mut one = container("web", Status::Exited);
        one.state.exit_code = 137;
        one.state.finished_at = 1_000_000_000;
        let summary = summary(&one, 121_000_000_000, None);
        assert_eq!(summary.command.as_deref(), Some("/bin/sh -c 'echo hi'"));
        assert_eq!(
            summary.status.as_deref(),
            Some("Exited (137) 2 minutes ago")
        );
        assert_eq!(summary.names, Some(vec!["/web".to_owned()]));
    }
}

//! What the engine says of itself: `_ping`, `version`, `info`.

use std::collections::HashMap;

use axum::{
    Json,
    extract::State,
    http::{HeaderName, HeaderValue, header::CACHE_CONTROL},
    response::IntoResponse,
};
use dctl_machine::UserNamespace;
use guest_protocol::{
    docker::{
        LocalNodeState, PluginsInfo, RegistryServiceConfig, Runtime, SwarmInfo, SystemInfo,
        SystemInfoCgroupDriverEnum, SystemInfoCgroupVersionEnum, SystemVersion,
        SystemVersionComponents, SystemVersionPlatform,
    },
    machine::Info,
    methods::MachineInfo,
};
use serde_json::{Value, json};

use super::{
    ApiError, Context,
    container_view::STORAGE_DRIVER,
    parameters::Parameters,
    system_defaults, times,
    version::{MAX_VERSION, MIN_VERSION},
};

/// What makes containers in the machine, and is the first process of those that want one.
const AGENT: &str = "dctl-agent";
/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET` and `HEAD /_ping`. Never boots the machine: clients ask before every
/// command.
pub(super) async fn ping() -> impl IntoResponse {
    let headers = [
        (
            CACHE_CONTROL,
            HeaderValue::from_static("no-cache, no-store, must-revalidate"),
        ),
        (
            HeaderName::from_static("pragma"),
            HeaderValue::from_static("no-cache"),
        ),
        // The classic builder: there is no BuildKit.
        (
            HeaderName::from_static("builder-version"),
            HeaderValue::from_static("1"),
        ),
        (
            HeaderName::from_static("swarm"),
            HeaderValue::from_static("inactive"),
        ),
    ];
    (headers, "OK")
}

/// `GET /version`. Never boots the machine; what only it knows is told while it
/// runs.
pub(super) async fn version(State(context): State<Context>) -> Json<SystemVersion> {
    let info = if context.agent.guest().is_running().await {
        context.agent.call(MachineInfo {}).await.ok()
    } else {
        None
    };
    let agent = info.as_ref().map(|info| SystemVersionComponents {
        name: "Agent".to_owned(),
        version: info.agent_version.clone(),
        details: Some(HashMap::from([
            ("KernelVersion".to_owned(), info.kernel_version.clone()),
            ("GitCommit".to_owned(), String::new()),
        ])),
    });
    let architecture = docker_architecture().to_owned();
    let engine = SystemVersionComponents {
        name: "Engine".to_owned(),
        version: VERSION.to_owned(),
        details: Some(
            [
                ("ApiVersion", MAX_VERSION.to_string()),
                ("MinAPIVersion", MIN_VERSION.to_string()),
                ("Os", "linux".to_owned()),
                ("Arch", architecture.clone()),
                ("GitCommit", String::new()),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
        ),
    };
    Json(SystemVersion {
        platform: Some(SystemVersionPlatform {
            name: "dctl".to_owned(),
        }),
        components: Some(std::iter::once(engine).chain(agent).collect()),
        version: Some(VERSION.to_owned()),
        api_version: Some(MAX_VERSION.to_string()),
        min_api_version: Some(MIN_VERSION.to_string()),
        git_commit: Some(String::new()),
        go_version: Some(String::new()),
        os: Some("linux".to_owned()),
        arch: Some(architecture),
        kernel_version: info.map(|info| info.kernel_version),
        experimental: None,
        build_time: Some(String::new()),
    })
}

/// `GET /info`
pub(super) async fn info(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let info = context.agent.call(MachineInfo {}).await?;
    let commit = info.agent_version.clone();
    let mut described = describe(info);
    if context.agent.guest().user_namespace().await? == UserNamespace::Private {
        let options = described.security_options.get_or_insert_default();
        options.push("name=userns".to_owned());
    }
    let mut described = serde_json::to_value(&described)
        .map_err(|error| ApiError::internal(format!("cannot describe the machine: {error}")))?;
    // Docker's goroutines are our tasks.
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    described["NGoroutines"] = json!(tasks);
    described["NFd"] = json!(open_descriptors());
    system_defaults::fill(&mut described, &commit, parameters.version);
    Ok(Json(described))
}

/// How many descriptors this process has open.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn describe(info: Info) -> SystemInfo {
    let stopped = info
        .containers
        .saturating_sub(info.containers_running)
        .saturating_sub(info.containers_paused);
    let gigabytes =
        |bytes: u64| format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10);
    SystemInfo {
        id: Some(info.boot_id),
        containers: Some(info.containers as i64),
        containers_running: Some(info.containers_running as i64),
        containers_paused: Some(info.containers_paused as i64),
        containers_stopped: Some(stopped as i64),
        images: Some(info.images as i64),
        driver: Some(STORAGE_DRIVER.to_owned()),
        driver_status: Some(vec![
            vec!["Data Space Total".to_owned(), gigabytes(info.disk_total)],
            vec![
                "Data Space Available".to_owned(),
                gigabytes(info.disk_available),
            ],
        ]),
        docker_root_dir: Some("/".to_owned()),
        plugins: Some(PluginsInfo {
            volume: Some(vec!["local".to_owned()]),
            network: Some(["bridge", "host", "null"].map(str::to_owned).to_vec()),
            authorization: None,
            log: Some(vec!["json-file".to_owned()]),
        }),
        memory_limit: Some(true),
        swap_limit: Some(true),
        cpu_cfs_period: Some(true),
        cpu_cfs_quota: Some(true),
        cpu_shares: Some(true),
        cpu_set: Some(true),
        pids_limit: Some(true),
        oom_kill_disable: Some(false),
        ipv4_forwarding: Some(false),
        debug: Some(false),
        system_time: Some(times::rfc3339(info.time)),
        logging_driver: Some("json-file".to_owned()),
        cgroup_driver: Some(SystemInfoCgroupDriverEnum::CGROUPFS),
        cgroup_version: Some(SystemInfoCgroupVersionEnum::_2),
        n_events_listener: Some(0),
        kernel_version: Some(info.kernel_version),
        operating_system: Some("dctl".to_owned()),
        os_version: Some(VERSION.to_owned()),
        os_type: Some("linux".to_owned()),
        architecture: Some(info.architecture),
        ncpu: Some(i64::from(info.cpus)),
        mem_total: Some(info.memory_total as i64),
        index_server_address: Some("https://index.docker.io/v1/".to_owned()),
        registry_config: Some(RegistryServiceConfig {
            insecure_registry_cidrs: Some(vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()]),
            index_configs: Some(HashMap::new()),
            mirrors: None,
        }),
        http_proxy: Some(String::new()),
        https_proxy: Some(String::new()),
        no_proxy: Some(String::new()),
        name: Some("dctl".to_owned()),
        labels: Some(Vec::new()),
        experimental_build: Some(false),
        server_version: Some(VERSION.to_owned()),
        runtimes: Some(HashMap::from([(
            "dctl".to_owned(),
            Runtime {
                path: Some(AGENT.to_owned()),
                ..Runtime::default()
            },
        )])),
        default_runtime: Some("dctl".to_owned()),
        swarm: Some(SwarmInfo {
            local_node_state: Some(LocalNodeState::INACTIVE),
            node_id: Some(String::new()),
            node_addr: Some(String::new()),
            control_available: Some(false),
            error: Some(String::new()),
            ..Default::default()
        }),
        live_restore_enabled: Some(true),
        init_binary: Some(AGENT.to_owned()),
        security_options: Some(vec!["name=cgroupns".to_owned()]),
        warnings: None,
        ..Default::default()
    }
}

/// This architecture, in Docker's word.
fn docker_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_that_neither_run_nor_pause_are_stopped() {
        let info = Info {
            containers: 5,
            containers_running: 2,
            containers_paused: 1,
            ..Default::default()
        };
        assert_eq!(describe(info).containers_stopped, Some(2));
    }
}

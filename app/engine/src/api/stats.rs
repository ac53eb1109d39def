//! `GET /containers/{id}/stats`: what a container uses, once or every second.

use std::{io, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use guest_protocol::{
    methods::ContainerStats,
    stats::{Cpu, Sample},
};
use serde_json::{Map, Value, json};

use super::{ApiError, Context, parameters::Parameters, times};

/// How far apart samples are; Docker's value.
const INTERVAL: Duration = Duration::from_secs(1);

/// What Docker tells of a container's memory, by the kernel's names in `memory.stat`. What
/// the kernel does not tell is 0.
const MEMORY: [&str; 31] = [
    "active_anon",
    "active_file",
    "anon",
    "anon_thp",
    "file",
    "file_dirty",
    "file_mapped",
    "file_writeback",
    "inactive_anon",
    "inactive_file",
    "kernel_stack",
    "pgactivate",
    "pgdeactivate",
    "pgfault",
    "pglazyfree",
    "pglazyfreed",
    "pgmajfault",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "shmem",
    "slab",
    "slab_reclaimable",
    "slab_unreclaimable",
    "sock",
    "thp_collapse_alloc",
    "thp_fault_alloc",
    "unevictable",
    "workingset_activate",
    "workingset_nodereclaim",
    "workingset_refault",
];

/// `GET /containers/{id}/stats`
///
/// With `stream`, an object each second until the client has enough or the
/// container is gone. Without, one object: of two samples, so that a client can tell
/// the use of CPUs, or with `one-shot` of one and at once.
pub(super) async fn stats(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let streams = parameters.text("stream").is_none() || parameters.flag("stream");
    if streams && parameters.flag("one-shot") {
        return Err(ApiError::bad_request(
            "cannot have stream=true and one-shot=true",
        ));
    }
    let first = sample(&context, &container).await?;
    // By id from here on: another may take its name.
    let container = first.id.clone();
    let json = [(CONTENT_TYPE, "application/json")];
    if !streams {
        if parameters.flag("one-shot") {
            let mut message = message(&first, &Sample::default());
            // As in Docker: whose it is, the client knows.
            if let Some(fields) = message.as_object_mut() {
                fields.retain(|name, _| !["id", "name"].contains(&name.as_str()));
            }
            return Ok((json, format!("{message}\n")).into_response());
        }
        if first.time == 0 {
            return Ok((json, line(&first, &Sample::default())).into_response());
        }
        tokio::time::sleep(INTERVAL).await;
        let second = sample(&context, &container).await?;
        return Ok((json, line(&second, &first)).into_response());
    }
    let lines = stream::unfold((context, container, first), next_line);
    Ok((json, Body::from_stream(lines)).into_response())
}

async fn sample(context: &Context, container: &str) -> Result<Sample, ApiError> {
    let container = container.to_owned();
    Ok(context.agent.call(ContainerStats { container }).await?)
}

type Following = (Context, String, Sample);

/// The next line; ends when there is no such container any more.
async fn next_line(
    (context, container, before): Following,
) -> Option<(io::Result<Bytes>, Following)> {
    tokio::time::sleep(INTERVAL).await;
    match sample(&context, &container).await {
        Ok(sample) => {
            let line = line(&sample, &before);
            Some((Ok(line), (context, container, sample)))
        }
        Err(error) => {
            tracing::info!(container, message = %error.message, "stats ended");
            None
        }
    }
}

fn line(sample: &Sample, before: &Sample) -> Bytes {
    format!("{}\n", message(sample, before)).into()
}

/// A sample in Docker's shape, as on a host with cgroup v2.
fn message(sample: &Sample, before: &Sample) -> Value {
    let mut block_io = Vec::new();
    for device in &sample.block_io {
        for (operation, value) in [("read", device.read), ("write", device.written)] {
            block_io.push(json!({
                "major": device.major,
                "minor": device.minor,
                "op": operation,
                "value": value,
            }));
        }
    }
    let mut message = json!({
        "name": format!("/{}", sample.name),
        "id": sample.id,
        "read": times::rfc3339(sample.time),
        "preread": times::rfc3339(before.time),
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {},
        "cpu_stats": cpu(&sample.cpu),
        "precpu_stats": cpu(&before.cpu),
        "memory_stats": {},
        "blkio_stats": {
            "io_service_bytes_recursive": (!block_io.is_empty()).then_some(block_io),
            "io_serviced_recursive": null,
            "io_queue_recursive": null,
            "io_service_time_recursive": null,
            "io_wait_time_recursive": null,
            "io_merged_recursive": null,
            "io_time_recursive": null,
            "sectors_recursive": null,
        },
    });
    if sample.time == 0 {
        return message;
    }
    message["pids_stats"]["current"] = json!(sample.pids.current);
    let limit = match sample.pids.limit {
        0 => u64::MAX,
        limit => limit,
    };
    message["pids_stats"]["limit"] = json!(limit);
    let memory = &sample.memory;
    let detail = |name: &&str| {
        let value = memory.details.get(*name).copied().unwrap_or(0);
        ((*name).to_owned(), json!(value))
    };
    let details: Map<_, _> = MEMORY.iter().map(detail).collect();
    message["memory_stats"] = json!({
        "usage": memory.usage,
        "limit": memory.limit,
        "stats": details,
    });
    if memory.failures != 0 {
        message["memory_stats"]["failcnt"] = json!(memory.failures);
    }
    if !sample.networks.is_empty() {
        let networks = sample.networks.iter().map(|(name, network)| {
            let network = json!({
                "rx_bytes": network.rx_bytes,
                "rx_packets": network.rx_packets,
                "rx_errors": network.rx_errors,
                "rx_dropped": network.rx_dropped,
                "tx_bytes": network.tx_bytes,
                "tx_packets": network.tx_packets,
                "tx_errors": network.tx_errors,
                "tx_dropped": network.tx_dropped,
            });
            (name.clone(), network)
        });
        message["networks"] = Value::Object(networks.collect::<Map<_, _>>());
    }
    message
}

fn cpu(cpu: &Cpu) -> Value {
    let mut value = json!({
        "cpu_usage": {
            "total_usage": cpu.total,
            "usage_in_kernelmode": cpu.system,
            "usage_in_usermode": cpu.user,
        },
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled,
        },
    });
    if cpu.machine != 0 {
        value["system_cpu_usage"] = json!(cpu.machine);
        value["online_cpus"] = json!(cpu.online);
    }
    value
}

#[cfg(test)]
mod tests {
    use guest_protocol::{
        docker::ContainerStatsResponse,
        stats::{BlockIo, Memory, Network, Pids},
    };
    use serde::Deserialize;

    use super::*;

    #[test]
    fn a_sample_has_docker_s_shape() {
        let sample = Sample {
            id: "ab".into(),
            name: "web".into(),
            time: 1_700_000_000_000_000_000,
            cpu: Cpu {
                total: 500,
                machine: 10_000,
                online: 2,
                ..Cpu::default()
            },
            memory: Memory {
                usage: 7,
                limit: 9,
                details: [("inactive_file".to_owned(), 3)].into(),
                ..Memory::default()
            },
            pids: Pids {
                current: 3,
                limit: 0,
            },
            block_io: vec![BlockIo {
                major: 254,
                minor: 0,
                read: 10,
                written: 20,
            }],
            networks: [(
                "eth0".to_owned(),
                Network {
                    rx_bytes: 5,
                    ..Network::default()
                },
            )]
            .into(),
        };
        let message = message(&sample, &Sample::default());
        assert_eq!(message["name"], "/web");
        assert_eq!(message["preread"], "0001-01-01T00:00:00Z");
        assert_eq!(message["cpu_stats"]["cpu_usage"]["total_usage"], 500);
        assert_eq!(message["cpu_stats"]["online_cpus"], 2);
        assert!(message["precpu_stats"].get("online_cpus").is_none());
        assert_eq!(message["memory_stats"]["stats"]["inactive_file"], 3);
        assert_eq!(message["memory_stats"]["stats"]["anon"], 0);
        assert_eq!(message["pids_stats"]["limit"], u64::MAX);
        assert_eq!(
            message["blkio_stats"]["io_service_bytes_recursive"][1],
            json!({"major": 254, "minor": 0, "op": "write", "value": 20})
        );
        assert_eq!(message["networks"]["eth0"]["rx_bytes"], 5);
        ContainerStatsResponse::deserialize(&message).unwrap();
    }

    #[test]
    fn one_that_does_not_run_uses_nothing() {
        let message = message(&Sample::default(), &Sample::default());
        assert_eq!(message["read"], "0001-01-01T00:00:00Z");
        assert_eq!(message["memory_stats"], json!({}));
        assert_eq!(message["pids_stats"], json!({}));
        ContainerStatsResponse::deserialize(&message).unwrap();
    }
}

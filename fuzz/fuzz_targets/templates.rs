//! `--format`: any text, applied to what `inspect` says of a container. Whatever it
//! is: no panic, no end of the stack, an end in reasonable time.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// The command line is a program, not a library: its module is taken as it is.
#[path = "../../app/cli/src/template/mod.rs"]
#[allow(dead_code)]
mod template;

static CONTAINER: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "Id": "0123456789abcdef",
        "Name": "/web",
        "RestartCount": 2,
        "Args": ["-c", "sleep 1000"],
        "State": {
            "Status": "running", "Running": true, "Pid": 42, "ExitCode": 0,
            "Health": {"Status": "healthy", "FailingStreak": 0, "Log": [{"Output": "ok\n"}]},
        },
        "Config": {
            "Env": ["PATH=/bin", "A=1"],
            "Labels": {"com.docker.compose.project": "shop", "größe": "<&>"},
            "Cmd": null,
        },
        "HostConfig": {"Memory": 0, "NanoCpus": 1_500_000_000, "Privileged": false},
        "Mounts": [{"Type": "volume", "Source": "/data", "Destination": "/var/lib"}],
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "90/tcp": null},
            "Networks": {"bridge": {"IPAddress": "172.17.0.2"}},
        },
    })
});

fuzz_target!(|text: &str| {
    let Ok(parsed) = template::Template::parse(text) else {
        return;
    };
    let labels = CONTAINER["Config"]["Labels"].as_object();
    let first = parsed.render(&CONTAINER, labels);
    // The same every time.
    assert_eq!(first, parsed.render(&CONTAINER, labels));
});

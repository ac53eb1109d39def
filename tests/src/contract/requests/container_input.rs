//! What `POST /containers/create` takes and refuses, and how the options come back.

use serde_json::{Value, json};

use super::{
    super::session::{Ask, Session},
    remove, shell,
};

const CREATE: &str = "/containers/create?name=contract-input";

pub(super) fn requests(s: &mut Session<'_>) {
    remove(s, &["contract-input"]);
    bodies(s);
    names(s);
    full(s);
    refused(s);
    starts(s);
}

fn bodies(s: &mut Session<'_>) {
    s.post(CREATE);
    for (kind, body) in [
        ("application/json", "{"),
        ("application/json", "null"),
        ("application/json", "[]"),
        ("application/json", "7"),
        ("application/json", "{} {}"),
        ("application/json", r#"{"Image": 7}"#),
        ("application/json", r#"{"Cmd": {"a": 1}, "Image": "x"}"#),
        ("application/json", r#"{"HostConfig": []}"#),
        (
            "application/json",
            r#"{"HostConfig": {"Memory": "x"}, "Image": "x"}"#,
        ),
        ("application/json", "{}"),
        ("application/json", r#"{"Image": ""}"#),
        ("application/json", r#"{"Image": "contract-nobody"}"#),
        ("application/json", r#"{"Image": "contract-nobody:tag"}"#),
        ("application/json", r#"{"Image": "Contract Nobody"}"#),
        ("application/json", r#"{"Image": "sha256:0123"}"#),
        ("text/plain", "{}"),
        ("", "{}"),
        (
            "application/json; charset=utf-8",
            r#"{"Image": "contract-nobody"}"#,
        ),
    ] {
        s.send(Ask::new("POST", CREATE).text(kind, body));
    }
}

fn names(s: &mut Session<'_>) {
    for name in [
        "a",
        "contract bad",
        "/contract-input",
        "contract/input",
        "-contract",
        "",
        "contract-ä",
    ] {
        s.post_json(
            &format!("/containers/create?name={name}"),
            shell("input", "true"),
        );
        s.keep("made", "/Id");
        s.prepare("DELETE", "/containers/$made?v=1", Value::Null);
    }
    s.post_json(
        "/containers/create?platform=linux/arm64&name=contract-input",
        shell("input", "true"),
    );
    s.post_json(
        "/containers/create?platform=nonsense&name=contract-input",
        shell("input", "true"),
    );
    s.post_json(
        "/v1.24/containers/create?name=contract-input",
        shell("input", "true"),
    );
    remove(s, &["contract-input"]);
}

/// Every option that can be seen again.
fn full(s: &mut Session<'_>) {
    let config = json!({
        "Image": "$image",
        "Hostname": "host", "Domainname": "domain", "User": "user",
        "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Tty": true, "OpenStdin": true, "StdinOnce": true,
        "Env": ["A=B", "C"], "Cmd": ["sleep", "600"], "Entrypoint": ["env"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 60_000_000_000_i64, "Timeout": 30_000_000_000_i64, "Retries": 2, "StartPeriod": 60_000_000_000_i64, "StartInterval": 1_000_000_000},
        "Volumes": {"/anonymous": {}}, "WorkingDir": "/tmp",
        "Labels": {"contract": "input", "empty": ""},
        "StopSignal": "SIGKILL", "StopTimeout": 3, "Shell": ["/bin/sh", "-c"],
        "HostConfig": host_config(),
        "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:ac:11:77:77"}}},
    });
    s.post_json(CREATE, config);
    s.get("/containers/contract-input/json");
    s.get("/v1.43/containers/contract-input/json");
    s.post("/containers/contract-input/start");
    s.wait_for(
        "/containers/contract-input/json",
        "/State/Health/Status",
        &json!("healthy"),
    );
    s.get("/containers/contract-input/json");
    s.get("/v1.41/containers/contract-input/json");
    s.get(r#"/containers/json?filters={"name":["contract-input"]}"#);
    remove(s, &["contract-input"]);
    for volume in ["contract-input-store", "contract-input-other"] {
        s.delete(&format!("/volumes/{volume}"));
    }
}

fn host_config() -> Value {
    let mut config = json!({
        "Binds": ["contract-input-store:/store:ro"],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "NetworkMode": "bridge",
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "CapAdd": ["NET_ADMIN"], "CapDrop": ["MKNOD"],
        "CgroupnsMode": "private", "Dns": ["10.0.0.53"], "DnsOptions": ["ndots:2"], "DnsSearch": ["example.org"],
        "ExtraHosts": ["there:10.0.0.9"], "GroupAdd": ["10"], "IpcMode": "private", "OomScoreAdj": 100,
        "PidMode": "", "Privileged": false, "ReadonlyRootfs": true,
    });
    let limits = json!({
        "SecurityOpt": ["no-new-privileges"], "Tmpfs": {"/scratch": "size=1m"}, "ShmSize": 1_048_576,
        "Sysctls": {"net.ipv4.ip_forward": "0"}, "Runtime": "", "Init": true,
        "CpuShares": 512, "Memory": 67_108_864, "NanoCpus": 500_000_000, "CpusetCpus": "0",
        "MemoryReservation": 33_554_432, "MemorySwap": 67_108_864, "PidsLimit": 50,
        "Ulimits": [{"Name": "nofile", "Soft": 1000, "Hard": 2000}],
        "Mounts": [
            {"Type": "volume", "Source": "contract-input-other", "Target": "/other", "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}}},
            {"Type": "tmpfs", "Target": "/memory", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 448}},
        ],
        "MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": ["/proc/sys"],
        "Annotations": {"note": "x"},
    });
    for (name, value) in limits.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    config
}

fn refused(s: &mut Session<'_>) {
    let with = |name: &str, value: Value| {
        let mut config = json!({"Image": "$image"});
        config[name] = value;
        config
    };
    let host = |value: Value| with("HostConfig", value);
    for config in [
        with("Env", json!(["=x"])),
        with("WorkingDir", json!("relative")),
        with("StopSignal", json!("NONSENSE")),
        with("Hostname", json!("-bad-")),
        with(
            "Healthcheck",
            json!({"Test": ["CMD", "true"], "Interval": 5}),
        ),
        with("Healthcheck", json!({"Test": ["NONSENSE"]})),
        with(
            "Healthcheck",
            json!({"Test": ["CMD", "true"], "Retries": -1}),
        ),
        with("ExposedPorts", json!({"nonsense": {}})),
        with("ExposedPorts", json!({"80/nonsense": {}})),
        with("Volumes", json!({"relative": {}})),
        with(
            "NetworkingConfig",
            json!({"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": "10.0.0.1"}}}}),
        ),
        with(
            "NetworkingConfig",
            json!({"EndpointsConfig": {"bridge": {"MacAddress": "nonsense"}}}),
        ),
        with("Entrypoint", json!([""])),
        host(json!({"Memory": 1})),
        host(json!({"Memory": 33_554_432, "MemorySwap": 1_000_000})),
        host(json!({"MemorySwap": 33_554_432})),
        host(json!({"MemoryReservation": 1})),
        host(json!({"MemorySwappiness": 101})),
        host(json!({"NanoCpus": -1})),
        host(json!({"NanoCpus": 999_000_000_000_i64})),
        host(json!({"NanoCpus": 1_000_000_000, "CpuQuota": 1000})),
        host(json!({"CpuPeriod": 1})),
        host(json!({"CpuQuota": 1})),
        host(json!({"CpusetCpus": "nonsense"})),
        host(json!({"CpusetCpus": "0-9999"})),
        host(json!({"PidsLimit": -2})),
        host(json!({"OomScoreAdj": 5000})),
        host(json!({"ShmSize": -1})),
        host(json!({"BlkioWeight": 5})),
        host(json!({"Binds": ["relative:/x"]})),
        host(json!({"Binds": ["/contract/nobody"]})),
        host(json!({"Binds": ["a:b"]})),
        host(json!({"Binds": ["a:/x:nonsense"]})),
        host(json!({"Binds": ["aa:/x", "bb:/x"]})),
        host(json!({"Binds": [":/x"]})),
        host(json!({"Binds": ["x:/"]})),
        host(json!({"Mounts": [{"Type": "bind", "Source": "/contract/nobody", "Target": "/x"}]})),
        host(json!({"Mounts": [{"Type": "nonsense", "Target": "/x"}]})),
        host(json!({"Mounts": [{"Type": "volume", "Source": "contract-x", "Target": ""}]})),
        host(json!({"Mounts": [{"Type": "volume", "Source": "contract-x", "Target": "relative"}]})),
        host(json!({"Mounts": [{"Type": "tmpfs", "Source": "x", "Target": "/x"}]})),
        host(json!({"Tmpfs": {"/x": "nonsense"}})),
        host(json!({"Tmpfs": {"relative": ""}})),
        host(json!({"VolumesFrom": ["contract-nobody"]})),
        host(json!({"VolumeDriver": "contract-nobody", "Binds": ["contract-v:/x"]})),
        host(json!({"RestartPolicy": {"Name": "nonsense"}})),
        host(json!({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}})),
        host(json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}})),
        host(json!({"RestartPolicy": {"Name": "always"}, "AutoRemove": true})),
        host(json!({"NetworkMode": "container:contract-nobody"})),
        host(json!({"NetworkMode": "container:"})),
        host(json!({"NetworkMode": "host", "Links": ["contract-nobody:a"]})),
        host(json!({"NetworkMode": "host", "PublishAllPorts": true})),
        host(json!({"Links": ["contract-nobody:a"]})),
        host(json!({"IpcMode": "nonsense"})),
        host(json!({"IpcMode": "container:contract-nobody"})),
        host(json!({"PidMode": "nonsense"})),
        host(json!({"PidMode": "container:contract-nobody"})),
        host(json!({"UTSMode": "nonsense"})),
        host(json!({"UsernsMode": "nonsense"})),
        host(json!({"CgroupnsMode": "nonsense"})),
        host(json!({"CapAdd": ["NONSENSE"]})),
        host(json!({"SecurityOpt": ["nonsense"]})),
        host(json!({"SecurityOpt": ["seccomp=nonsense"]})),
        host(json!({"SecurityOpt": ["a=b=c"]})),
        host(json!({"Sysctls": {"nonsense": "1"}})),
        host(json!({"Ulimits": [{"Name": "nonsense", "Soft": 1, "Hard": 1}]})),
        host(json!({"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]})),
        host(
            json!({"Devices": [{"PathOnHost": "/dev/contract-nobody", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]}),
        ),
        host(json!({"DeviceCgroupRules": ["nonsense"]})),
        host(
            json!({"DeviceRequests": [{"Driver": "contract-nobody", "Count": 1, "Capabilities": [["gpu"]]}]}),
        ),
        host(json!({"Dns": ["nonsense"]})),
        host(json!({"ExtraHosts": ["nonsense"]})),
        host(json!({"ExtraHosts": ["a:nonsense"]})),
        host(json!({"LogConfig": {"Type": "nonsense", "Config": {}}})),
        host(json!({"LogConfig": {"Type": "json-file", "Config": {"nonsense": "x"}}})),
        host(json!({"LogConfig": {"Type": "json-file", "Config": {"max-size": "nonsense"}}})),
        host(json!({"LogConfig": {"Type": "none", "Config": {}}})),
        host(json!({"Runtime": "contract-nobody"})),
        host(json!({"Isolation": "hyperv"})),
        host(json!({"PortBindings": {"nonsense": [{}]}})),
        host(json!({"PortBindings": {"80/tcp": [{"HostPort": "nonsense"}]}})),
        host(json!({"PortBindings": {"80/tcp": [{"HostIp": "nonsense"}]}})),
        host(json!({"PortBindings": {"80/tcp": [{"HostPort": "99999"}]}})),
        host(json!({"ConsoleSize": [1]})),
        host(json!({"Annotations": {"": "x"}})),
        host(json!({"StorageOpt": {"size": "1G"}})),
        host(json!({"GroupAdd": ["contract-nobody"]})),
        host(json!({"CgroupParent": "/contract"})),
    ] {
        s.post_json(CREATE, config);
        remove(s, &["contract-input"]);
    }
}

/// What is found out when they start.
fn starts(s: &mut Session<'_>) {
    let start = "/containers/contract-input/start";
    let made = |s: &mut Session<'_>, config: Value| {
        super::make(s, "contract-input", config);
        s.post(start);
        s.get("/containers/contract-input/json");
        remove(s, &["contract-input"]);
    };
    made(s, json!({"Image": "$image", "Cmd": ["contract-nobody"]}));
    made(s, json!({"Image": "$image", "Cmd": ["/etc/passwd"]}));
    made(s, json!({"Image": "$image", "Cmd": ["/etc"]}));
    made(
        s,
        json!({"Image": "$image", "Cmd": ["true"], "User": "contract-nobody"}),
    );
    made(
        s,
        json!({"Image": "$image", "Cmd": ["true"], "WorkingDir": "/etc/passwd"}),
    );
    made(
        s,
        json!({"Image": "$image", "Cmd": ["true"], "HostConfig": {"GroupAdd": ["contract-nobody"]}}),
    );
    made(
        s,
        json!({"Image": "$image", "Cmd": ["true"], "HostConfig": {"NetworkMode": "contract-nobody"}}),
    );
}

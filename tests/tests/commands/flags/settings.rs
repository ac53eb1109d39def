//! Names, files, labels, logs, signals; and all settings as `inspect` gives them back.

use std::io::Write as _;

use serde_json::{Value, json};
use tests::command::LONG;

use super::inside;
use crate::shared::{Name, dctl, shared};

#[test]
fn names_are_resolved_as_told() {
    let said = inside(
        &[
            "--add-host=one:10.1.2.3",
            "--add-host=six=[fd00::6]",
            "--dns=9.9.9.9",
            "--dns-option=ndots:2",
            "--dns-search=example.com",
        ],
        "cat /etc/hosts /etc/resolv.conf",
    );
    for line in [
        "10.1.2.3\tone",
        "fd00::6\tsix",
        "nameserver 127.0.0.11",
        "options ndots:2",
        "search example.com",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn variables_and_labels_come_from_files() {
    let mut variables = tempfile::NamedTempFile::new().unwrap();
    variables.write_all(b"# comment\nA=1\nB=file\n").unwrap();
    let file = format!("--env-file={}", variables.path().display());
    assert_eq!(inside(&[&file, "-e=B=2"], "echo $A $B"), "1 2");

    let mut labels = tempfile::NamedTempFile::new().unwrap();
    labels.write_all(b"one=1\ntwo\n").unwrap();
    let file = format!("--label-file={}", labels.path().display());
    let folder = tempfile::tempdir().unwrap();
    let cidfile = folder.path().join("id");
    let name = Name::new();
    let cidfile_option = format!("--cidfile={}", cidfile.display());
    let id = dctl(&[
        "create",
        "--name",
        name.as_str(),
        &file,
        "-l=three=3",
        "--annotation=note=x",
        &cidfile_option,
        &shared().busybox,
    ])
    .success()
    .text();
    assert_eq!(std::fs::read_to_string(&cidfile).unwrap(), id);
    let labels = |label: &str| {
        let template = format!("{{{{index .Config.Labels \"{label}\"}}}}");
        shared().installation.inspect(name.as_str(), &template)
    };
    assert_eq!((labels("one"), labels("two")), ("1".into(), String::new()));
    assert_eq!(
        (labels("three"), labels("origin")),
        ("3".into(), "test".into())
    );
    let notes = "{{json .HostConfig.Annotations}}";
    assert_eq!(
        shared().installation.inspect(name.as_str(), notes),
        r#"{"note":"x"}"#
    );
}

#[test]
fn the_stop_signal_and_its_patience() {
    let stop = |options: &[&str], script: &str| {
        let name = Name::new();
        let tail = [
            "--name",
            name.as_str(),
            &shared().busybox,
            "sh",
            "-c",
            script,
        ];
        dctl(&[&["run", "-d"], options, &tail].concat()).success();
        let mut logs = shared().installation.start(&["logs", "-f", name.as_str()]);
        logs.wait_for_output("ready", LONG);
        dctl(&["stop", name.as_str()]).success();
        shared()
            .installation
            .inspect(name.as_str(), "{{.State.ExitCode}}")
    };
    let trap = "trap 'exit 7' INT; echo ready; while :; do sleep 0.1; done";
    assert_eq!(stop(&["--stop-signal=INT", "--stop-timeout=60"], trap), "7");
    // As PID 1 it ignores what it has no trap for.
    assert_eq!(
        stop(&["--stop-signal=SIGUSR1", "--stop-timeout=0"], trap),
        "137"
    );
}

#[test]
fn logs_are_kept_as_told() {
    let logged = |options: &[&str]| {
        let name = Name::new();
        let script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done";
        let tail = [
            "--name",
            name.as_str(),
            &shared().busybox,
            "sh",
            "-c",
            script,
        ];
        dctl(&[&["run"], options, &tail].concat()).success();
        dctl(&["logs", name.as_str()])
    };
    logged(&["--log-driver=none"])
        .fails_with(1, "configured logging driver does not support reading");
    let all = logged(&["--log-driver=local"]).success().text();
    assert_eq!(all.lines().count(), 200);
    let last = logged(&["--log-opt=max-size=2k", "--log-opt=max-file=2"])
        .success()
        .text();
    assert!(last.ends_with("line 199"), "{last}");
    assert!(last.lines().count() < 150, "{last}");
}

#[test]
fn inspect_gives_back_every_setting() {
    let name = Name::new();
    let other = Name::new();
    dctl(&["create", "--name", other.as_str(), &shared().busybox]).success();
    let link = format!("--link={}:y", other.as_str());
    let options = [
        "--name",
        name.as_str(),
        "-m=64m",
        "--memory-reservation=32m",
        "--cpu-period=100000",
        "--cpu-quota=20000",
        "--cpu-shares=512",
        "--cpuset-cpus=0",
        "--cpuset-mems=0",
        "--pids-limit=20",
        "--blkio-weight=500",
        "--blkio-weight-device=/dev/vda:200",
        "--device-write-bps=/dev/vda:1mb",
        "--oom-score-adj=100",
        "--read-only",
        "--tmpfs=/t:size=1m",
        "--shm-size=1m",
        "--cap-add=NET_ADMIN",
        "--cap-drop=MKNOD",
        "--device=/dev/vda:/dev/disk:r",
        "--device-cgroup-rule=c 1:3 r",
        "--security-opt=no-new-privileges",
        "--group-add=10",
        "--init",
        "--ulimit=nofile=1:2",
        "--sysctl=net.core.somaxconn=99",
        "--pid=host",
        "--ipc=shareable",
        "--cgroupns=host",
        "--domainname=example.com",
        "--dns=9.9.9.9",
        "--add-host=a:1.2.3.4",
        "--log-opt=max-size=1m",
        "--restart=on-failure:3",
        "--runtime=runc",
        "--stop-signal=INT",
        "--stop-timeout=5",
        "--health-cmd=true",
        "--health-interval=1m",
        "-p=127.0.0.1:8080:80",
        "--expose=90",
        &link,
        "--mac-address=92:d0:c6:0a:29:33",
    ];
    let busybox = &shared().busybox;
    dctl(&[&["create"], &options[..], &[busybox.as_str()]].concat()).success();
    let all: Value =
        serde_json::from_str(&dctl(&["inspect", name.as_str()]).success().text()).unwrap();
    let (host, config) = (&all[0]["HostConfig"], &all[0]["Config"]);
    for (field, value) in [
        ("Memory", json!(64 << 20)),
        ("MemorySwap", json!(128 << 20)),
        ("MemoryReservation", json!(32 << 20)),
        ("CpuPeriod", json!(100_000)),
        ("CpuQuota", json!(20_000)),
        ("CpuShares", json!(512)),
        ("CpusetCpus", json!("0")),
        ("CpusetMems", json!("0")),
        ("PidsLimit", json!(20)),
        ("BlkioWeight", json!(500)),
        (
            "BlkioWeightDevice",
            json!([{"Path": "/dev/vda", "Weight": 200}]),
        ),
        (
            "BlkioDeviceWriteBps",
            json!([{"Path": "/dev/vda", "Rate": 1 << 20}]),
        ),
        ("OomScoreAdj", json!(100)),
        ("ReadonlyRootfs", json!(true)),
        ("Tmpfs", json!({"/t": "size=1m"})),
        ("ShmSize", json!(1 << 20)),
        ("CapAdd", json!(["NET_ADMIN"])),
        ("CapDrop", json!(["MKNOD"])),
        (
            "Devices",
            json!([{"PathOnHost": "/dev/vda", "PathInContainer": "/dev/disk", "CgroupPermissions": "r"}]),
        ),
        ("DeviceCgroupRules", json!(["c 1:3 r"])),
        ("SecurityOpt", json!(["no-new-privileges"])),
        ("GroupAdd", json!(["10"])),
        ("Init", json!(true)),
        ("Ulimits", json!([{"Name": "nofile", "Soft": 1, "Hard": 2}])),
        ("Sysctls", json!({"net.core.somaxconn": "99"})),
        ("PidMode", json!("host")),
        ("IpcMode", json!("shareable")),
        ("CgroupnsMode", json!("host")),
        ("Dns", json!(["9.9.9.9"])),
        ("ExtraHosts", json!(["a:1.2.3.4"])),
        (
            "LogConfig",
            json!({"Type": "json-file", "Config": {"max-size": "1m"}}),
        ),
        (
            "RestartPolicy",
            json!({"Name": "on-failure", "MaximumRetryCount": 3}),
        ),
        ("Runtime", json!("runc")),
        (
            "PortBindings",
            json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}),
        ),
    ] {
        assert_eq!(host[field], value, "{field}");
    }
    for (field, value) in [
        ("Domainname", json!("example.com")),
        ("StopSignal", json!("INT")),
        ("StopTimeout", json!(5)),
        ("ExposedPorts", json!({"80/tcp": {}, "90/tcp": {}})),
    ] {
        assert_eq!(config[field], value, "{field}");
    }
    assert_eq!(config["Healthcheck"]["Test"], json!(["CMD-SHELL", "true"]));
    assert_eq!(config["Healthcheck"]["Interval"], json!(60_000_000_000_i64));
}

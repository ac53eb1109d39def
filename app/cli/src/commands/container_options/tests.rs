//! What command lines become.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    options: ContainerOptions,
}

fn parse(line: &[&str]) -> Result<ContainerOptions, clap::Error> {
    Line::try_parse_from([&["run"], line].concat()).map(|line| line.options)
}

fn body(line: &[&str]) -> ContainerCreateBody {
    let options = parse(line).unwrap();
    options.body(options.attached().unwrap()).unwrap()
}

#[test]
fn options_end_at_the_image() {
    let body = body(&["-it", "busybox", "sh", "-c", "echo -i", "--rm", "--", "x"]);
    assert_eq!(body.tty, Some(true));
    assert_eq!(
        body.cmd.unwrap(),
        ["sh", "-c", "echo -i", "--rm", "--", "x"]
    );
    assert_eq!(body.host_config.unwrap().auto_remove, Some(false));
}

#[test]
fn all_options_arrive() {
    let body = body(&[
        "-i",
        "--rm",
        "--name=web",
        "-e",
        "A=1",
        "-eB=2",
        "-l",
        "x=y",
        "-w",
        "/w",
        "-u",
        "1:2",
        "--entrypoint",
        "",
        "-h",
        "host",
        "-m",
        "1g",
        "--memory-swap",
        "-1",
        "--cpus",
        "1.5",
        "--pids-limit",
        "-1",
        "--ulimit",
        "nofile=1:2",
        "--tmpfs",
        "/t:size=1m",
        "--cap-add",
        "SYS_ADMIN",
        "--cap-drop",
        "ALL",
        "--read-only",
        "--init",
        "--privileged",
        "--stop-signal",
        "SIGINT",
        "--stop-timeout",
        "3",
        "busybox",
    ]);
    assert_eq!(body.env.unwrap(), ["A=1", "B=2"]);
    assert_eq!(body.entrypoint.unwrap(), [""]);
    assert_eq!(body.hostname.as_deref(), Some("host"));
    assert_eq!(body.user.as_deref(), Some("1:2"));
    assert_eq!(body.working_dir.as_deref(), Some("/w"));
    assert_eq!(body.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(body.stop_timeout, Some(3));
    assert_eq!(body.stdin_once, Some(true));
    assert_eq!(body.cmd, None);
    assert_eq!(body.labels.unwrap()["x"], "y");
    let host = body.host_config.unwrap();
    assert_eq!(host.auto_remove, Some(true));
    assert_eq!(host.memory, Some(1 << 30));
    assert_eq!(host.memory_swap, Some(-1));
    assert_eq!(host.nano_cpus, Some(1_500_000_000));
    assert_eq!(host.pids_limit, Some(-1));
    assert_eq!(host.tmpfs.unwrap()["/t"], "size=1m");
    assert_eq!(host.cap_add.unwrap(), ["SYS_ADMIN"]);
    assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!(host.init, Some(true));
    assert_eq!(host.privileged, Some(true));
}

#[test]
fn streams_are_attached_as_docker_does() {
    let attached = |line: &[&str]| parse(line).unwrap().attached();
    assert!(!attached(&["x"]).unwrap().stdin);
    assert!(attached(&["-i", "x"]).unwrap().stdin);
    let only = attached(&["-a", "STDERR", "-i", "x"]).unwrap();
    assert!(only.stderr && !only.stdout && !only.stdin);
    assert!(attached(&["-a", "foo", "x"]).is_err());
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        &["--nope", "x"][..],
        &[],
        &["-m", "1q", "x"],
        &["--pull", "foo", "x"],
        &["--restart", "foo", "x"],
        &["--ulimit", "foo", "x"],
    ] {
        assert!(parse(line).is_err(), "{line:?}");
    }
    let both = parse(&["--rm", "--restart", "always", "x"]).unwrap();
    assert!(both.body(Attached::default()).is_err());
}

#[test]
fn limits_arrive() {
    let host = body(&[
        "--blkio-weight=300",
        "--blkio-weight-device=/dev/vda:200",
        "--cpu-period=100000",
        "--cpu-quota=20000",
        "-c=512",
        "--cpuset-cpus=0,1",
        "--cpuset-mems=0",
        "--device-read-bps=/dev/vda:1mb",
        "--device-write-bps=/dev/vda:2mb",
        "--device-read-iops=/dev/vda:10",
        "--device-write-iops=/dev/vda:20",
        "--kernel-memory=50m",
        "--memory-reservation=32m",
        "--memory-swappiness=10",
        "--oom-kill-disable",
        "--oom-score-adj=-500",
        "--shm-size=1m",
        "--storage-opt=size=1g",
        "--volume-driver=local",
        "x",
    ])
    .host_config
    .unwrap();
    assert_eq!(host.blkio_weight, Some(300));
    assert_eq!(host.blkio_weight_device.unwrap()[0].weight, Some(200));
    assert_eq!(
        (host.cpu_period, host.cpu_quota),
        (Some(100_000), Some(20_000))
    );
    assert_eq!(host.cpu_shares, Some(512));
    assert_eq!(host.cpuset_cpus.as_deref(), Some("0,1"));
    assert_eq!(host.cpuset_mems.as_deref(), Some("0"));
    assert_eq!(host.blkio_device_read_bps.unwrap()[0].rate, Some(1 << 20));
    assert_eq!(host.blkio_device_write_bps.unwrap()[0].rate, Some(2 << 20));
    assert_eq!(host.blkio_device_read_iops.unwrap()[0].rate, Some(10));
    assert_eq!(host.blkio_device_write_iops.unwrap()[0].rate, Some(20));
    assert_eq!(host.memory_reservation, Some(32 << 20));
    assert_eq!(host.memory_swappiness, Some(10));
    assert_eq!(host.oom_kill_disable, Some(true));
    assert_eq!(host.oom_score_adj, Some(-500));
    assert_eq!(host.shm_size, Some(1 << 20));
    assert_eq!(host.storage_opt.unwrap()["size"], "1g");
    assert_eq!(host.volume_driver.as_deref(), Some("local"));
}

#[test]
fn privileges_and_namespaces_arrive() {
    let host = body(&[
        "--annotation=a=b",
        "--cgroup-parent=/p",
        "--cgroupns=host",
        "--device=/dev/fuse:/dev/f:rw",
        "--device-cgroup-rule=c 1:3 rwm",
        "--group-add=audio",
        "--init=false",
        "--ipc=shareable",
        "--isolation=default",
        "--log-driver=json-file",
        "--log-opt=max-size=1m",
        "--pid=container:x",
        "--runtime=runc",
        "--security-opt=no-new-privileges",
        "--security-opt=systempaths=unconfined",
        "--sysctl=net.core.somaxconn=99",
        "--userns=host",
        "--uts=host",
        "x",
    ])
    .host_config
    .unwrap();
    assert_eq!(host.annotations.unwrap()["a"], "b");
    assert_eq!(host.cgroup_parent.as_deref(), Some("/p"));
    assert_eq!(host.cgroupns_mode.unwrap().to_string(), "host");
    assert_eq!(
        host.devices.unwrap()[0].cgroup_permissions.as_deref(),
        Some("rw")
    );
    assert_eq!(host.device_cgroup_rules.unwrap(), ["c 1:3 rwm"]);
    assert_eq!(host.group_add.unwrap(), ["audio"]);
    assert_eq!(host.init, Some(false));
    assert_eq!(host.ipc_mode.as_deref(), Some("shareable"));
    let log = host.log_config.unwrap();
    assert_eq!(log.config.unwrap()["max-size"], "1m");
    assert_eq!(host.pid_mode.as_deref(), Some("container:x"));
    assert_eq!(host.runtime.as_deref(), Some("runc"));
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
    assert_eq!(host.masked_paths.unwrap().len(), 0);
    assert_eq!(host.readonly_paths.unwrap().len(), 0);
    assert_eq!(host.sysctls.unwrap()["net.core.somaxconn"], "99");
    assert_eq!(host.userns_mode.as_deref(), Some("host"));
    assert_eq!(host.uts_mode.as_deref(), Some("host"));
}

#[test]
fn names_networks_and_ports_arrive() {
    let body = body(&[
        "--add-host=a:1.2.3.4",
        "--dns=9.9.9.9",
        "--dns-option=ndots:2",
        "--dns-search=example.com",
        "--domainname=example.com",
        "--expose=9000-9001",
        "--ip=10.0.0.2",
        "--link=db:database",
        "--mac-address=92:d0:c6:0a:29:33",
        "--network=front",
        "--network-alias=web",
        "-p=8080:80",
        "-p=127.0.0.1:8443:80",
        "-P",
        "x",
    ]);
    assert_eq!(body.domainname.as_deref(), Some("example.com"));
    let exposed = body.exposed_ports.unwrap();
    assert_eq!(exposed.len(), 3);
    assert!(exposed.contains_key("80/tcp") && exposed.contains_key("9001/tcp"));
    let endpoint = &body.networking_config.unwrap().endpoints_config.unwrap()["front"];
    assert_eq!(endpoint.aliases.as_ref().unwrap(), &["web"]);
    assert_eq!(endpoint.links.as_ref().unwrap(), &["db:database"]);
    assert_eq!(endpoint.mac_address.as_deref(), Some("92:d0:c6:0a:29:33"));
    let addresses = endpoint.ipam_config.as_ref().unwrap();
    assert_eq!(addresses.ipv4_address.as_deref(), Some("10.0.0.2"));
    let host = body.host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("front"));
    assert_eq!(host.links, None);
    assert_eq!(host.extra_hosts.unwrap(), ["a:1.2.3.4"]);
    assert_eq!(host.dns.unwrap(), ["9.9.9.9"]);
    assert_eq!(host.dns_options.unwrap(), ["ndots:2"]);
    assert_eq!(host.dns_search.unwrap(), ["example.com"]);
    assert_eq!(host.publish_all_ports, Some(true));
    let bindings = host.port_bindings.unwrap();
    assert_eq!(bindings["80/tcp"].as_ref().unwrap().len(), 2);
}

#[test]
fn without_network_options_the_request_has_none() {
    let body = body(&["--link=db", "x"]);
    assert_eq!(body.networking_config, None);
    let host = body.host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("default"));
    assert_eq!(host.links.unwrap(), ["db"]);
}

#[test]
fn a_health_check_arrives() {
    let health = |line: &[&str]| body(line).healthcheck;
    assert_eq!(health(&["x"]), None);
    let check = health(&[
        "--health-cmd=true",
        "--health-interval=1m",
        "--health-retries=2",
        "x",
    ])
    .unwrap();
    assert_eq!(check.test.unwrap(), ["CMD-SHELL", "true"]);
    assert_eq!(check.interval, Some(60_000_000_000));
    assert_eq!(check.retries, Some(2));
    assert_eq!(
        health(&["--no-healthcheck", "x"]).unwrap().test.unwrap(),
        ["NONE"]
    );
    for line in [
        &["--no-healthcheck", "--health-cmd=true", "x"][..],
        &["--health-timeout=-1s", "x"],
    ] {
        assert!(parse(line).unwrap().body(Attached::default()).is_err());
    }
}

#[test]
fn labels_come_from_files_and_options() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, b"# comment\na=file\nb\nc=file\n").unwrap();
    let path = file.path().to_str().unwrap();
    let labels = body(&["--label-file", path, "-l", "a=option", "x"])
        .labels
        .unwrap();
    assert_eq!(labels["a"], "option");
    assert_eq!(labels["b"], "");
    assert_eq!(labels["c"], "file");
}

#[test]
fn contradictions_are_refused() {
    for line in [
        &["--log-driver=none", "--log-opt=max-size=1m", "x"][..],
        &["--network=host", "--network=other", "x"],
        &["--network=name=n,ip=1.2.3.4", "--ip=1.2.3.5", "x"],
        &["--security-opt=foo", "x"],
    ] {
        let options = parse(line).unwrap();
        assert!(options.body(Attached::default()).is_err(), "{line:?}");
    }
    for line in [
        &["--userns=foo", "x"][..],
        &["--pid=container:", "x"],
        &["--uts=private", "x"],
        &["--cgroupns=foo", "x"],
        &["--isolation=process", "x"],
        &["--memory-swappiness=101", "x"],
        &["--sysctl=vm.swappiness=1", "x"],
        &["-p=x:80", "x"],
    ] {
        assert!(parse(line).is_err(), "{line:?}");
    }
}

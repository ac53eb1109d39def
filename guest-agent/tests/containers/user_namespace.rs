//! Containers in a user namespace of their own: commands and files in them.

use std::{net::Shutdown, os::unix::fs::MetadataExt};

use guest_protocol::{container::ExecConfig, docker::HostConfig, methods::*};

use crate::{
    files::{get, put, tar},
    support::{TestAgent, command},
};

fn output(agent: &TestAgent, container: &str, user: &str, line: &str) -> String {
    let exec = agent
        .call(ExecCreate {
            container: container.into(),
            config: ExecConfig {
                cmd: ["sh", "-c", line].map(str::to_owned).to_vec(),
                user: user.into(),
                attach_stdout: true,
                attach_stderr: true,
                ..ExecConfig::default()
            },
        })
        .unwrap()
        .id;
    let start = ExecStart {
        exec,
        detach: false,
        raw: false,
        console_size: None,
    };
    let (_, mut call) = agent.open(start).unwrap();
    call.stream.shutdown(Shutdown::Write).unwrap();
    let (stdout, stderr) = call.output(false);
    let both = [stdout, stderr].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn a_command_is_in_the_container_s_user_namespace() {
    let agent = TestAgent::start();
    let host = HostConfig {
        userns_mode: Some("private".into()),
        binds: Some(vec!["mapped:/v".into()]),
        ..HostConfig::default()
    };
    let id = agent.create(command(&["sleep", "1000"]), host).unwrap();
    agent.start_container(&id).unwrap();

    let namespace = "for p in self 1; do readlink /proc/$p/ns/user; done | uniq | wc -l";
    assert_eq!(output(&agent, &id, "", namespace), "1\n");
    let ids = "tr -s ' ' < /proc/self/uid_map; grep -E '^(Uid|Groups)' /proc/self/status";
    let ids = output(&agent, &id, "", ids);
    assert!(ids.starts_with(" 0 100000 65536\n"), "{ids}");
    assert!(ids.contains("Uid:\t0\t0\t0\t0\n"), "{ids}");
    assert!(!ids.contains("65534"), "{ids}");
    assert_eq!(output(&agent, &id, "1000", "id -u"), "1000\n");

    // The machine's root could do both.
    let denied = output(
        &agent,
        &id,
        "",
        "echo 1 > /proc/sys/vm/drop_caches; mount -t tmpfs x /tmp; echo $?",
    );
    assert!(!denied.ends_with("\n0\n") && denied != "0\n", "{denied}");

    output(&agent, &id, "", "touch /v/made /made; chown 5:6 /v/made");
    let machine_pid = agent.inspect(&id).unwrap().state.pid;
    let made = std::fs::metadata(format!("/proc/{machine_pid}/root/v/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (100_005, 100_006));

    put(&agent, &id, "/v", &tar(&[("put", "text")])).unwrap();
    put(&agent, &id, "/", &tar(&[("put", "text")])).unwrap();
    for path in ["/v/put", "/put"] {
        let owner = output(&agent, &id, "", &format!("stat -c %u:%g {path}"));
        assert_eq!(owner, "7:8\n", "{path}");
        let archive = get(&agent, &id, path).unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().uid().unwrap(), 7, "{path}");
    }
}

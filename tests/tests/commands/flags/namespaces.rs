//! What a container shares with the machine and with other containers.

use super::{has_lines, inside, run};
use crate::shared::{Name, dctl, shared};

/// Starts a container that sleeps, with these options.
fn sleeping(options: &[&str]) -> Name {
    let name = Name::new();
    let tail = ["--name", name.as_str(), &shared().busybox, "sleep", "600"];
    dctl(&[&["run", "-d"], options, &tail].concat()).success();
    name
}

#[test]
fn processes_are_shared_with_a_container_or_with_the_machine() {
    let other = sleeping(&[]);
    let join = format!("--pid=container:{}", other.as_str());
    assert_eq!(inside(&[&join], "cat /proc/1/comm"), "sleep");
    assert_eq!(inside(&["--pid=host"], "test $$ -gt 2 && echo far"), "far");
    let said = inside(&["--init"], "cat /proc/1/comm; test $$ -ne 1 && echo child");
    has_lines(&said, &["docker-init", "child"]);
    assert_eq!(inside(&["--init=false"], "echo $$"), "1");
}

#[test]
fn memory_is_shared_with_those_that_may() {
    let donor = sleeping(&["--ipc=shareable", "--shm-size=2m"]);
    dctl(&[
        "exec",
        donor.as_str(),
        "sh",
        "-c",
        "echo mine > /dev/shm/file",
    ])
    .success();
    let join = format!("--ipc=container:{}", donor.as_str());
    let said = inside(
        &[&join],
        "cat /dev/shm/file; echo yours > /dev/shm/answer; readlink /proc/self/ns/ipc",
    );
    let namespace = dctl(&["exec", donor.as_str(), "readlink", "/proc/self/ns/ipc"])
        .success()
        .text();
    has_lines(&said, &["mine", &namespace]);
    let answer = dctl(&["exec", donor.as_str(), "cat", "/dev/shm/answer"]).success();
    assert_eq!(answer.text(), "yours");

    let private = sleeping(&["--ipc=private"]);
    let join = format!("--ipc=container:{}", private.as_str());
    run(&[&join], "true").fails_with(125, "non-shareable IPC (hint: use IpcMode:shareable");
    assert_eq!(
        inside(&["--ipc=none"], "test -e /dev/shm || echo none"),
        "none"
    );
    assert_eq!(
        inside(&["--ipc=host"], "grep -c ' /dev/shm ' /proc/mounts"),
        "1"
    );
}

#[test]
fn names_and_cgroups_are_the_containers_own_or_the_machines() {
    let machine = inside(&["--uts=host"], "hostname");
    assert_ne!(inside(&[], "hostname"), machine);
    assert_eq!(
        inside(
            &["-h=box", "--domainname=example.com"],
            "hostname; cat /proc/sys/kernel/domainname; cat /etc/hostname"
        ),
        "box\nexample.com\nbox"
    );
    let cgroup = |options: &[&str]| inside(options, "cat /proc/self/cgroup");
    assert_eq!(cgroup(&[]), "0::/");
    assert_eq!(cgroup(&["--cgroupns=private"]), "0::/");
    let shown = cgroup(&["--cgroupns=host"]);
    assert!(shown.len() > 64, "{shown}");
}

#[test]
fn the_machines_network_is_shared_on_request() {
    let own = inside(&[], "readlink /proc/self/ns/net");
    let machine = inside(&["--network=host"], "readlink /proc/self/ns/net");
    assert_ne!(own, machine);
    let other = sleeping(&["--network=none"]);
    let join = format!("--network=container:{}", other.as_str());
    let namespace = dctl(&["exec", other.as_str(), "readlink", "/proc/self/ns/net"]).success();
    assert_eq!(
        inside(&[&join], "readlink /proc/self/ns/net"),
        namespace.text()
    );
}

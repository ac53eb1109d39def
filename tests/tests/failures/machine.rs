//! Monitor, agent and guest ended; the machine stopped and started.

use std::time::Duration;

use tests::{
    command::LONG,
    installation::{Part, wait_until},
};

use crate::Alone;

/// How long a client may take to notice.
const SOON: Duration = Duration::from_secs(30);

/// After the machine went down, whatever way: the next command boots it again and
/// finds containers and images there.
fn assert_all_is_there_again(alone: &Alone) {
    let installation = &alone.installation;
    let listed = installation
        .dctl(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"])
        .success()
        .text();
    assert!(listed.contains("counter Exited"), "{listed}");
    installation.dctl(&["start", "counter"]).success();
    installation
        .dctl(&["run", "--rm", &alone.busybox, "true"])
        .success();
}

#[test]
fn a_monitor_that_is_killed_ends_its_clients_and_loses_nothing() {
    let alone = Alone::new();
    alone.counting("counter");
    let mut following = alone.installation.start(&["logs", "-f", "counter"]);
    following.wait_for_output("count", LONG);
    alone.installation.kill(Part::Monitor);
    let ended = following.finish(SOON);
    assert_ne!(ended.code(), 0, "{ended}");
    assert_all_is_there_again(&alone);
}

#[test]
fn networks_are_there_again_with_the_machine() {
    let alone = Alone::new();
    let installation = &alone.installation;
    let dctl = |arguments: &[&str]| installation.dctl(arguments).success().text();
    let id = dctl(&["network", "create", "--subnet", "10.96.0.0/24", "kept"]);
    let head = ["run", "-d", "--network", "kept", "--name"];
    let tail = [alone.busybox.as_str(), "sleep", "600"];
    dctl(&[&head[..], &["one", "--ip", "10.96.0.9"], &tail].concat());
    dctl(&[&head[..], &["other", "--restart", "always"], &tail].concat());
    // Without a warning: nothing could be cleared away.
    installation.kill(Part::Monitor);
    dctl(&["start", "one"]);
    assert_eq!(dctl(&["network", "inspect", "-f", "{{.Id}}", "kept"]), id);
    let template = "{{.NetworkSettings.Networks.kept.IPAddress}}";
    assert_eq!(dctl(&["inspect", "-f", template, "one"]), "10.96.0.9");
    // The other came back by itself.
    dctl(&["exec", "one", "sh", "-c", "ping -c 1 -W 5 other"]);
    installation
        .dctl(&["network", "create", "--subnet", "10.96.0.0/24", "new"])
        .fails_with(1, "Pool overlaps");
}

#[test]
fn a_guest_that_panics_is_said_so() {
    let alone = Alone::new();
    alone.counting("counter");
    let installation = &alone.installation;
    let mut following = installation.start(&["logs", "-f", "counter"]);
    following.wait_for_output("count", LONG);
    // The shell's connection ends with the guest.
    let script = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger";
    let shell = installation.dctl(&["machine", "shell", "sh", "-c", script]);
    assert_ne!(shell.code(), 0, "{shell}");
    following.finish(SOON);
    wait_until("the monitor has ended", SOON, || {
        installation.processes(Part::Monitor).is_empty()
    });
    let status = installation.dctl(&["machine", "status"]).success().text();
    assert!(status.contains("panic"), "{status}");
    assert_all_is_there_again(&alone);
}

#[test]
fn an_agent_that_is_killed_takes_the_machine_down_in_a_clear_way() {
    let alone = Alone::new();
    alone.counting("counter");
    let installation = &alone.installation;
    // Signals from inside do not reach PID 1, so its code is overwritten: whatever it
    // does next is a fault of its own.
    let script = "set -- $(sed -n 's/-/ /;/r-xp/{s/ r-xp.*//;p;q}' /proc/1/maps); \
        from=$((0x$1 / 4096)); to=$((0x$2 / 4096)); \
        dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$from count=$((to - from)) conv=notrunc; \
        sleep 30";
    let shell = installation.dctl(&["machine", "shell", "sh", "-c", script]);
    assert_ne!(shell.code(), 0, "{shell}");
    let status = installation.dctl(&["machine", "status"]).success().text();
    assert!(status.contains("Attempted to kill init"), "{status}");
    assert_all_is_there_again(&alone);
}

#[test]
fn stop_and_start_keep_containers_and_images() {
    let alone = Alone::new();
    alone.counting("counter");
    let installation = &alone.installation;
    installation.dctl(&["machine", "stop"]).success();
    assert!(installation.processes(Part::Monitor).is_empty());
    installation.dctl(&["machine", "start"]).success();
    assert_all_is_there_again(&alone);
    installation.dctl(&["machine", "restart"]).success();
    assert_all_is_there_again(&alone);
}

/// What a container writes on a full disk is its error. Nothing else is lost by it: the
/// machine starts, what is there can be read, and what fills the disk be removed.
#[test]
fn a_full_disk_is_an_error_and_the_machine_starts_with_it() {
    let alone = Alone::new();
    let installation = &alone.installation;
    let run = |volume: &str, script: &str| {
        let mount = format!("{volume}:/volume");
        let words = ["run", "--rm", "-v", &mount, &alone.busybox, "sh", "-c"];
        installation.dctl(&[&words[..], &[script]].concat())
    };
    run("kept", "echo precious > /volume/file; sync").success();
    alone.counting("counter");
    // Almost all of it is taken without being written; then the rest is.
    let taking = "fallocate -l $(($(stat -f -c '%a * %S - 1048576' /volume))) /volume/most; \
        dd if=/dev/zero of=/volume/rest bs=4k; sync";
    let filled = run("fill", taking).success();
    let full = "No space left on device";
    assert!(filled.error().contains(full), "{filled}");
    installation.kill(Part::Monitor);

    let listed = installation.dctl(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]);
    let listed = listed.success().text();
    assert!(listed.contains("counter Exited"), "{listed}");
    // A container needs files of its own.
    let refused = run("kept", "cat /dev/zero > /volume/more");
    assert_ne!(refused.code(), 0, "{refused}");
    assert!(refused.error().contains(full), "{refused}");
    // Records have their room.
    for names in [["counter", "other"], ["other", "counter"]] {
        installation
            .dctl(&[&["rename"][..], &names].concat())
            .success();
    }
    installation.dctl(&["volume", "rm", "fill"]).success();
    assert_eq!(run("kept", "cat /volume/file").success().text(), "precious");
    assert_all_is_there_again(&alone);
}

#[test]
fn rm_takes_everything_with_it() {
    let alone = Alone::new();
    alone.counting("counter");
    let installation = &alone.installation;
    installation.dctl(&["machine", "rm", "--force"]).success();
    assert!(installation.processes(Part::Monitor).is_empty());
    let listed = installation.dctl(&["ps", "-aq"]).success().text();
    assert_eq!(listed, "");
    installation
        .dctl(&["run", "--rm", "--pull", "never", &alone.busybox, "true"])
        .fails_with(125, "No such image");
}

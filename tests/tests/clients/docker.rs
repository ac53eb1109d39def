//! Docker's own command line: what its users type, on a terminal where that matters.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::Signal;
use serde_json::Value;
use tests::{
    Finished, Running,
    clients::Client,
    command::{LONG, run},
    terminal::Terminal,
};

use crate::shared::{call, client, shared};

#[track_caller]
fn docker(arguments: &[&str]) -> Finished {
    call(Client::Docker, arguments)
}

fn start(arguments: &[&str]) -> Running {
    Running::start(client(Client::Docker).args(arguments))
}

fn terminal(arguments: &[&str]) -> Terminal {
    Terminal::start(client(Client::Docker).args(arguments), 24, 80)
}

/// A container that runs `script`, named as no other; goes with the test.
struct Container(String);

impl Container {
    #[track_caller]
    fn new(options: &[&str], script: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("docker-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let first = ["run", "-d", "--name", &name];
        let last = [&shared().busybox, "sh", "-c", script];
        docker(&[&first, options, &last].concat()).success();
        Self(name)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker(&["rm", "-fv", &self.0]);
    }
}

#[test]
fn run_is_at_a_terminal() {
    let mut terminal = terminal(&["run", "-it", "--rm", &shared().busybox, "sh"]);
    terminal.wait_for("# ", LONG);
    terminal.type_text("stty size; tty\r");
    terminal.wait_for("24 80", LONG);
    terminal.wait_for("/dev/pts/0", LONG);
    terminal.resize(40, 100);
    terminal.type_text("until stty size | grep '40 100'; do sleep 0.1; done\r");
    terminal.wait_for("40 100\r\n", LONG);
    terminal.type_text("exit 7\r");
    assert_eq!(terminal.finish(LONG), 7);
}

#[test]
fn run_passes_streams_codes_and_signals() {
    let busybox = shared().busybox.as_str();
    let mut cat = client(Client::Docker);
    let script = "cat | wc -c; echo err >&2; exit 9";
    cat.args(["run", "-i", "--rm", busybox, "sh", "-c", script]);
    let ran = run(&mut cat, &vec![b'x'; 1_000_000], LONG);
    assert_eq!((ran.code(), ran.error().as_str()), (9, "err"), "{ran}");
    assert_eq!(ran.text(), "1000000");

    let trap = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let mut signalled = start(&["run", "--rm", busybox, "sh", "-c", trap]);
    signalled.wait_for_output("ready", LONG);
    signalled.signal(Signal::TERM);
    let signalled = signalled.finish(LONG);
    assert_eq!(signalled.code(), 3);
    assert!(signalled.text().ends_with("caught"), "{signalled}");

    let missing = docker(&["run", "--rm", busybox, "no-such-program"]);
    missing.fails_with(127, "executable file not found in $PATH");
    docker(&["run", "--rm", busybox, "/etc"]).fails_with(126, "permission denied");
}

#[test]
fn exec_is_at_a_terminal_or_not() {
    let container = Container::new(&[], "sleep 600");
    let mut terminal = terminal(&["exec", "-it", &container.0, "sh"]);
    terminal.wait_for("# ", LONG);
    terminal.type_text("stty size; exit 4\r");
    terminal.wait_for("24 80", LONG);
    assert_eq!(terminal.finish(LONG), 4);
    let mut exec = client(Client::Docker);
    exec.args(["exec", "-i", "-e", "A=b", "-w", "/tmp", "-u", "1000"]);
    exec.args([&container.0, "sh", "-c", "cat; echo $A; pwd; id -u; exit 5"]);
    let exec = run(&mut exec, b"in ", LONG);
    assert_eq!(exec.code(), 5);
    assert_eq!(exec.text(), "in b\n/tmp\n1000");
}

#[test]
fn attach_detaches_by_keys_and_comes_back() {
    let container = Container::new(&["-it"], "while read line; do echo got $line; done");
    let mut first = terminal(&["attach", &container.0]);
    first.type_text("one\r");
    first.wait_for("got one", LONG);
    first.type_text("\x10\x11");
    first.wait_for("read escape sequence", LONG);
    // The client's own idea of it.
    assert_eq!(first.finish(LONG), 1);
    let mut second = terminal(&["attach", &container.0]);
    second.type_text("two\r");
    second.wait_for("got two", LONG);
    second.type_text("\x04");
    assert_eq!(second.finish(LONG), 0);
}

#[test]
fn logs_are_followed_and_cut() {
    let script = "i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo line $i; sleep 0.2; done";
    let container = Container::new(&[], script);
    let followed = start(&["logs", "-f", "--tail", "all", &container.0]).finish(LONG);
    let lines: Vec<_> = (1..=5).map(|number| format!("line {number}")).collect();
    assert_eq!(followed.success().text(), lines.join("\n"));
    let last = docker(&["logs", "-n", "1", "-t", &container.0]).success();
    let text = last.text();
    assert!(text.ends_with("Z line 5"), "{last}");
    let time = text.split(' ').next().unwrap();
    let since = docker(&["logs", "--since", time, &container.0]).success();
    assert_eq!(since.text(), "line 5");
}

#[test]
fn cp_goes_both_ways_and_through_pipes() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let container = Container::new(&[], "sleep 600");
    let make = "mkdir /d; echo inside > /d/f";
    docker(&["exec", &container.0, "sh", "-c", make]).success();
    let inside = |path: &str| format!("{}:{path}", container.0);
    docker(&["cp", &inside("/d"), &at("d")]).success();
    assert_eq!(fs::read_to_string(at("d/f")).unwrap(), "inside\n");
    fs::write(at("d/g"), "outside").unwrap();
    docker(&["cp", &at("d"), &inside("/e")]).success();
    let read = docker(&["exec", &container.0, "cat", "/e/f", "/e/g"]).success();
    assert_eq!(read.text(), "inside\noutside");
    let archive = docker(&["cp", &inside("/e"), "-"]).success();
    let mut into = client(Client::Docker);
    into.args(["cp", "-", &inside("/tmp")]);
    run(&mut into, &archive.stdout, LONG).success();
    docker(&["exec", &container.0, "test", "-f", "/tmp/e/g"]).success();
    docker(&["cp", &inside("/nothing"), "-"]).fails_with(1, "Could not find the file /nothing");
}

#[test]
fn stats_once_and_as_they_come() {
    let container = Container::new(&["-m", "64m"], "sleep 600");
    let format = ["--format", "{{json .}}", &container.0];
    let once = docker(&[&["stats", "--no-stream"], &format[..]].concat()).success();
    let once: Value = serde_json::from_str(&once.text()).unwrap();
    assert_eq!(once["Name"], container.0.as_str());
    let memory = once["MemUsage"].as_str().unwrap();
    assert!(memory.ends_with("/ 64MiB"), "{memory}");
    assert_ne!(once["PIDs"], "0");
    let mut stream = start(&["stats", "--format", "{{.Name}} {{.CPUPerc}}", &container.0]);
    stream.wait_for_output(&format!("{} 0.", container.0), LONG);
    // With a name only the third signal ends it, whatever the engine does.
    let mut all = start(&["stats", "--format", "{{.Name}}"]);
    all.wait_for_output(&container.0, LONG);
    all.signal(Signal::INT);
    all.finish(LONG);
}

#[test]
fn events_come_as_they_happen() {
    let label = "events=docker";
    let filter = format!("label={label}");
    let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.exitCode}}";
    let mut events = start(&["events", "--filter", &filter, "--format", format]);
    let container = Container::new(&["--label", label], "sleep 600");
    events.wait_for_output("container start", LONG);
    docker(&["exec", &container.0, "true"]).success();
    docker(&["kill", &container.0]).success();
    events.wait_for_output("container die 137", LONG);
    docker(&["rm", &container.0]).success();
    events.wait_for_output("container destroy", LONG);
    events.signal(Signal::INT);
    let said = events.finish(LONG).text();
    let order = [
        "create",
        "start",
        "exec_create: true",
        "exec_start: true",
        "kill",
        "die",
    ];
    let mut rest = said.as_str();
    for action in order {
        let at = rest.find(&format!("container {action}"));
        rest = &rest[at.unwrap_or_else(|| panic!("no {action} in {said}"))..];
    }
}

/// The path of Docker's client, which is one file that needs the C library at most.
fn client_s_program() -> String {
    let which = run(Command::new("which").arg("docker"), b"", LONG);
    which.success().text()
}

#[test]
fn a_container_has_the_engine_if_it_was_given_its_socket() {
    let shared = shared();
    let program = format!("{}:/usr/bin/docker:ro", client_s_program());
    let own = shared.installation.socket();
    for socket in ["/var/run/docker.sock", own.to_str().unwrap()] {
        let socket = format!("{socket}:/var/run/docker.sock");
        let inside = ["run", "--rm", "-v", &program, "-v", &socket, &shared.redis];
        // A sibling, whose output comes back through two containers' connections.
        let script = format!(
            "docker ps -q && docker run --rm {} echo sibling",
            shared.busybox
        );
        let said = docker(&[&inside[..], &["sh", "-c", &script]].concat()).success();
        assert!(said.text().ends_with("sibling"), "{said}");
        assert!(said.text().lines().count() > 1, "{said}");
    }
    let without = ["run", "--rm", "-v", &program, &shared.redis, "docker", "ps"];
    docker(&without).fails_with(1, "Cannot connect to the Docker daemon");
}

#[test]
fn lists_and_inspections_print() {
    let container = Container::new(&["-p", "127.0.0.1::80", "-v", "/anonymous"], "sleep 600");
    let format = "{{.Names}} {{.State}} {{.Ports}} {{.LocalVolumes}} {{.Networks}}";
    let filter = format!("name=^{}$", container.0);
    let listed = docker(&["ps", "--filter", &filter, "--format", format]).success();
    let line = listed.text();
    assert!(
        line.starts_with(&format!("{} running 127.0.0.1:", container.0)),
        "{line}"
    );
    assert!(line.ends_with("->80/tcp 1 bridge"), "{line}");
    docker(&["ps", "-a", "--size"]).success();
    let top = docker(&["top", &container.0]).success();
    assert!(top.text().contains("sleep 600"), "{top}");
    let diff = docker(&["diff", &container.0]).success();
    assert_eq!(diff.text(), "A /anonymous");
    for arguments in [
        &["info"][..],
        &["version"],
        &["system", "df", "-v"],
        &["image", "ls", "--digests"],
        &["network", "inspect", "bridge"],
        &["volume", "ls"],
    ] {
        docker(arguments).success();
    }
    let error = docker(&["inspect", "no-such-thing"]);
    error.fails_with(1, "No such object: no-such-thing");
}

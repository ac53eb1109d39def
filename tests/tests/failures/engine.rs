//! The engine killed, twice started, in everybody's way.

use std::time::Duration;

use tests::{
    Installation,
    command::LONG,
    hostile::{Answer, HostileRegistry},
    images::{ImageParts, Layer},
    installation::Part,
};

use crate::Alone;

/// How long a client may take to notice.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn an_engine_killed_under_its_clients_loses_no_container() {
    let alone = Alone::new();
    let installation = &alone.installation;
    alone.counting("counter");
    let start = |arguments: &[&str]| {
        let mut running = installation.start(arguments);
        running.wait_for_output("count", LONG);
        running
    };
    let script = "echo count; sleep 600";
    let clients = [
        start(&[
            "run",
            "--name",
            "attached",
            &alone.busybox,
            "sh",
            "-c",
            script,
        ]),
        start(&["exec", "counter", "sh", "-c", script]),
        start(&["logs", "-f", "counter"]),
    ];
    let monitors = installation.processes(Part::Monitor);
    installation.kill(Part::Engine);
    for client in clients {
        let ended = client.finish(SOON);
        assert_ne!(ended.code(), 0, "{ended}");
        assert!(!ended.error().is_empty(), "{ended}");
    }
    // The next command starts another, which finds all as it was.
    let names = installation
        .dctl(&["ps", "--format", "{{.Names}}"])
        .success()
        .text();
    assert!(
        names.contains("attached") && names.contains("counter"),
        "{names}"
    );
    assert_eq!(installation.processes(Part::Monitor), monitors);
    let mut logs = installation.start(&["logs", "-f", "--tail", "1", "counter"]);
    logs.wait_for_output("count", LONG);
}

#[test]
fn an_engine_killed_during_a_pull_leaves_no_half_image() {
    let alone = Alone::new();
    let installation = &alone.installation;
    let mut layer = Layer::new();
    layer.file("big", 0o644, &vec![7; 4 << 20]);
    let image = ImageParts::new(&[layer.finish()], &serde_json::json!({"Cmd": ["/big"]}));
    let registry = HostileRegistry::start();
    registry.serve("slow", &image);
    let blob = &image.layers[0];
    let path = HostileRegistry::blob_path("slow", blob);
    registry.set(
        &path,
        Answer::good("application/octet-stream", blob).stalled(blob.len() / 2),
    );
    let name = registry.name("slow");
    let pull = installation.start(&["pull", &name]);
    registry.wait_for_request(&path, LONG);
    installation.kill(Part::Engine);
    let ended = pull.finish(SOON);
    assert_ne!(ended.code(), 0, "{ended}");
    installation
        .dctl(&["image", "inspect", &name])
        .fails_with(1, "No such");
    registry.serve("slow", &image);
    installation.dctl(&["pull", &name]).success();
}

#[test]
fn two_engines_started_at_once_are_one() {
    let installation = Installation::new();
    let clients: Vec<_> = (0..4).map(|_| installation.start(&["version"])).collect();
    for client in clients {
        client.finish(LONG).success();
    }
    assert_eq!(installation.processes(Part::Engine).len(), 1);
    let second = installation.dctl(&["engine"]);
    assert_ne!(second.code(), 0, "{second}");
    assert!(!second.error().is_empty(), "{second}");
    assert_eq!(installation.processes(Part::Engine).len(), 1);
}

#[test]
fn the_socket_is_its_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    let installation = Installation::new();
    installation.dctl(&["version"]).success();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&installation.socket()) & 0o777, 0o600);
    let directory = installation.socket();
    assert_eq!(mode(directory.parent().unwrap()) & 0o077, 0);
}

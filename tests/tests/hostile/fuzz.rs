//! Requests that schemathesis makes of the engine's description: no answer may say that
//! the engine failed, nothing may be slower than a client waits, and nobody panics.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use tests::installation::Part;

use super::{Stage, stage};

/// Where schemathesis and what it needs are; `cargo xtask test` says so.
const PACKAGES: &str = "DCTL_TEST_PYTHON";

/// How many requests are made of each endpoint and for how long, for a search on demand
/// that is another each time.
const SECONDS: &str = "DCTL_TEST_FUZZ_SECONDS";

/// In CI each run is the same.
const SEED: &str = "20260721";
const EXAMPLES: &str = "12";
const PATIENCE: Duration = Duration::from_mins(5);

/// Requests that would end the machine or the engine under the others.
const EXCLUDED: [&str; 5] = [
    "/dctl/machine/stop",
    "/dctl/machine/restart",
    "/dctl/machine/reset",
    "/dctl/machine/start",
    "/dctl/engine/stop",
];

#[test]
fn requests_of_any_kind_are_answered() {
    let (stage, _turn) = stage();
    let dctl = &stage.installation;
    let packages = std::env::var_os(PACKAGES)
        .unwrap_or_else(|| panic!("{PACKAGES} is not set: run `cargo xtask test end-to-end`"));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let description = here.join("../app/engine/openapi.yaml");
    let url = relay(dctl.socket());
    let mut python_path = vec![
        PathBuf::from(packages),
        here.join("tests/hostile/schemathesis"),
    ];
    python_path.extend(std::env::var_os("PYTHONPATH").map(PathBuf::from));
    let engine = dctl.processes(Part::Engine);

    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("python3");
    command
        .args(["-m", "schemathesis.cli", "run"])
        .arg(description)
        .args([
            "--url",
            &url,
            "--no-color",
            "--continue-on-failure",
            "--no-shrink",
        ])
        .args(["--checks", "not_a_server_error,status_code_conformance"])
        // What is made is not used by whom it was made for alone.
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .args(["--request-timeout", "30"])
        .args(["--exclude-method", "TRACE"])
        .current_dir(directory.path())
        .env("PYTHONPATH", std::env::join_paths(python_path).unwrap())
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("FUZZ_URL", &url)
        .envs(things(stage));
    for path in EXCLUDED {
        command.args(["--exclude-path", path]);
    }
    let seconds = std::env::var(SECONDS).ok();
    if let Some(seconds) = &seconds {
        // And each value of each parameter by itself, which are some thousand requests.
        command.args(["--max-time", seconds, "--phases", "coverage,fuzzing"]);
    } else {
        command.args(["--seed", SEED, "--max-examples", EXAMPLES]);
        command.args(["--generation-deterministic", "--phases", "fuzzing"]);
    }
    let more = seconds.map_or(0, |seconds| seconds.parse().unwrap());
    let patience = PATIENCE + Duration::from_secs(more);
    let finished = tests::command::run(&mut command, b"", patience);
    let report = String::from_utf8_lossy(&finished.stdout);
    println!("{report}");
    assert_eq!(finished.code(), 0, "{report}\n{}", finished.error());

    assert_eq!(dctl.processes(Part::Engine), engine, "the engine has ended");
    for (who, log) in [
        (
            "engine",
            std::fs::read_to_string(dctl.home().join("run/engine.log")).unwrap(),
        ),
        ("agent", dctl.dctl(&["machine", "logs"]).success().text()),
    ] {
        assert!(!log.contains("panicked"), "the {who} panicked: {log}");
    }
    dctl.dctl(&["run", "--rm", &stage.busybox, "true"])
        .success();
}

/// What requests are about, as the hooks know it.
fn things(stage: &Stage) -> Vec<(&'static str, String)> {
    let dctl = &stage.installation;
    dctl.dctl(&["volume", "create", "fuzz-volume"]).success();
    dctl.dctl(&["network", "create", "fuzz-network"]).success();
    // What a container uses stays, whoever wants to remove it.
    let options = ["-v", "fuzz-volume:/data", "--network", "fuzz-network"];
    let running = stage.sleeper("fuzz-running", &options);
    let idle = stage.sleeper("fuzz-idle", &[]);
    let create = ["create", "--name", "fuzz-stopped", &stage.busybox, "true"];
    dctl.dctl(&create).success();
    let registry = stage.registry.name("");
    vec![
        ("FUZZ_RUNNING", running),
        ("FUZZ_IDLE", idle),
        ("FUZZ_IMAGE", stage.busybox.clone()),
        ("FUZZ_REGISTRY", registry.trim_end_matches('/').to_owned()),
    ]
}

/// Makes the engine's socket known as a port of this computer, which is all that
/// schemathesis connects to, for as long as the test runs; its URL.
fn relay(socket: PathBuf) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(engine) = UnixStream::connect(&socket) else {
                continue;
            };
            let (client, engine) = (Arc::new(client), Arc::new(engine));
            let pair = (Arc::clone(&client), Arc::clone(&engine));
            thread::spawn(move || {
                let _ = io::copy(&mut &*pair.0, &mut &*pair.1);
                let _ = pair.1.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                let _ = io::copy(&mut &*engine, &mut &*client);
                let _ = TcpStream::shutdown(&client, Shutdown::Both);
                let _ = engine.shutdown(Shutdown::Both);
            });
        }
    });
    url
}

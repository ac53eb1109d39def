//! docker-py and testcontainers: the scripts say what is expected, each class in them
//! is a test here.

use tests::{clients::Client, command::run};

use crate::shared::{beside, client};

/// A class of tests is this long at most; software CPUs take their time.
const WITHIN: std::time::Duration = std::time::Duration::from_mins(10);

#[track_caller]
fn unittest(script: &str, class: &str, variables: &[(&str, &str)]) {
    let mut python = client(Client::Python);
    python
        .args(["-W", "ignore", "-m", "unittest"])
        .arg(format!("{script}.{class}"))
        .current_dir(beside("scripts"))
        .envs(variables.iter().copied());
    let said = run(&mut python, b"", WITHIN).success().error();
    // No test at all would be a success, too.
    assert!(said.contains("\nOK") && !said.contains("Ran 0"), "{said}");
}

macro_rules! docker_py {
    ($($test:ident: $class:literal,)*) => {
        $(
            #[test]
            fn $test() {
                unittest("docker_py", $class, &[]);
            }
        )*
    };
}

docker_py! {
    docker_py_runs_containers: "Runs",
    docker_py_leads_containers_through_their_lives: "Lives",
    docker_py_streams: "Streams",
    docker_py_moves_files: "Files",
    docker_py_has_networks: "Networks",
    docker_py_has_images: "Images",
    docker_py_knows_the_engine: "Engine",
    docker_py_removes_as_ryuk_does: "Reaper",
}

#[test]
fn testcontainers_has_real_servers() {
    let variables = [
        ("TESTCONTAINERS_RYUK_DISABLED", "true"),
        // It may think itself in a container of the engine's, where other addresses hold.
        ("TESTCONTAINERS_CONNECTION_MODE", "docker_host"),
        ("TC_MAX_TRIES", "240"),
    ];
    unittest("testcontainers_py", "Servers", &variables);
}

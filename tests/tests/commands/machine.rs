//! `dctl machine`, `doctor` and `version`.

use crate::shared::{dctl, shared};

#[test]
fn status_says_that_it_runs() {
    let _ = shared();
    let said = dctl(&["machine", "status"]).success().text();
    assert!(said.to_lowercase().contains("running"), "{said}");
    let json = dctl(&["machine", "status", "--format", "json"]).success();
    let parsed: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(parsed.is_object(), "{json}");
}

#[test]
fn the_agents_log_can_be_read() {
    let _ = shared();
    let said = dctl(&["machine", "logs"]).success();
    assert!(!said.stdout.is_empty(), "{said}");
}

#[test]
fn a_command_runs_in_the_machine_itself() {
    let _ = shared();
    let said = dctl(&["machine", "shell", "sh", "-c", "cat /proc/1/comm"])
        .success()
        .text();
    assert!(!said.is_empty(), "{said}");
    assert_eq!(dctl(&["machine", "shell", "sh", "-c", "exit 5"]).code(), 5);
}

#[test]
fn version_and_doctor_answer() {
    let said = dctl(&["version"]).success().text();
    assert!(
        said.contains("API version") || said.contains("API Version"),
        "{said}"
    );
    let said = dctl(&["doctor"]);
    assert!(!said.stdout.is_empty(), "{said}");
}

//! The Docker Engine API beside what a real `dockerd` was recorded to answer.

use tests::{
    contract::{self, Engine},
    registry::Registry,
};

use crate::shared::shared;

#[test]
fn the_api_answers_as_docker_does() {
    let shared = shared();
    let closed = Registry::with_login();
    let engine = Engine {
        socket: shared.installation.socket(),
        registry: shared.registry.address().to_string(),
        closed_registry: closed.address().to_string(),
    };
    let report = contract::compare(&engine, &[]).unwrap();
    assert!(
        report.is_empty(),
        "answers differ from Docker's (meant ones belong into tests/src/contract/differences.rs):\n{report}"
    );
}

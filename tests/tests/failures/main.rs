//! What breaks: engine, monitor, agent and guest ended in the middle of things.
//! After each, a clear error at once and nothing lost.
//!
//! Each test has an installation of its own, and boots one machine; they run one
//! after another, because machines without KVM need the processors.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod engine;
mod machine;
mod ports;
mod resolver;

use std::sync::{Mutex, MutexGuard, PoisonError};

use tests::{Installation, images, registry::Registry};

/// An installation with a busybox image, alone on this computer.
struct Alone {
    installation: Installation,
    _registry: Registry,
    busybox: String,
    _turn: MutexGuard<'static, ()>,
}

impl Alone {
    fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        // A test that failed has broken nothing but itself.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = Registry::start();
        let layout = tempfile::tempdir().unwrap();
        images::write_busybox(layout.path());
        registry.push(layout.path(), "busybox:latest");
        let busybox = registry.name("busybox:latest");
        let installation = Installation::new();
        installation.dctl(&["pull", &busybox]).success();
        Self {
            installation,
            _registry: registry,
            busybox,
            _turn: turn,
        }
    }

    /// Starts a container that counts in its log.
    fn counting(&self, name: &str) {
        let script = "i=0; while :; do i=$((i + 1)); echo count $i; sleep 0.2; done";
        self.installation
            .dctl(&[
                "run",
                "-d",
                "--name",
                name,
                &self.busybox,
                "sh",
                "-c",
                script,
            ])
            .success();
    }
}

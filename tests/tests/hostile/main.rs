//! What the engine and its machine stand: requests of all kinds, most of them wrong, and
//! many of them.
//!
//! All tests share one machine, which is no other test's: things are removed here. They
//! run one after another, since some look at what is left.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod flat;
mod fuzz;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tests::{Installation, images, registry::Registry};

/// A machine with a busybox image, for one test at a time.
struct Stage {
    installation: Installation,
    registry: Registry,
    busybox: String,
}

impl Stage {
    fn new() -> Self {
        let registry = Registry::start();
        let layout = tempfile::tempdir().unwrap();
        images::write_busybox(layout.path());
        registry.push(layout.path(), "busybox:latest");
        let busybox = registry.name("busybox:latest");
        let installation = Installation::new();
        installation.dctl(&["pull", &busybox]).success();
        Self {
            installation,
            registry,
            busybox,
        }
    }

    /// Starts a container that sleeps; its id.
    fn sleeper(&self, name: &str, options: &[&str]) -> String {
        let mut run = vec!["run", "-d", "--name", name];
        run.extend(options);
        run.extend([&self.busybox, "sleep", "1000000"]);
        self.installation.dctl(&run).success().text()
    }
}

/// The one that all share, for as long as the guard is there.
fn stage() -> (&'static Stage, MutexGuard<'static, ()>) {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has left its things, and broken nothing else.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (STAGE.get_or_init(Stage::new), turn)
}

//! The installation that all clients use, and a registry with images for it.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use tests::{
    Finished, Installation,
    clients::Client,
    command::{LONG, run},
    images,
    registry::Registry,
    servers,
};

/// The shared installation. Its machine runs and has the images.
pub(crate) struct Shared {
    pub(crate) installation: Installation,
    pub(crate) registry: Registry,
    pub(crate) busybox: String,
    pub(crate) redis: String,
    pub(crate) postgres: String,
}

/// The one that all share.
pub(crate) fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let registry = Registry::start();
        let layout = tempfile::tempdir().unwrap();
        images::write_busybox(layout.path());
        registry.push(layout.path(), "library/busybox:latest");
        registry.push(&servers::redis(), "library/redis:7");
        registry.push(&servers::postgres(), "library/postgres:15");
        let installation = Installation::new();
        let [busybox, redis, postgres] =
            ["busybox:latest", "redis:7", "postgres:15"].map(|image| {
                let name = registry.name(&format!("library/{image}"));
                installation.dctl(&["pull", "--quiet", &name]).success();
                name
            });
        Shared {
            installation,
            registry,
            busybox,
            redis,
            postgres,
        }
    })
}

/// A client that finds the shared engine, and the images by its environment.
pub(crate) fn client(client: Client) -> Command {
    let shared = shared();
    let mut command = client.command(&shared.installation);
    command
        .env("BUSYBOX", &shared.busybox)
        .env("REDIS", &shared.redis)
        .env("POSTGRES", &shared.postgres)
        .env("REGISTRY", shared.registry.name(""));
    command
}

/// Runs a client with `arguments`.
#[track_caller]
pub(crate) fn call(which: Client, arguments: &[&str]) -> Finished {
    run(client(which).args(arguments), b"", LONG)
}

/// The path of a file beside the tests.
pub(crate) fn beside(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(path)
}

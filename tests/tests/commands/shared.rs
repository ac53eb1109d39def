//! The installation that all tests share, and a registry with images for it.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use tests::{Installation, images, registry::Registry};

/// The shared installation, with its images pulled.
pub(crate) struct Shared {
    pub(crate) installation: Installation,
    pub(crate) registry: Registry,
    /// The busybox image's name.
    pub(crate) busybox: String,
    /// The Debian image's name.
    pub(crate) debian: String,
}

/// The one that all share.
pub(crate) fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let registry = Registry::start();
        let layout = tempfile::tempdir().unwrap();
        images::write_busybox(layout.path());
        registry.push(layout.path(), "busybox:latest");
        registry.push(&images::debian(), "library/debian:bookworm");
        let busybox = registry.name("busybox:latest");
        let debian = registry.name("library/debian:bookworm");
        let installation = Installation::new();
        installation.dctl(&["pull", &busybox]).success();
        installation.dctl(&["pull", &debian]).success();
        Shared {
            installation,
            registry,
            busybox,
            debian,
        }
    })
}

/// A container's name that nobody else uses, and whose container goes with it.
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // It may never have come to be.
        let _ = shared().installation.dctl(&["rm", "--force", &self.0]);
    }
}

/// Runs `dctl` on the shared installation.
#[track_caller]
pub(crate) fn dctl(arguments: &[&str]) -> tests::Finished {
    shared().installation.dctl(arguments)
}

//! The process behind `dctl qemu --config FILE`.

use std::path::Path;

use dctl_vmm::exit::Reason;

/// Runs a machine on QEMU until it ends; returns how it did.
pub fn run_supervisor(config: &Path) -> Reason {
    eprintln!(
        "dctl qemu: {} cannot be run by this build",
        config.display()
    );
    Reason::Failed
}

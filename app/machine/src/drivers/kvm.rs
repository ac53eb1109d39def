//! The `kvm` driver: our monitor, `dctl vmm`.

/// The hidden subcommand that is the monitor.
pub(crate) const SUBCOMMAND: &str = "vmm";

/// What the kernel is told; the monitor adds what its devices need.
pub(crate) const COMMAND_LINE: &[&str] = &[
    "console=hvc0",
    // Only what ends the guest.
    "loglevel=1",
    // A panic resets at once, through the keyboard controller: the monitor tells
    // that from a triple fault.
    "panic=-1",
    "reboot=k",
    // The host's RDRAND and virtio-rng seed it; nobody shall wait for entropy.
    "random.trust_cpu=on",
    "cryptomgr.notests",
    // There is no PIT whose interrupt could be checked.
    "no_timer_check",
];

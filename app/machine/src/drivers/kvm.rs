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
    // Interfaces that these drivers would make unasked, and --network host show.
    "dummy.numdummies=0",
    "ifb.numifbs=0",
    // There is no PIT whose interrupt could be checked.
    "no_timer_check",
    // KVM keeps the time-stamp counters of all CPUs in step. Without this, Linux
    // compares them at boot and looks after them twice a second.
    "tsc=reliable",
    // With one CPU, Linux would patch each lock prefix out of itself at boot.
    "noreplace-smp",
    // Mounts, namespaces and control groups wait for RCU: not for ticks of 10 ms.
    "rcupdate.rcu_expedited=1",
    // Memory is compacted when somebody wants a large piece, not looked after twice
    // a second.
    "sysctl.vm.compaction_proactiveness=0",
];

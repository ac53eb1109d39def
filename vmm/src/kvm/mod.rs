//! The virtual machine itself: guest memory, the boot protocol, virtual CPUs and
//! interrupts, on `/dev/kvm`.
//!
//! [`open`] gets hold of KVM, [`memory`] lays out guest memory, [`boot`] puts a
//! kernel into it, [`machine`] makes the virtual machine and its virtual CPUs,
//! [`vcpu`] runs one. Called by `monitor`, and by `probe`, which runs a guest of
//! its own on the same parts. It knows of devices only that something answers at
//! an address ([`vcpu::Bus`]), and nothing of processes, sockets and sandboxes.

pub(crate) mod boot;
pub(crate) mod cpuid;
pub(crate) mod io_apic;
pub(crate) mod layout;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod mp_table;
pub(crate) mod open;
pub(crate) mod registers;
pub(crate) mod vcpu;

/// Guest memory, as devices see it.
pub(crate) type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// A step of KVM's that failed.
#[derive(Debug, thiserror::Error)]
#[error("KVM could not {step}: {source}")]
pub(crate) struct Error {
    step: &'static str,
    source: kvm_ioctls::Error,
}

impl Error {
    /// For `map_err`: names the step that failed.
    pub(crate) fn at(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self { step, source }
    }
}

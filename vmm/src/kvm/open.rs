//! Getting hold of `/dev/kvm`, with errors that say what to do.

use std::io;

use kvm_ioctls::{Cap, Kvm};

/// What a monitor needs of KVM beyond version 12 of its interface.
const NEEDED: [(Cap, &str); 7] = [
    (Cap::SplitIrqchip, "KVM_CAP_SPLIT_IRQCHIP"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
];

/// Why there is no KVM to use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// No such device.
    #[error(
        "/dev/kvm does not exist: the processor's virtualisation extensions are disabled or \
         missing, or the kvm_intel or kvm_amd module is not loaded"
    )]
    Missing,
    /// The device is there, but not for this user.
    #[error(
        "no permission to open /dev/kvm: add yourself to the group kvm \
         (`sudo usermod -aG kvm $USER`) and log in again"
    )]
    NotPermitted,
    /// Any other failure to open it.
    #[error("cannot open /dev/kvm: {0}")]
    Other(io::Error),
    /// Not the stable interface.
    #[error("/dev/kvm speaks version {0} of its interface, not 12")]
    Version(i32),
    /// Too old, or too reduced.
    #[error("this kernel's KVM lacks {0}")]
    Lacks(&'static str),
}

/// Opens `/dev/kvm` and checks that it has what a monitor needs.
pub(crate) fn open() -> Result<Kvm, OpenError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => OpenError::Missing,
        libc::EACCES | libc::EPERM => OpenError::NotPermitted,
        errno => OpenError::Other(io::Error::from_raw_os_error(errno)),
    })?;
    let version = kvm.get_api_version();
    if version != 12 {
        return Err(OpenError::Version(version));
    }
    for (capability, name) in NEEDED {
        if !kvm.check_extension(capability) {
            return Err(OpenError::Lacks(name));
        }
    }
    Ok(kvm)
}

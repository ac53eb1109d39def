//! How a monitor can end. Each end has an exit code of its own, which the
//! machine drivers turn back into the reason with [`Reason::from_code`].

use std::process::ExitCode;

/// Why a monitor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The guest powered itself off, or was asked to and did.
    PoweredOff,
    /// Powered off by force: the guest had no say.
    Forced,
    /// The guest asked for a reset.
    Reset,
    /// A virtual CPU ended in a triple fault.
    TripleFault,
    /// KVM could not go on (`KVM_EXIT_INTERNAL_ERROR`, `KVM_EXIT_FAIL_ENTRY`).
    KvmInternalError,
    /// The guest's kernel panicked.
    GuestPanic,
    /// The configuration, kernel, initramfs or a disk is unusable.
    BadConfiguration,
    /// /dev/kvm is missing, not permitted, or lacks something.
    KvmUnavailable,
    /// Another monitor has the machine's lock.
    Locked,
    /// The monitor itself failed.
    Failed,
}

impl Reason {
    const ALL: [(Self, u8); 10] = [
        (Self::PoweredOff, 0),
        (Self::Failed, 1),
        (Self::BadConfiguration, 2),
        (Self::Forced, 10),
        (Self::Reset, 11),
        (Self::TripleFault, 12),
        (Self::KvmInternalError, 13),
        (Self::GuestPanic, 14),
        (Self::KvmUnavailable, 15),
        (Self::Locked, 16),
    ];

    /// The exit code that says so.
    pub fn code(self) -> u8 {
        Self::ALL
            .iter()
            .find(|(reason, _)| *reason == self)
            .map_or(1, |(_, code)| *code)
    }

    /// The reason behind an exit code, if it is one of ours.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == code)
            .map(|(reason, _)| *reason)
    }
}

impl From<Reason> for ExitCode {
    fn from(reason: Reason) -> Self {
        ExitCode::from(reason.code())
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PoweredOff => "the machine powered off",
            Self::Forced => "the machine was powered off by force",
            Self::Reset => "the guest reset itself",
            Self::TripleFault => "the guest ended in a triple fault",
            Self::KvmInternalError => "KVM could not run the guest any further",
            Self::GuestPanic => "the guest's kernel panicked",
            Self::BadConfiguration => "the machine's configuration is unusable",
            Self::KvmUnavailable => "KVM is not available",
            Self::Locked => "the machine already runs",
            Self::Failed => "the monitor failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_lead_back() {
        for (reason, code) in Reason::ALL {
            assert_eq!(reason.code(), code);
            assert_eq!(Reason::from_code(code), Some(reason));
        }
    }
}

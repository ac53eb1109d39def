//! The text of a profile, as Docker publishes it.
//!
//! What is missing, `null` and empty mean the same. Fields that are not known are
//! comments.

use seccompiler::SeccompAction;
use serde::Deserialize;

use super::ProfileError;

/// Errno of a profile that names none: `EPERM`.
const PERMISSION_DENIED: u32 = 1;

/// The kernel has room for so large an errno (`MAX_ERRNO`).
const LARGEST_ERRNO: u32 = 4095;

/// A profile.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Text {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchitectureMap>>,
    syscalls: Option<Vec<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureMap {
    architecture: Option<String>,
    sub_architectures: Option<Vec<String>>,
}

/// What some calls are answered.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<Conditions>,
    excludes: Option<Conditions>,
}

/// What an argument of a call must be.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Argument {
    pub(super) index: u32,
    #[serde(default)]
    pub(super) value: u64,
    #[serde(default)]
    pub(super) value_two: u64,
    pub(super) op: String,
}

/// For whom an entry is, or is not.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Conditions {
    arches: Option<Vec<String>>,
    caps: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Text {
    /// Refuses what makes no sense for any container.
    pub(super) fn check(&self) -> Result<(), ProfileError> {
        let architectures = self.architectures.as_deref().unwrap_or_default();
        let maps = self.arch_map.as_deref().unwrap_or_default();
        if !architectures.is_empty() && !maps.is_empty() {
            return Err(ProfileError::BothArchitectures);
        }
        let mapped = maps.iter().flat_map(|map| {
            map.architecture
                .iter()
                .chain(map.sub_architectures.iter().flatten())
        });
        if let Some(unknown) = architectures
            .iter()
            .chain(mapped)
            .find(|name| !name.starts_with("SCMP_ARCH_"))
        {
            return Err(ProfileError::Architecture(unknown.clone()));
        }
        self.default_action()?;
        for entry in self.entries() {
            entry.action()?;
            if entry.name.is_some() && !entry.names.as_deref().unwrap_or_default().is_empty() {
                return Err(ProfileError::BothNames);
            }
            for argument in entry.arguments() {
                super::condition("", argument)?;
            }
            for conditions in [&entry.includes, &entry.excludes].into_iter().flatten() {
                conditions.kernel()?;
            }
        }
        Ok(())
    }

    pub(super) fn default_action(&self) -> Result<SeccompAction, ProfileError> {
        action(&self.default_action, self.default_errno_ret)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        self.syscalls.as_deref().unwrap_or_default()
    }
}

impl Entry {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.name
            .iter()
            .chain(self.names.iter().flatten())
            .map(String::as_str)
    }

    pub(super) fn action(&self) -> Result<SeccompAction, ProfileError> {
        action(&self.action, self.errno_ret)
    }

    pub(super) fn arguments(&self) -> &[Argument] {
        self.args.as_deref().unwrap_or_default()
    }

    pub(super) fn includes(&self) -> Option<&Conditions> {
        self.includes.as_ref()
    }

    pub(super) fn excludes(&self) -> Option<&Conditions> {
        self.excludes.as_ref()
    }
}

impl Conditions {
    pub(super) fn architectures(&self) -> impl Iterator<Item = &str> {
        self.arches.iter().flatten().map(String::as_str)
    }

    pub(super) fn capabilities(&self) -> impl Iterator<Item = &str> {
        self.caps.iter().flatten().map(String::as_str)
    }

    /// The least version of the kernel: `4.8`.
    pub(super) fn kernel(&self) -> Result<Option<(u32, u32)>, ProfileError> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let version = text
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        match version {
            Some(version) => Ok(Some(version)),
            None => Err(ProfileError::Kernel(text.to_owned())),
        }
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction, ProfileError> {
    let number = errno.unwrap_or(PERMISSION_DENIED);
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(number.min(LARGEST_ERRNO)),
        // The tracer is given 16 bits.
        "SCMP_ACT_TRACE" => SeccompAction::Trace(number & 0xffff),
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_NOTIFY" => return Err(ProfileError::Notify(name.to_owned())),
        _ => return Err(ProfileError::Action(name.to_owned())),
    })
}

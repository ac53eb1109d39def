//! `machine.toml`: what a user asks of a machine, and the defaults for the rest.
//!
//! Absent fields stay absent in the file, so that a machine moved to another host
//! gets that host's defaults.

use std::{fs, io, num::NonZeroUsize, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Destination, DriverKind, Error, Result, ShareTransport, file, paths::MachineFiles};

/// The most virtual CPUs a machine can have; the monitor's limit.
pub const MAX_CPUS: u8 = 64;
/// The least memory a machine boots with, in MiB.
pub const MIN_MEMORY_MIB: u32 = 256;

pub(crate) const MIB: u64 = 1024 * 1024;
pub(crate) const GIB: u64 = 1024 * MIB;
/// Above this, kernel threads cost more at boot than builds gain.
const DEFAULT_MAX_CPUS: u8 = 8;
/// Each GiB costs the guest 16 MiB of page structures whether it is used or not.
const DEFAULT_MAX_MEMORY_MIB: u64 = 4096;
const DEFAULT_DISK_GIB: u32 = 64;
pub(crate) const MAX_DISK_GIB: u32 = 16 * 1024;

/// The contents of `machine.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Virtual CPUs; the host's, at most 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u8>,
    /// Memory in MiB; half of the host's, at most 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Size of the data disk in GiB, 64 unless told. Sparse: it takes what is
    /// used. It can grow, never shrink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u32>,
    /// The driver; chosen by the probe unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverKind>,
    /// The user namespace of containers that ask for none; the machine's unless told.
    /// The engine's affair: it counts for containers made from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userns: Option<UserNamespace>,
    /// What containers may reach; everything when there is none. The engine's affair:
    /// it counts at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_allow: Vec<Destination>,
    /// What they may not, even if it is allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_deny: Vec<Destination>,
    /// How requests for shared files reach the host; virtio-fs unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_transport: Option<ShareTransport>,
}

/// Where the users of a machine's containers are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserNamespace {
    /// In the machine's user namespace.
    #[default]
    Host,
    /// In one of their own: their root is nobody in the machine.
    Private,
}

impl FromStr for UserNamespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "host" => Ok(Self::Host),
            "private" => Ok(Self::Private),
            _ => Err(format!("'{text}' is neither host nor private")),
        }
    }
}

impl Settings {
    /// Reads `machine.toml`; all defaults when there is none.
    ///
    /// # Errors
    /// [`Error::Settings`] when it says what cannot be, [`Error::Io`].
    pub fn load(files: &MachineFiles) -> Result<Self> {
        let path = files.settings();
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }

    /// Writes `machine.toml`; it counts from the next boot on.
    ///
    /// # Errors
    /// [`Error::Settings`] when a value is out of range, [`Error::Io`].
    pub fn save(&self, files: &MachineFiles) -> Result<()> {
        crate::paths::create_private(files.directory())?;
        self.save_as(&files.settings())
    }

    pub(crate) fn save_as(&self, path: &Path) -> Result<()> {
        self.check(path)?;
        let text = toml::to_string(self).map_err(|error| invalid(path, error.to_string()))?;
        file::replace(path, text.as_bytes())
    }

    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self> {
        let settings: Self =
            toml::from_str(text).map_err(|error| invalid(path, error.to_string()))?;
        settings.check(path)?;
        Ok(settings)
    }

    fn check(&self, path: &Path) -> Result<()> {
        self.check_ranges()
            .map_err(|problem| invalid(path, problem))
    }

    /// Says which value no machine can have, if there is one.
    pub(crate) fn check_ranges(&self) -> Result<(), String> {
        let range = |name: &str, value: Option<u64>, min: u64, max: u64| match value {
            Some(value) if !(min..=max).contains(&value) => {
                Err(format!("{name} is {value}, and must be {min} to {max}"))
            }
            _ => Ok(()),
        };
        range("cpus", self.cpus.map(u64::from), 1, MAX_CPUS.into())?;
        range(
            "memory-mib",
            self.memory_mib.map(u64::from),
            MIN_MEMORY_MIB.into(),
            1024 * 1024,
        )?;
        range(
            "disk-gib",
            self.disk_gib.map(u64::from),
            1,
            MAX_DISK_GIB.into(),
        )
    }

    /// Virtual CPUs to boot with.
    pub fn cpus(&self) -> u8 {
        self.cpus
            .unwrap_or_else(|| host_cpus().min(DEFAULT_MAX_CPUS.into()) as u8)
    }

    /// Memory to boot with, in MiB.
    pub fn memory_mib(&self) -> u32 {
        self.memory_mib.unwrap_or_else(|| {
            (host_memory_mib() / 2).clamp(MIN_MEMORY_MIB.into(), DEFAULT_MAX_MEMORY_MIB) as u32
        })
    }

    /// Size of the data disk in bytes.
    pub fn disk_bytes(&self) -> u64 {
        u64::from(self.disk_gib.unwrap_or(DEFAULT_DISK_GIB)) * GIB
    }
}

/// Processors that this process may use.
pub(crate) fn host_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The host's memory in MiB.
pub(crate) fn host_memory_mib() -> u64 {
    let system = rustix::system::sysinfo();
    system.totalram.saturating_mul(system.mem_unit.into()) / MIB
}

fn invalid(path: &Path, problem: String) -> Error {
    Error::Settings {
        origin: path.display().to_string(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::paths::Paths;

    #[test]
    fn what_is_saved_is_loaded_and_nothing_else_is_left() {
        let home = tempfile::tempdir().unwrap();
        let files = Paths::under(home.path()).machine("default").unwrap();
        assert_eq!(Settings::load(&files).unwrap(), Settings::default());
        let settings = Settings {
            cpus: Some(3),
            driver: Some(DriverKind::Qemu),
            userns: Some(UserNamespace::Private),
            share_transport: Some(ShareTransport::Vsock),
            ..Settings::default()
        };
        settings.save(&files).unwrap();
        assert_eq!(Settings::load(&files).unwrap(), settings);
        assert_eq!(
            fs::read_to_string(files.settings()).unwrap(),
            "cpus = 3\ndriver = \"qemu\"\nuserns = \"private\"\nshare-transport = \"vsock\"\n"
        );
        assert_eq!(fs::read_dir(files.directory()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_is_refused_and_named() {
        let path = Path::new("machine.toml");
        for (text, names) in [
            ("cpus = 0", "cpus"),
            ("cpus = 65", "cpus"),
            ("memory-mib = 1", "memory-mib"),
            ("disk-gib = 0", "disk-gib"),
            ("disk-gib = 99999999", "disk-gib"),
            ("driver = \"xen\"", "xen"),
            ("userns = \"remap\"", "remap"),
            ("cpu = 1", "cpu"),
            ("cpus = \"many\"", "cpus"),
        ] {
            let error = Settings::parse(text, path).unwrap_err().to_string();
            assert!(error.contains(names), "{text}: {error}");
            assert!(error.contains("machine.toml"), "{text}: {error}");
        }
    }

    #[test]
    fn defaults_are_in_range() {
        let settings = Settings::default();
        assert!((1..=DEFAULT_MAX_CPUS).contains(&settings.cpus()));
        assert!((MIN_MEMORY_MIB..=4096).contains(&settings.memory_mib()));
        assert_eq!(settings.disk_bytes(), 64 << 30);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,200}") {
            if let Ok(settings) = Settings::parse(&text, Path::new("machine.toml")) {
                prop_assert!((1..=MAX_CPUS).contains(&settings.cpus()));
                prop_assert!(settings.memory_mib() >= MIN_MEMORY_MIB);
            }
        }

        #[test]
        fn what_is_in_range_survives_the_trip(
            cpus in proptest::option::of(1..=MAX_CPUS),
            memory_mib in proptest::option::of(MIN_MEMORY_MIB..=1024 * 1024),
            disk_gib in proptest::option::of(1..=MAX_DISK_GIB),
        ) {
            let driver = Some(DriverKind::Kvm);
            let settings = Settings { cpus, memory_mib, disk_gib, driver, ..Settings::default() };
            let text = toml::to_string(&settings).unwrap();
            prop_assert_eq!(Settings::parse(&text, Path::new("machine.toml")).unwrap(), settings);
        }
    }
}

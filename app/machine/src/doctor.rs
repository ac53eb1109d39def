//! `dctl doctor`: whether machines can run on this host, and what to do if not.
//!
//! Looks and never repairs. Called by the command line; the only module here that
//! writes for a reader rather than for a caller.

use std::{fmt, fs};

use serde::Serialize;
use tokio::net::UnixStream;

use crate::{
    DEFAULT_MACHINE, DriverKind, Machine, Paths, Result, RunState, Settings, assets, disk,
    drivers::{choice, probe, qemu},
};

const GIB: u64 = 1 << 30;
/// Less free space than this is worth a warning: an image or two.
const LOW_SPACE: u64 = 2 * GIB;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Machines run, with less than there could be.
    Warning,
    /// No machine can run.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// How it is.
    pub health: Health,
    /// What was seen.
    pub detail: String,
    /// The parts of it, if it has any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Check>,
}

/// All that was looked at. `Display` is for a terminal, `Serialize` for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// dctl's version.
    pub version: String,
    /// In the order in which a machine needs them.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether nothing can run.
    pub fn is_broken(&self) -> bool {
        self.checks
            .iter()
            .any(|check| check.health == Health::Error)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "dctl {}", self.version)?;
        for check in &self.checks {
            check.write(f, 0)?;
        }
        if self.is_broken() {
            writeln!(
                f,
                "\nNo machine can run here until the errors above are mended."
            )
        } else {
            writeln!(f, "\nMachines can run here.")
        }
    }
}

impl Check {
    fn new(name: &str, health: Health, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            health,
            detail: detail.into(),
            items: Vec::new(),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let mark = match self.health {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Error => "ERROR",
        };
        let indent = "  ".repeat(depth);
        write!(f, "{indent}[{mark}] {}", self.name)?;
        match self.detail.as_str() {
            "" => writeln!(f)?,
            detail => writeln!(f, ": {detail}")?,
        }
        self.items
            .iter()
            .try_for_each(|item| item.write(f, depth + 1))
    }
}

/// Looks at everything that a machine needs.
pub async fn report(paths: &Paths) -> Report {
    let directories = directories(paths);
    let kvm = probe::kvm(paths).await;
    let qemu = qemu_check().await;
    let mut checks = vec![
        directories,
        kvm_check(&kvm),
        qemu,
        driver_check(paths).await,
        assets_check(paths).await,
        space_check(paths),
    ];
    checks.extend(machine_checks(paths).await);
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        checks,
    }
}

fn directories(paths: &Paths) -> Check {
    let result = paths
        .create()
        .and_then(|()| paths.machine(DEFAULT_MACHINE).map(drop));
    match result {
        Ok(()) => Check::new(
            "directories",
            Health::Ok,
            format!(
                "data {}, cache {}, runtime {}",
                paths.data().display(),
                paths.cache().display(),
                paths.runtime().display()
            ),
        ),
        Err(error) => Check::new("directories", Health::Error, error.to_string()),
    }
}

fn kvm_check(kvm: &Result<probe::Kvm>) -> Check {
    match kvm {
        Ok(probe::Kvm { verdict, .. }) => {
            let health = |good| if good { Health::Ok } else { Health::Warning };
            let word = if verdict.usable {
                "usable"
            } else {
                "not usable"
            };
            Check {
                items: verdict
                    .checks
                    .iter()
                    .map(|item| {
                        // The reason is that of the check that failed: once is enough.
                        let detail = item.detail.clone().unwrap_or_default();
                        let said = detail == verdict.reason;
                        Check::new(
                            &item.name,
                            health(item.passed),
                            if said { String::new() } else { detail },
                        )
                    })
                    .collect(),
                ..Check::new(
                    "KVM",
                    health(verdict.usable),
                    format!("{word}: {}", verdict.reason),
                )
            }
        }
        Err(error) => Check::new("KVM", Health::Warning, format!("not probed: {error}")),
    }
}

async fn qemu_check() -> Check {
    let Some(program) = qemu::find() else {
        return Check::new("QEMU", Health::Warning, qemu::INSTALL);
    };
    match qemu::version(&program).await {
        Ok(version) => Check::new(
            "QEMU",
            Health::Ok,
            format!("{version}, {}", program.display()),
        ),
        Err(problem) => Check::new(
            "QEMU",
            Health::Warning,
            format!("{} does not run: {problem}", program.display()),
        ),
    }
}

async fn driver_check(paths: &Paths) -> Check {
    let settings = match paths
        .machine(DEFAULT_MACHINE)
        .and_then(|files| Settings::load(&files))
    {
        Ok(settings) => settings,
        Err(error) => return Check::new("driver", Health::Error, error.to_string()),
    };
    match choice::choose(paths, &settings, None).await {
        Ok(choice) if choice.forced => Check::new(
            "driver",
            Health::Ok,
            format!("{}, {}", choice.driver, choice.reason),
        ),
        Ok(choice) => match choice.driver {
            DriverKind::Kvm => Check::new("driver", Health::Ok, "kvm"),
            DriverKind::Qemu => Check::new(
                "driver",
                Health::Warning,
                "qemu, because KVM is not usable: machines run, several times slower",
            ),
        },
        Err(error) => Check::new("driver", Health::Error, error.to_string()),
    }
}

async fn assets_check(paths: &Paths) -> Check {
    let paths = paths.clone();
    let checked = crate::blocking::blocking(move || {
        assets::starter_image()?;
        assets::guest(&paths)?;
        assets::digests()
    });
    match checked.await {
        Ok(digests) => Check {
            items: digests
                .into_iter()
                .map(|(name, digest)| Check::new(name, Health::Ok, format!("sha256 {digest}")))
                .collect(),
            ..Check::new("assets", Health::Ok, "embedded, unpacked and intact")
        },
        Err(error) => Check::new("assets", Health::Error, error.to_string()),
    }
}

fn space_check(paths: &Paths) -> Check {
    match disk::free_space(paths.data()) {
        Ok(free) => {
            let health = if free < LOW_SPACE {
                Health::Warning
            } else {
                Health::Ok
            };
            Check::new(
                "disk space",
                health,
                format!("{} GiB free in {}", tenths(free), paths.data().display()),
            )
        }
        Err(error) => Check::new("disk space", Health::Warning, error.to_string()),
    }
}

async fn engine_check(paths: &Paths, machine: &str) -> Check {
    let socket = match paths.engine(machine) {
        Ok(files) => files.socket(),
        Err(error) => return Check::new("engine", Health::Error, error.to_string()),
    };
    let detail = match UnixStream::connect(&socket).await {
        Ok(_) => format!("runs, {}", socket.display()),
        Err(_) if fs::symlink_metadata(&socket).is_ok() => format!(
            "does not run (it starts when it is needed); its old socket is still there, {}",
            socket.display()
        ),
        Err(_) => format!(
            "does not run (it starts when it is needed), {}",
            socket.display()
        ),
    };
    Check::new("engine", Health::Ok, detail)
}

async fn machine_checks(paths: &Paths) -> Vec<Check> {
    let names = match paths.machines() {
        Ok(mut names) => {
            // There is always the engine that makes it.
            if !names.iter().any(|name| name == DEFAULT_MACHINE) {
                names.insert(0, DEFAULT_MACHINE.to_owned());
            }
            names
        }
        Err(error) => return vec![Check::new("machines", Health::Error, error.to_string())],
    };
    let mut checks = Vec::with_capacity(names.len());
    for name in names {
        let title = format!("machine {name}");
        let status = match Machine::open(paths, &name) {
            Ok(machine) => machine.status().await,
            Err(error) => Err(error),
        };
        let engine = engine_check(paths, &name).await;
        let check = match status {
            Ok(status) => {
                let health = match status.state {
                    RunState::Unresponsive => Health::Warning,
                    _ => Health::Ok,
                };
                let driver = status
                    .driver
                    .map(|choice| format!(" on {}", choice.driver))
                    .unwrap_or_default();
                Check::new(
                    &title,
                    health,
                    format!(
                        "{}{driver}, {} CPUs, {} MiB, disk {} GiB of {} GiB used",
                        status.state,
                        status.cpus,
                        status.memory_mib,
                        tenths(status.disk_used),
                        tenths(status.disk_size),
                    ),
                )
            }
            Err(error) => Check::new(&title, Health::Warning, error.to_string()),
        };
        checks.push(Check {
            items: vec![engine],
            ..check
        });
    }
    checks
}

/// Bytes in GiB with one decimal.
fn tenths(bytes: u64) -> String {
    let tenths = bytes / (GIB / 10);
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_anywhere_is_broken_and_a_warning_is_not() {
        let report = |health| Report {
            version: "1".into(),
            checks: vec![
                Check::new("a", Health::Ok, "fine"),
                Check::new("b", health, "so so"),
            ],
        };
        assert!(!report(Health::Warning).is_broken());
        assert!(report(Health::Error).is_broken());
        let text = report(Health::Error).to_string();
        assert!(text.contains("[ERROR] b: so so"), "{text}");
    }

    #[tokio::test]
    async fn directories_that_cannot_be_used_are_an_error() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("run"), b"in the way").unwrap();
        let check = directories(&Paths::under(home.path()));
        assert_eq!(check.health, Health::Error);
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(tenths(0), "0.0");
        assert_eq!(tenths(64 * GIB), "64.0");
        assert_eq!(tenths(GIB + GIB / 2), "1.5");
    }
}

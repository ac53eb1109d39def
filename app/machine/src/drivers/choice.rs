//! Chooses the driver: by force (flag, `DCTL_DRIVER`, `machine.toml`), otherwise
//! by the probe.

use std::{env, fmt};

use serde::{Deserialize, Serialize};

use super::{DriverKind, probe, qemu};
use crate::{Error, Paths, Result, Settings};

/// A driver, and why that one. Shown to a user as one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Which.
    pub driver: DriverKind,
    /// Why.
    pub reason: String,
    /// Whether a user asked for it.
    pub forced: bool,
    /// Whether the host was probed for it just now: the time to tell the user.
    #[serde(default)]
    pub fresh: bool,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver {}: {}", self.driver, self.reason)
    }
}

/// Chooses; `flag` is what the command line asks for.
pub(crate) async fn choose(
    paths: &Paths,
    settings: &Settings,
    flag: Option<DriverKind>,
) -> Result<Choice> {
    match forced(settings, flag, env::var("DCTL_DRIVER").ok().as_deref())? {
        Some((driver, by)) => {
            let problem = match driver {
                DriverKind::Qemu => qemu::find().is_none().then(|| qemu::INSTALL.to_owned()),
                DriverKind::Kvm => {
                    let verdict = probe::kvm(paths).await?.verdict;
                    (!verdict.usable).then_some(verdict.reason)
                }
            };
            match problem {
                Some(problem) => Err(Error::DriverUnusable {
                    driver,
                    by: by.to_owned(),
                    problem,
                }),
                None => Ok(Choice {
                    driver,
                    reason: format!("asked for by {by}"),
                    forced: true,
                    fresh: false,
                }),
            }
        }
        None => by_probe(probe::kvm(paths).await?, qemu::find().is_some()),
    }
}

fn by_probe(kvm: probe::Kvm, have_qemu: bool) -> Result<Choice> {
    let probe::Kvm {
        verdict: kvm,
        fresh,
    } = kvm;
    let driver = match (kvm.usable, have_qemu) {
        (true, _) => DriverKind::Kvm,
        (false, true) => DriverKind::Qemu,
        (false, false) => {
            return Err(Error::NoDriver {
                kvm: kvm.reason,
                qemu: qemu::INSTALL.to_owned(),
            });
        }
    };
    Ok(Choice {
        driver,
        reason: if kvm.usable {
            kvm.reason
        } else {
            format!("KVM is not usable: {}", kvm.reason)
        },
        forced: false,
        fresh,
    })
}

fn forced(
    settings: &Settings,
    flag: Option<DriverKind>,
    variable: Option<&str>,
) -> Result<Option<(DriverKind, &'static str)>> {
    if let Some(driver) = flag {
        return Ok(Some((driver, "--driver")));
    }
    match variable {
        None | Some("" | "auto") => {}
        Some(name) => {
            let driver = name.parse().map_err(|problem| Error::Settings {
                origin: "DCTL_DRIVER".into(),
                problem,
            })?;
            return Ok(Some((driver, "DCTL_DRIVER")));
        }
    }
    Ok(settings.driver.map(|driver| (driver, "machine.toml")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(usable: bool) -> probe::Kvm {
        probe::Kvm {
            verdict: dctl_vmm::probe::Verdict {
                usable,
                reason: "seen".into(),
                checks: Vec::new(),
            },
            fresh: true,
        }
    }

    #[test]
    fn the_probe_chooses_kvm_when_it_is_usable_and_qemu_otherwise() {
        assert_eq!(
            by_probe(verdict(true), true).unwrap().driver,
            DriverKind::Kvm
        );
        assert_eq!(
            by_probe(verdict(true), false).unwrap().driver,
            DriverKind::Kvm
        );
        let choice = by_probe(verdict(false), true).unwrap();
        assert_eq!(choice.to_string(), "driver qemu: KVM is not usable: seen");
    }

    #[test]
    fn without_either_the_error_says_why_and_what_to_install() {
        let error = by_probe(verdict(false), false).unwrap_err().to_string();
        assert!(error.contains("seen"), "{error}");
        assert!(error.contains("apt install qemu-system-x86"), "{error}");
    }

    #[test]
    fn the_flag_wins_over_the_variable_and_that_over_the_file() {
        let settings = Settings {
            driver: Some(DriverKind::Kvm),
            ..Settings::default()
        };
        let by = |flag, variable| forced(&settings, flag, variable).unwrap();
        assert_eq!(
            by(Some(DriverKind::Qemu), Some("kvm")),
            Some((DriverKind::Qemu, "--driver"))
        );
        assert_eq!(
            by(None, Some("qemu")),
            Some((DriverKind::Qemu, "DCTL_DRIVER"))
        );
        assert_eq!(
            by(None, Some("auto")),
            Some((DriverKind::Kvm, "machine.toml"))
        );
        assert_eq!(forced(&Settings::default(), None, None).unwrap(), None);
        let error = forced(&settings, None, Some("xen")).unwrap_err();
        assert!(error.to_string().contains("DCTL_DRIVER"), "{error}");
    }
}

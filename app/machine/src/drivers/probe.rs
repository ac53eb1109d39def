//! Whether this host's KVM can run a machine.
//!
//! What can change at any time (the device, permission) is looked at each time.
//! Whether a guest runs well is found out by `dctl vmm --probe`, a process of its
//! own because a bad KVM may hang or kill it; its verdict holds until the host
//! reboots.

use std::{fs, io, path::Path, process::Stdio, time::Duration};

use dctl_vmm::probe::Verdict;
use serde::{Deserialize, Serialize};

use crate::{Paths, Result, console, file, monitor::process::executable};

const KVM: &str = "/dev/kvm";
/// The probe's guest runs for milliseconds; this is for hosts that hang.
const PROBE_WITHIN: Duration = Duration::from_secs(10);

/// What is known of KVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kvm {
    /// The probe's verdict; without checks when it was not reached.
    pub(crate) verdict: Verdict,
    /// Whether this was found out just now, not read from the cache.
    pub(crate) fresh: bool,
}

/// The cache file.
#[derive(Serialize, Deserialize)]
struct Cached {
    /// The host's boot that it was found out in.
    boot_id: String,
    /// The dctl that did.
    version: String,
    verdict: Verdict,
}

/// KVM's verdict, from the cache when it holds.
pub(crate) async fn kvm(paths: &Paths) -> Result<Kvm> {
    if let Err(reason) = check_device(Path::new(KVM)) {
        return Ok(unusable(reason, false));
    }
    let boot_id = boot_id();
    let cache = paths.cache().join("kvm-probe.json");
    if let Some(verdict) = boot_id.as_deref().and_then(|id| cached(&cache, id)) {
        return Ok(Kvm {
            verdict,
            fresh: false,
        });
    }
    let verdict = match run().await? {
        Outcome::Verdict(verdict) => verdict,
        // Says something of this moment, not of the host.
        Outcome::Failed(reason) => return Ok(unusable(reason, true)),
    };
    if let Some(boot_id) = boot_id {
        let cached = Cached {
            boot_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            verdict: verdict.clone(),
        };
        let saved = crate::paths::create_private(paths.cache()).and_then(|()| {
            let json = serde_json::to_vec_pretty(&cached)
                .map_err(|error| crate::Error::io("write", &cache, io::Error::other(error)))?;
            file::replace(&cache, &json)
        });
        if let Err(error) = saved {
            tracing::warn!(%error, "the probe will run again next time");
        }
    }
    Ok(Kvm {
        verdict,
        fresh: true,
    })
}

fn cached(cache: &Path, boot_id: &str) -> Option<Verdict> {
    // Anything unreadable is as good as nothing.
    let cached: Cached = serde_json::from_slice(&fs::read(cache).ok()?).ok()?;
    (cached.boot_id == boot_id && cached.version == env!("CARGO_PKG_VERSION"))
        .then_some(cached.verdict)
}

fn check_device(device: &Path) -> Result<(), String> {
    let Err(error) = fs::OpenOptions::new().read(true).write(true).open(device) else {
        return Ok(());
    };
    Err(match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{} does not exist (no hardware virtualization, or the kvm module is not loaded)",
            device.display()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "no permission for {}: join its group (`sudo usermod -aG kvm $USER`, then log in again)",
            device.display()
        ),
        _ => format!("cannot open {}: {error}", device.display()),
    })
}

enum Outcome {
    Verdict(Verdict),
    Failed(String),
}

async fn run() -> Result<Outcome> {
    let executable = executable()?;
    let output = tokio::process::Command::new(&executable)
        .args([super::kvm::SUBCOMMAND, "--probe"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(PROBE_WITHIN, output).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(crate::Error::io("run", &executable, error)),
        Err(_) => {
            return Ok(Outcome::Failed(format!(
                "a test guest hung for {} s",
                PROBE_WITHIN.as_secs()
            )));
        }
    };
    Ok(match serde_json::from_slice::<Verdict>(&output.stdout) {
        Ok(verdict) => Outcome::Verdict(verdict),
        Err(_) => Outcome::Failed(format!(
            "the test guest ended without a verdict ({}{})",
            output.status,
            console::last_line(&output.stderr)
                .map(|line| format!(": {line}"))
                .unwrap_or_default()
        )),
    })
}

fn unusable(reason: String, fresh: bool) -> Kvm {
    Kvm {
        verdict: Verdict {
            usable: false,
            reason,
            checks: Vec::new(),
        },
        fresh,
    }
}

/// Changes with each boot of the host.
fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_told_as_such() {
        let directory = tempfile::tempdir().unwrap();
        let reason = check_device(&directory.path().join("kvm")).unwrap_err();
        assert!(reason.contains("does not exist"), "{reason}");
        let reason = check_device(directory.path()).unwrap_err();
        assert!(reason.contains("cannot open"), "{reason}");
    }

    #[test]
    fn a_verdict_holds_for_one_boot_and_one_version() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("kvm-probe.json");
        let save = |version: &str| {
            let content = Cached {
                boot_id: "this boot".into(),
                version: version.into(),
                verdict: unusable("too slow".into(), true).verdict,
            };
            fs::write(&cache, serde_json::to_vec(&content).unwrap()).unwrap();
        };
        assert_eq!(cached(&cache, "this boot"), None);
        save(env!("CARGO_PKG_VERSION"));
        assert_eq!(cached(&cache, "this boot").unwrap().reason, "too slow");
        assert_eq!(cached(&cache, "the next"), None);
        save("0.0.0");
        assert_eq!(cached(&cache, "this boot"), None);
    }
}

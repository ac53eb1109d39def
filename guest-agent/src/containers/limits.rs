//! Setting the limits of a running container: the `resources` of its OCI
//! specification written to its cgroup, as the runtime does when it makes one.
//!
//! Source: `Documentation/admin-guide/cgroup-v2.rst`; the OCI runtime
//! specification, `config-linux.md`.

use std::{fs, io, path::Path};

use guest_protocol::AgentError;
use serde_json::Value;

use crate::error::Result;

/// What takes a limit away.
const NONE: &str = "max";

/// Docker's period, in microseconds, where none is given.
const PERIOD: i64 = 100_000;

/// Brings `cgroup` from the limits in `old` to those in `new`. Gives warnings of those
/// that the kernel has no controller for, which had no effect at the start either.
///
/// # Errors
/// When the kernel refuses one of them; those before it are set.
pub(super) fn set(cgroup: &Path, old: &Value, new: &Value) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for (file, value) in changed(&files(old), files(new)) {
        let path = cgroup.join(file);
        if cgroup.exists() && !path.exists() {
            warnings.push(format!(
                "Your kernel does not support {file}. It is not set."
            ));
            continue;
        }
        fs::write(path, &value).map_err(|error| refused(file, &value, &error))?;
    }
    Ok(warnings)
}

/// What is to be written: what is new, and for limits that are gone the kernel's
/// default.
fn changed(
    old: &[(&'static str, String)],
    new: Vec<(&'static str, String)>,
) -> Vec<(&'static str, String)> {
    let gone = old
        .iter()
        .filter(|(file, _)| !new.iter().any(|(known, _)| known == file))
        .map(|(file, _)| (*file, default(file).to_owned()));
    let gone: Vec<_> = gone.collect();
    new.into_iter()
        .filter(|change| !old.contains(change))
        .chain(gone)
        .collect()
}

/// What a file holds when nothing is asked for.
fn default(file: &str) -> &'static str {
    match file {
        "cpu.weight" | "io.weight" => "100",
        "cpuset.cpus" | "cpuset.mems" => "\n",
        "memory.low" => "0",
        _ => NONE,
    }
}

fn refused(file: &str, value: &str, error: &io::Error) -> AgentError {
    AgentError::system(format!(
        "failed to write {value:?} to the container's {file}: {error}"
    ))
}

/// The cgroup's files and what they are to hold.
fn files(resources: &Value) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    let cpu = &resources["cpu"];
    if let Some(shares) = cpu["shares"].as_u64() {
        files.push(("cpu.weight", weight(shares).to_string()));
    }
    let (quota, period) = (cpu["quota"].as_i64(), cpu["period"].as_i64());
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0);
        let quota = quota.map_or_else(|| NONE.to_owned(), |quota| quota.to_string());
        files.push(("cpu.max", format!("{quota} {}", period.unwrap_or(PERIOD))));
    }
    for (name, file) in [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")] {
        if let Some(set) = cpu[name].as_str() {
            files.push((file, set.to_owned()));
        }
    }
    let memory = &resources["memory"];
    if let Some(limit) = memory["limit"].as_i64() {
        files.push(("memory.max", bytes(limit)));
        // OCI counts memory and swap together, the kernel swap alone.
        match memory["swap"].as_i64() {
            Some(..0) => files.push(("memory.swap.max", NONE.to_owned())),
            Some(swap) => files.push((
                "memory.swap.max",
                swap.saturating_sub(limit).max(0).to_string(),
            )),
            None => {}
        }
    }
    if let Some(reservation) = memory["reservation"].as_i64() {
        files.push(("memory.low", bytes(reservation)));
    }
    if let Some(limit) = resources["pids"]["limit"].as_i64() {
        files.push(("pids.max", bytes(limit)));
    }
    if let Some(weight) = resources["unified"]["io.weight"].as_str() {
        files.push(("io.weight", weight.to_owned()));
    }
    files
}

/// A number of anything, or none at all when it is not positive.
fn bytes(limit: i64) -> String {
    if limit > 0 {
        limit.to_string()
    } else {
        NONE.to_owned()
    }
}

/// The kernel's weight, 1 to 10000, for Docker's shares, 2 to 262144: the curve
/// through both ends and the defaults, 1024 and 100, that OCI runtimes agreed on in
/// 2025 and that the runtime used when the container was started.
fn weight(shares: u64) -> u64 {
    let shares = u32::try_from(shares).unwrap_or(u32::MAX).clamp(2, 262_144);
    let bits = f64::from(shares).log2();
    let exponent = (bits * bits + 125.0 * bits) / 612.0 - 7.0 / 34.0;
    (10_f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn resources_become_the_kernels_files() {
        let resources = json!({
            "cpu": {"shares": 1024, "quota": 20000, "period": 100_000, "cpus": "0-1"},
            "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
            "pids": {"limit": -1},
        });
        assert_eq!(
            files(&resources),
            [
                ("cpu.weight", "100".to_owned()),
                ("cpu.max", "20000 100000".to_owned()),
                ("cpuset.cpus", "0-1".to_owned()),
                ("memory.max", (64 << 20).to_string()),
                ("memory.swap.max", (32 << 20).to_string()),
                ("memory.low", (32 << 20).to_string()),
                ("pids.max", "max".to_owned()),
            ]
        );
        assert_eq!(files(&json!({})), []);
        assert_eq!(
            files(&json!({"cpu": {"quota": 5000}})),
            [("cpu.max", "5000 100000".to_owned())]
        );
        let unlimited = json!({"memory": {"limit": 1 << 30, "swap": -1}});
        assert_eq!(files(&unlimited)[1], ("memory.swap.max", "max".to_owned()));
        let weights = [0, 2, 512, 1024, 262_144, u64::MAX].map(weight);
        assert_eq!(weights, [1, 1, 59, 100, 10_000, 10_000]);
    }

    #[test]
    fn only_what_differs_is_written() {
        let old = json!({"cpu": {"shares": 512, "quota": 5000}, "pids": {"limit": 5}});
        let new = json!({"cpu": {"shares": 1024, "quota": 5000}});
        assert_eq!(
            changed(&files(&old), files(&new)),
            [
                ("cpu.weight", "100".to_owned()),
                ("pids.max", "max".to_owned())
            ]
        );
    }

    #[test]
    fn what_the_kernel_refuses_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("gone");
        let error = set(&nowhere, &json!({}), &json!({"pids": {"limit": 5}})).unwrap_err();
        assert!(error.message.contains("pids.max"), "{error}");
    }

    #[test]
    fn what_the_kernel_has_not_is_a_warning() {
        let cgroup = tempfile::tempdir().unwrap();
        fs::write(cgroup.path().join("pids.max"), "max").unwrap();
        let new = json!({"pids": {"limit": 5}, "cpu": {"shares": 512}});
        let warnings = set(cgroup.path(), &json!({}), &new).unwrap();
        assert!(matches!(warnings.as_slice(), [one] if one.contains("cpu.weight")));
        let limit = fs::read_to_string(cgroup.path().join("pids.max")).unwrap();
        assert_eq!(limit, "5");
    }
}

//! What a development machine needs: Debian's packages.
//! (The Rust toolchain is there already, or this would not run.)
//!
//! Nothing outside the cache is changed except by the package manager.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Places;
use crate::{lab, package, process};

/// Packages, by what needs them.
const PACKAGES: &[(&str, &[&str])] = &[
    (
        "the guest's kernel",
        &[
            "linux-source-6.12",
            "build-essential",
            "patch",
            "flex",
            "bison",
            "bc",
            "libelf-dev",
            "libssl-dev",
            "xz-utils",
            "kmod",
            "gcc-aarch64-linux-gnu",
        ],
    ),
    (
        "the guest's initial root",
        &["busybox-static", "e2fsprogs", "zstd", "file"],
    ),
    ("machines without KVM, and the lab", &["qemu-system-x86"]),
    (
        "end-to-end tests and benches",
        &[
            "docker-registry",
            "skopeo",
            "umoci",
            "buildah",
            "bzip2",
            "qemu-user-static",
            "debootstrap",
            "chromium-headless-shell",
            "crun",
            "util-linux",
            "nftables",
            "python3",
            "python3-pip",
            "python3-venv",
        ],
    ),
];

/// Installs what is missing as root; otherwise fails with the command to run.
pub(crate) fn run(places: &Places) -> Result<()> {
    let missing = missing_packages()?;
    // Nothing to do is nothing to say: tasks that need packages begin with this.
    if !missing.is_empty() {
        install(&missing)?;
    }
    package::docker_client(places)?;
    lab::fetch_kernel(places)
}

fn install(missing: &[&str]) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        println!("Installing {}", missing.join(" "));
        let apt = |arguments: &[&str]| {
            process::run(
                Command::new("apt-get")
                    .args(["--quiet", "--assume-yes"])
                    .args(arguments)
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            )
        };
        apt(&["update"])?;
        let mut arguments = vec!["install", "--no-install-recommends"];
        arguments.extend(missing);
        apt(&arguments)
    } else {
        bail!(
            "packages are missing; run\n\n  sudo apt-get install --no-install-recommends {}\n\n\
             and then this command again",
            missing.join(" ")
        );
    }
}

fn missing_packages() -> Result<Vec<&'static str>> {
    process::need("dpkg-query").context(
        "the packages are Debian's; on another system, install \
        their equals by hand",
    )?;
    let wanted = PACKAGES.iter().flat_map(|(_, packages)| *packages);
    // dpkg-query fails when a package is unknown, and prints the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${Status}\n"])
        .args(wanted.clone())
        .output()?;
    let known = String::from_utf8_lossy(&output.stdout);
    let installed: Vec<_> = known
        .lines()
        .filter_map(|line| line.strip_suffix(" install ok installed"))
        .collect();
    Ok(wanted
        .copied()
        .filter(|package| !installed.contains(package))
        .collect())
}

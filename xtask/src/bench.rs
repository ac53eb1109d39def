//! Benches: the program in `benches/`, run in the lab where a peer needs KVM.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::cache::{Key, Places};
use crate::lab;
use crate::{package, peers, process, rust};

/// Benches that run outside of the lab, on the `qemu` driver, and start the lab for
/// their peers.
const OUTSIDE: [&str; 9] = [
    "pull", "many", "logs", "memory", "ports", "egress", "shares", "api", "soak",
];
const INSIDE: [&str; 5] = ["size", "boot", "idle", "container", "run"];

/// The peer of file shares, and what it is linked with.
const VIRTIOFSD: &str = "1.14.0";
const VIRTIOFSD_LIBRARIES: [&str; 4] = [
    "libcap-ng-dev",
    "libcap-ng0",
    "libseccomp-dev",
    "libseccomp2",
];

/// Which benches.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Names of benches; all when none is named (size, boot, idle, container,
    /// run, pull, many, logs, memory, ports, egress,
    /// shares, api, soak)
    pub(crate) names: Vec<String>,
    /// How long the soak takes
    #[arg(long, default_value_t = 60)]
    pub(crate) minutes: u64,
}

/// Builds everything for use and measures it.
pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    rust::dctl(places)?;
    process::run(rust::cargo(places).args(["build", "--release", "--package", "benches"]))?;
    let command = [
        rust::release(places, "benches").display().to_string(),
        "--dctl".to_owned(),
        rust::release(places, "dctl").display().to_string(),
        "--agent".to_owned(),
        rust::agent(places)?.display().to_string(),
        "--guest".to_owned(),
        rust::guest_directory(places).display().to_string(),
    ];
    let chosen = |all: &[&'static str]| -> Vec<&'static str> {
        let wanted =
            |name: &str| options.names.is_empty() || options.names.iter().any(|it| it == name);
        all.iter().copied().filter(|name| wanted(name)).collect()
    };
    let (inside, outside) = (chosen(&INSIDE), chosen(&OUTSIDE));
    let known = inside.len() + outside.len();
    if known < options.names.len() || known == 0 {
        bail!(
            "the benches are {} and {}",
            INSIDE.join(", "),
            OUTSIDE.join(", ")
        );
    }
    if !inside.is_empty() {
        let words = inside.iter().map(|&name| name.to_owned());
        let end = lab::run(
            places,
            &lab::Options {
                memory: 6144,
                cpus: 2,
                seconds: 3600,
                output: None,
                unprivileged: false,
                netdev: lab::USER_NETWORK.to_owned(),
                environment: Vec::new(),
                command: command.iter().cloned().chain(words).collect(),
            },
        )?;
        if end != lab::End::Command(0) {
            return Ok(ExitCode::from(end.status()));
        }
    }
    if !outside.is_empty() {
        let mut benches = Command::new(&command[0]);
        benches
            .args(&command[1..])
            .arg("--lab")
            .arg(std::env::current_exe()?)
            .arg("--peers")
            .arg(peers::unpacked(places)?)
            .arg("--traffic")
            .arg(rust::traffic_program(places)?)
            .args(["--minutes", &options.minutes.to_string()]);
        if outside.contains(&"shares") {
            benches.arg("--virtiofsd").arg(virtiofsd(places)?);
        }
        process::run(
            benches
                .args(outside)
                .env("DCTL_BIN", rust::release(places, "dctl"))
                .env("DCTL_DRIVER", "qemu"),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The peer of file shares, built from crates.io.
fn virtiofsd(places: &Places) -> Result<PathBuf> {
    let key = Key::new("1")
        .with("version", VIRTIOFSD.as_bytes())
        .with("libraries", VIRTIOFSD_LIBRARIES.join(" ").as_bytes());
    let tool = places.entry("virtiofsd", &key, |work| {
        let libraries = work.join("libraries");
        for name in VIRTIOFSD_LIBRARIES {
            package::unpack(name, &libraries)?;
        }
        let libraries = libraries.join("usr/lib/x86_64-linux-gnu");
        process::run(
            rust::cargo(places)
                .current_dir("/")
                .env("CARGO_TARGET_DIR", work.join("target"))
                .env("RUSTFLAGS", format!("-L native={}", libraries.display()))
                .env("LIBSECCOMP_LIB_PATH", &libraries)
                .args(["install", "--locked", "--quiet", "virtiofsd"])
                .args(["--version", VIRTIOFSD, "--root"])
                .arg(work),
        )?;
        Ok(std::fs::remove_dir_all(work.join("target"))?)
    })?;
    Ok(tool.join("bin/virtiofsd"))
}

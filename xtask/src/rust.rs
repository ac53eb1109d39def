//! What cargo builds for the guest and for use: static programs and `dctl`.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cache::{self, Key, Places};
use crate::{assets, process, sources};

/// The only target of guest programs on this architecture; naming it keeps
/// their flags away from build scripts and procedural macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Static and at a fixed address: PID 1 has no loader, and nothing to relocate
/// is a page less to touch at each boot.
const STATIC: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// cargo, working on this repository.
pub(crate) fn cargo(places: &Places) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(&places.repository)
        .env("CARGO_TARGET_DIR", &places.target)
        .env("DCTL_ASSETS", &places.assets);
    // Build scripts that look at them (ring's does) would run anew, and all that depends on
    // them be compiled anew, whenever it is another package or checkout that asks.
    for (variable, _) in std::env::vars_os() {
        if is_of_a_package(&variable) {
            command.env_remove(variable);
        }
    }
    command
}

/// Whether cargo sets a variable to tell a program what package it is of.
fn is_of_a_package(variable: &OsStr) -> bool {
    variable.to_str().is_some_and(|variable| {
        variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_")
    })
}

/// The agent, PID 1 of the guest.
pub(crate) fn agent(places: &Places) -> Result<PathBuf> {
    guest_program(places, "guest-agent", "dctl-agent")
}

/// The program in the starter image.
pub(crate) fn starter_program(places: &Places) -> Result<PathBuf> {
    guest_program(places, "starter-image", "hello")
}

/// What makes traffic in benches.
pub(crate) fn traffic_program(places: &Places) -> Result<PathBuf> {
    guest_program(places, "traffic", "traffic")
}

/// The checks of what POSIX promises, for containers of any image.
pub(crate) fn posix_checks(places: &Places) -> Result<PathBuf> {
    guest_program(places, "posix-checks", "posix-checks")
}

/// `dctl` as users get it, with everything that it embeds.
pub(crate) fn dctl(places: &Places) -> Result<PathBuf> {
    let assets = assets::build(places)?;
    let sources = sources::key(places, "dctl")?;
    let key = Key::new("dctl")
        .with("sources", sources.hex().as_bytes())
        .with_file("assets", &assets.join("SHA256SUMS"))?
        .with(
            "flags",
            std::env::var("RUSTFLAGS").unwrap_or_default().as_bytes(),
        )
        .with("profile", profile("RELEASE").as_bytes());
    let built = release(places, "dctl");
    let entry = places.entry("dctl", &key, |work| {
        sources::built_from(places, "dctl", &sources, || {
            process::run(cargo(places).args(["build", "--release", "--package", "dctl"]))
        })?;
        copy_program(&built, &work.join("dctl"))
    })?;
    // Where users look for it, also when this checkout did not build it.
    copy_program(&entry.join("dctl"), &built)?;
    Ok(built)
}

fn guest_program(places: &Places, package: &str, program: &str) -> Result<PathBuf> {
    let sources = sources::key(places, package)?;
    let key = Key::new("guest program")
        .with("sources", sources.hex().as_bytes())
        .with("target", TARGET.as_bytes())
        .with("flags", STATIC.as_bytes())
        .with("program", program.as_bytes())
        .with("profile", profile("GUEST").as_bytes());
    let entry = places.entry("guest-programs", &key, |work| {
        // A directory of its own: other flags must not throw away what `cargo build` made.
        let target = guest_directory(places).join("cargo");
        sources::built_from(places, package, &sources, || {
            process::run(
                cargo(places)
                    .env("CARGO_TARGET_DIR", &target)
                    .env("RUSTFLAGS", STATIC)
                    .args(["build", "--profile", "guest", "--target", TARGET])
                    .args(["--package", package, "--bin", program]),
            )
        })?;
        let built = target.join(TARGET).join("guest").join(program);
        copy_program(&built, &work.join(program))
    })?;
    Ok(entry.join(program))
}

/// What the environment changes of a profile.
fn profile(name: &str) -> String {
    let prefix = format!("CARGO_PROFILE_{name}_");
    let mut changes: Vec<_> = std::env::vars()
        .filter(|(variable, _)| variable.starts_with(&prefix))
        .map(|(variable, value)| format!("{variable}={value}"))
        .collect();
    changes.sort();
    changes.join("\n")
}

fn copy_program(from: &Path, to: &Path) -> Result<()> {
    cache::copy(from, to)?;
    Ok(fs::set_permissions(to, Permissions::from_mode(0o755))?)
}

/// Where guest programs and the initial root are built.
pub(crate) fn guest_directory(places: &Places) -> PathBuf {
    places.target.join("guest")
}

/// The path of a program that `cargo build --release` made.
pub(crate) fn release(places: &Places, program: &str) -> PathBuf {
    Path::new(&places.target).join("release").join(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_not_told_who_calls_it() {
        let places = Places::find().unwrap();
        let command = cargo(&places);
        let removed: Vec<_> = command
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(variable, _)| variable)
            .collect();
        for variable in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME"] {
            assert!(
                std::env::var_os(variable).is_some(),
                "cargo sets {variable}"
            );
            assert!(removed.contains(&OsStr::new(variable)), "{variable}");
        }
        assert!(!removed.contains(&OsStr::new("CARGO")));
    }
}

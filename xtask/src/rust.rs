//! What cargo builds for the guest and for use: static programs and `dctl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::assets;
use crate::cache::Places;
use crate::process;

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
    command
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
    assets::build(places)?;
    process::run(cargo(places).args(["build", "--release", "--package", "dctl"]))?;
    Ok(places.target.join("release").join("dctl"))
}

fn guest_program(places: &Places, package: &str, program: &str) -> Result<PathBuf> {
    // A directory of its own: other flags must not throw away what `cargo build` made.
    let target = guest_directory(places).join("cargo");
    process::run(
        cargo(places)
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", STATIC)
            .args(["build", "--profile", "guest", "--target", TARGET])
            .args(["--package", package, "--bin", program]),
    )?;
    Ok(target.join(TARGET).join("guest").join(program))
}

/// Where guest programs and the initial root are built.
pub(crate) fn guest_directory(places: &Places) -> PathBuf {
    places.target.join("guest")
}

/// The path of a program that `cargo build --release` made.
pub(crate) fn release(places: &Places, program: &str) -> PathBuf {
    Path::new(&places.target).join("release").join(program)
}

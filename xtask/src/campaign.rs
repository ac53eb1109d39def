//! The fault campaign: the program in `tests/campaign/`, with what it kills.

use std::process::Command;

use anyhow::Result;

use crate::cache::Places;
use crate::{process, rust};

/// How long, and which.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often something is killed
    #[arg(long, default_value_t = 200)]
    pub(crate) rounds: u32,
    /// Decides everything that is random
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Builds the campaign and runs it, as root.
pub(crate) fn run(places: &Places, options: &Options) -> Result<()> {
    process::run(rust::cargo(places).args([
        "build",
        "--package",
        "guest-agent",
        "--package",
        "campaign",
    ]))?;
    let built = places.target.join("debug");
    process::run(
        Command::new(built.join("campaign"))
            .arg("--agent")
            .arg(built.join("dctl-agent"))
            .args(["--rounds", &options.rounds.to_string()])
            .args(["--seed", &options.seed.to_string()]),
    )
}

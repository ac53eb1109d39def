//! The fault campaign: the program in `tests/campaign/`, with what it kills.

use std::process::Command;

use anyhow::Result;

use crate::cache::Places;
use crate::{process, rust};

/// How long, and which.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often the agent is killed outside of a machine
    #[arg(long, default_value_t = 1000)]
    pub(crate) rounds: u32,
    /// How often a whole machine boots, to be killed; none for the agent alone
    #[arg(long, default_value_t = 10)]
    pub(crate) boots: u32,
    /// How often a machine's power is cut, over all its boots
    #[arg(long, default_value_t = 200)]
    pub(crate) cuts: u32,
    /// Decides everything that is random
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// What CI has time for.
pub(crate) const IN_CI: Options = Options {
    rounds: 200,
    boots: 2,
    cuts: 20,
    seed: 1,
};

/// Builds the campaign and what it kills, and runs it, as root.
pub(crate) fn run(places: &Places, options: &Options) -> Result<()> {
    process::run(rust::cargo(places).args([
        "build",
        "--package",
        "guest-agent",
        "--package",
        "campaign",
    ]))?;
    let built = places.target.join("debug");
    let mut campaign = Command::new(built.join("campaign"));
    campaign
        .arg("--agent")
        .arg(built.join("dctl-agent"))
        .args(["--rounds", &options.rounds.to_string()])
        .args(["--seed", &options.seed.to_string()]);
    if options.boots > 0 {
        campaign
            .arg("--dctl")
            .arg(rust::dctl(places)?)
            .args(["--boots", &options.boots.to_string()])
            .args(["--cuts", &options.cuts.to_string()]);
    }
    process::run(&mut campaign)
}

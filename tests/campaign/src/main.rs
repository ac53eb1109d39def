//! The fault campaign: does seeded random work, kills what does it at a random
//! moment, starts it again, and compares what is there with a model of what was
//! acknowledged. Nothing acknowledged may be lost, nothing half-made be seen, no
//! space leak.
//!
//! [`agent`] kills the guest agent outside of a machine, in a PID namespace of its
//! own that goes with it as a machine would: hundreds of rounds in minutes.
//! [`machine`] boots whole machines, kills engine and monitor, and cuts the power.
//!
//! `cargo xtask campaign` builds what is needed and calls this.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose report is its output"
)]

mod agent;
mod findings;
mod machine;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Result;
use clap::Parser;

use crate::findings::Findings;

#[derive(Parser)]
#[command(
    name = "campaign",
    about = "Kills dctl's parts and looks at what is left"
)]
struct Arguments {
    /// The agent, `dctl-agent`
    #[arg(long)]
    agent: PathBuf,
    /// How often the agent is killed
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// `dctl` as users get it: a whole machine is killed, too
    #[arg(long, value_name = "FILE")]
    dctl: Option<PathBuf>,
    /// How often a whole machine boots, to be killed
    #[arg(long, default_value_t = 2)]
    boots: u32,
    /// How often its power is cut
    #[arg(long, default_value_t = 40)]
    cuts: u32,
    /// Decides everything that is random; printed, for a second try
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the data for a look at it
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("campaign: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tells whether nothing was found.
fn run(arguments: &Arguments) -> Result<bool> {
    let began = Instant::now();
    let mut folder = tempfile::Builder::new().prefix("campaign-").tempdir()?;
    folder.disable_cleanup(arguments.keep);
    let mut findings = Findings::default();
    let done = agent::campaign(
        &arguments.agent,
        folder.path(),
        arguments.rounds,
        arguments.seed,
        &mut findings,
    )?;
    println!(
        "agent: seed {}, {} rounds, {} calls acknowledged, {} cut off, {} findings, {} s",
        arguments.seed,
        done.rounds,
        done.acknowledged,
        done.cut_off,
        findings.count(),
        began.elapsed().as_secs()
    );
    if let Some(dctl) = &arguments.dctl {
        let began = Instant::now();
        let before = findings.count();
        // Short: sockets lie in it.
        let home = tempfile::Builder::new()
            .prefix("campaign-")
            .tempdir_in("/tmp")?;
        let plan = machine::Plan {
            boots: arguments.boots,
            cuts: arguments.cuts,
            seed: arguments.seed,
        };
        let done = machine::campaign(dctl, &arguments.agent, home.path(), plan, &mut findings)?;
        println!(
            "machine: seed {}, {} boots ended by a kill, {} power cuts that lost {} blocks, {} of them booted with, {} calls acknowledged, {} findings, {} s",
            arguments.seed,
            done.boots,
            done.cuts,
            done.lost,
            done.cuts_booted,
            done.acknowledged,
            findings.count() - before,
            began.elapsed().as_secs()
        );
    }
    if arguments.keep {
        println!("the data is in {}", folder.path().display());
    }
    Ok(findings.count() == 0)
}

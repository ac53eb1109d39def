//! Benches: what dctl costs, beside a peer that does the same, in one run.
//!
//! `cargo xtask bench` runs this program in the lab, as root; the benches from
//! `pull` on outside of it, where they start the lab for their peers. What it prints are
//! ratios, with the figures that they come from; times by themselves say nothing
//! on a software processor. Nothing here is installed on a user's machine.

#![allow(
    clippy::cast_precision_loss,
    reason = "figures are printed with one decimal"
)]

mod agent;
mod api;
mod boot;
mod container;
mod egress;
mod held;
mod idle;
mod many;
mod network;
mod peers;
mod ports;
mod pull;
mod relay;
mod run;
mod shares;
mod size;
mod soak;
mod statistics;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;

#[derive(Parser)]
#[command(about = "Measures dctl beside its peers; run in the lab")]
struct Options {
    /// dctl, built for use
    #[arg(long)]
    dctl: PathBuf,
    /// The agent, static
    #[arg(long)]
    agent: PathBuf,
    /// Where vmlinux and initramfs.cpio are
    #[arg(long)]
    guest: PathBuf,
    /// The program that runs the lab, for benches that run outside of it
    #[arg(long)]
    lab: Option<PathBuf>,
    /// Where the peers' Debian packages are unpacked
    #[arg(long)]
    peers: Option<PathBuf>,
    /// The program that makes traffic, static
    #[arg(long)]
    traffic: Option<PathBuf>,
    /// virtiofsd, the peer of file shares
    #[arg(long)]
    virtiofsd: Option<PathBuf>,
    /// How often each measurement is taken; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long the soak takes
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Benches; all when none is named
    names: Vec<String>,
}

impl Options {
    fn traffic(&self) -> Result<&Path> {
        self.traffic
            .as_deref()
            .context("the program that makes traffic was not named (--traffic)")
    }
}

type Bench = fn(&Options) -> Result<()>;

const BENCHES: [(&str, &str, Bench); 14] = [
    (
        "size",
        "the installed program, and what is in it",
        size::run,
    ),
    (
        "boot",
        "monitor's start to agent ready, beside QEMU's microvm on KVM",
        boot::run,
    ),
    ("idle", "VM exits a second of a machine at rest", idle::run),
    (
        "container",
        "the agent's create and start, beside `crun run`",
        container::run,
    ),
    (
        "run",
        "a warm `dctl run --rm`, and where the time goes",
        run::run,
    ),
    (
        "pull",
        "an image of 500 MB pulled and unpacked, beside Podman and Docker",
        pull::run,
    ),
    (
        "many",
        "50 containers started, beside Podman",
        many::containers,
    ),
    (
        "logs",
        "a log of 100 MB written and read, beside Podman",
        many::logs,
    ),
    (
        "memory",
        "what the agent keeps of 100 containers",
        many::memory,
    ),
    (
        "ports",
        "a published port, beside a user-space proxy and ssh -L",
        ports::run,
    ),
    (
        "egress",
        "the way out, beside slirp4netns and passt",
        egress::run,
    ),
    (
        "shares",
        "a folder of the host, beside virtiofsd",
        shares::run,
    ),
    (
        "api",
        "requests beside dockerd, and what ten thousand of them leave",
        api::run,
    ),
    (
        "soak",
        "mixed traffic for an hour, and what is held meanwhile",
        soak::run,
    ),
];

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Above this share of waiting processes, in percent, a run is worth a warning.
const BUSY: f64 = 10.0;

/// How much of the last ten seconds some process waited for a processor, in percent;
/// unknown without the kernel's pressure accounting.
fn waiting_for_processors() -> Option<f64> {
    let pressure = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let some = pressure.lines().find(|line| line.starts_with("some"))?;
    let average = some.split(' ').find_map(|it| it.strip_prefix("avg10="))?;
    average.parse().ok()
}

fn measure(options: &Options) -> Result<()> {
    if let Some(waiting) = waiting_for_processors().filter(|waiting| *waiting > BUSY) {
        println!(
            "The processors are busy ({waiting:.0} % of the time something waits): with automatic \
             groups of the scheduler each session gets the same share of them, whatever its nice \
             value, and dctl's engine and monitor are sessions of their own."
        );
    }
    for name in &options.names {
        if !BENCHES.iter().any(|(known, ..)| known == name) {
            let known: Vec<_> = BENCHES.iter().map(|(name, ..)| *name).collect();
            bail!("no bench {name}; there are {}", known.join(", "));
        }
    }
    for (name, description, bench) in BENCHES {
        if options.names.is_empty() || options.names.iter().any(|it| it == name) {
            println!("\n{name}: {description}");
            bench(options)?;
        }
    }
    Ok(())
}

//! Podman and Docker, as Debian has them, in the lab: a Linux on a software
//! processor, as the machine of dctl's `qemu` driver is. They reach a registry of
//! this machine as dctl does.
//!
//! What they have better: their storage is memory, no disk. What they have worse:
//! all of theirs runs on the software processor, of dctl only the guest's part.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::Options;

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// `podman`, with crun.
    Podman,
    /// `dockerd` and its client.
    Docker,
}

impl Peer {
    /// Its name, for people and for the script.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }
}

/// The loopback interface of the lab's host, seen from within the lab.
pub(crate) const HOST: &str = "10.0.2.2";

/// What a lab may take, in seconds: its boot, and tasks of a few commands.
pub(crate) const SHORT: u32 = 1200;

const SCRIPT: &str = concat!(include_str!("dockerd.sh"), include_str!("peers.sh"));

/// What a task printed: names and milliseconds.
#[derive(Debug)]
pub(crate) struct Figures(Vec<(String, f64)>);

impl Figures {
    /// A line for each: its name and its value.
    pub(crate) fn read(text: &str) -> Self {
        let figures = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(figures.collect())
    }

    /// All of one name, in order.
    pub(crate) fn of(&self, name: &str) -> Vec<f64> {
        self.0
            .iter()
            .filter(|(it, _)| it == name)
            .map(|(_, value)| *value)
            .collect()
    }
}

/// Runs a task of the script in a lab of its own, which may take so many seconds.
pub(crate) fn measure(
    options: &Options,
    peer: Peer,
    task: &str,
    arguments: &[&str],
    seconds: u32,
) -> Result<Figures> {
    let lab = options
        .lab
        .as_ref()
        .context("the program that runs the lab was not named (--lab)")?;
    let packages = options
        .peers
        .as_ref()
        .context("the peers' packages were not named (--peers)")?;
    let output = Command::new(lab)
        .args([
            "lab",
            "--memory",
            "6144",
            "--cpus",
            "2",
            "--seconds",
            &seconds.to_string(),
        ])
        .args(["--", "/bin/sh", "-c", SCRIPT, "peers.sh"])
        .arg(packages)
        .args([peer.name(), task])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("the lab cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{} failed in the lab: {text}", peer.name());
    }
    Ok(Figures::read(&text))
}

//! Benches: the program in `benches/`, run in the lab where a peer needs KVM.

use std::process::ExitCode;

use anyhow::Result;

use crate::cache::Places;
use crate::lab;
use crate::{process, rust};

/// Which benches.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Names of benches; all when none is named (size, boot, idle, container, run)
    pub(crate) names: Vec<String>,
}

/// Builds everything for use and measures it.
pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    rust::dctl(places)?;
    process::run(rust::cargo(places).args(["build", "--release", "--package", "benches"]))?;
    let mut command = vec![
        rust::release(places, "benches").display().to_string(),
        "--dctl".to_owned(),
        rust::release(places, "dctl").display().to_string(),
        "--agent".to_owned(),
        rust::agent(places)?.display().to_string(),
        "--guest".to_owned(),
        rust::guest_directory(places).display().to_string(),
    ];
    command.extend(options.names.iter().cloned());
    let status = lab::run(
        places,
        &lab::Options {
            memory: 6144,
            cpus: 2,
            seconds: 3600,
            output: None,
            unprivileged: false,
            environment: Vec::new(),
            command,
        },
    )?;
    Ok(ExitCode::from(status))
}

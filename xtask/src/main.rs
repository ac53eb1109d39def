//! `cargo xtask`: everything around the source code of this repository.
//!
//! Set-up of a development machine, the guest's kernel and initial root, the lab
//! with a real KVM, tests and benches. Developers and `.ci/run` call it; nothing
//! that is installed on a user's machine depends on it. Outputs are written under
//! another name and renamed; what is slow to make is cached by the hash of what
//! it is made from, so a cache is never wrong, only incomplete.

mod assets;
mod bench;
mod cache;
mod campaign;
mod clients;
mod contract;
mod cpio;
mod fuzz;
mod initramfs;
mod kernel;
mod lab;
mod package;
mod peers;
mod process;
mod rust;
mod setup;
mod sources;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cache::Places;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, tests and measures dctl",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need
    Setup,
    /// Build the guest's kernel, or take it from the cache
    Kernel {
        /// The guest's architecture
        #[arg(long, value_enum, default_value_t = kernel::Arch::X86_64)]
        arch: kernel::Arch,
        /// Print the kernel's configuration instead of building it
        #[arg(long)]
        config: bool,
    },
    /// Build the agent, static
    Agent,
    /// Build the guest's initial root: agent, shell, seed of the data disk
    Initramfs,
    /// Build everything that a machine boots from, compressed for embedding
    Assets,
    /// Build dctl for use, with everything that it embeds
    Build,
    /// Build dctl and run it: `cargo xtask run -- run hello`
    Run {
        /// Arguments of dctl
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a command in a virtual machine that has a real /dev/kvm
    Lab(lab::Options),
    /// Fetch the clients of other people that tests drive; print where they are
    Clients,
    /// Run what CI runs, or the stages named
    Test(test::Options),
    /// Measure, and print ratios
    Bench(bench::Options),
    /// Kill what runs at random moments, and look at what is left
    Campaign(campaign::Options),
    /// Record what a real dockerd answers, or compare an engine with it
    #[command(subcommand)]
    Contract(contract::Task),
    /// Run the fuzz targets, each for a bounded time
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let places = Places::find()?;
    match task {
        Task::Setup => setup::run(&places)?,
        Task::Kernel { arch, config: true } => {
            print!("{}", kernel::configuration(&places, arch)?.text);
        }
        Task::Kernel {
            arch,
            config: false,
        } => {
            println!("{}", kernel::build(&places, arch)?.display());
        }
        Task::Agent => println!("{}", rust::agent(&places)?.display()),
        Task::Initramfs => println!("{}", initramfs::build(&places)?.display()),
        Task::Assets => println!("{}", assets::build(&places)?.display()),
        Task::Build => println!("{}", rust::dctl(&places)?.display()),
        Task::Run { arguments } => {
            setup::run(&places)?;
            let dctl = rust::dctl(&places)?;
            return Err(process::replace(&dctl, &arguments));
        }
        Task::Lab(options) => return Ok(ExitCode::from(lab::run(&places, &options)?.status())),
        Task::Clients => println!("{}", clients::fetch(&places)?.display()),
        Task::Test(options) => {
            setup::run(&places)?;
            return test::run(&places, &options);
        }
        Task::Bench(options) => return bench::run(&places, &options),
        Task::Campaign(options) => campaign::run(&places, &options)?,
        Task::Contract(task) => return contract::run(&places, &task),
        Task::Fuzz(options) => return fuzz::run(&places, &options),
    }
    Ok(ExitCode::SUCCESS)
}

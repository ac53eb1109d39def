//! Fuzz targets, each for a bounded time.
//!
//! The targets in `fuzz/` are libFuzzer programs. cargo-fuzz would ask for a
//! nightly compiler only to pass these flags; the stable one takes them with
//! `RUSTC_BOOTSTRAP`, which is set for this build and for nothing that ships.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::cache::Places;
use crate::{process, rust};

/// Coverage for libFuzzer: which edges, which comparisons.
const FLAGS: &str = "--cfg fuzzing -C debuginfo=1 -C debug-assertions -C codegen-units=1 \
    -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
    -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares";

/// Which targets, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u32,
    /// Targets; all when none is named
    pub(crate) targets: Vec<String>,
}

/// Builds the targets and runs each; the first that finds a fault ends it.
pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    let directory = places.repository.join("fuzz");
    let all = targets(&directory)?;
    for name in &options.targets {
        if !all.contains(name) {
            bail!("no fuzz target {name}; there are {}", all.join(", "));
        }
    }
    let target = places.target.join("fuzz");
    process::run(
        rust::cargo(places)
            .current_dir(&directory)
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", FLAGS)
            .args(["build", "--release", "--locked", "--bins"])
            // Naming the target keeps the flags away from build scripts.
            .args(["--target", "x86_64-unknown-linux-gnu"]),
    )?;
    let chosen: Vec<_> = all
        .into_iter()
        .filter(|name| options.targets.is_empty() || options.targets.contains(name))
        .collect();
    let targets = Targets {
        programs: target.join("x86_64-unknown-linux-gnu/release"),
        // Kept in the cache: what one run has learnt is where the next begins.
        corpora: places.cache.join("fuzz-corpus"),
        directory,
        seconds: options.seconds,
    };
    targets.run_all(&chosen)?;
    Ok(ExitCode::SUCCESS)
}

/// The built targets, and what they work with.
struct Targets {
    programs: PathBuf,
    corpora: PathBuf,
    directory: PathBuf,
    seconds: u32,
}

impl Targets {
    /// Runs each of `names`, one on each processor; the first fault ends it.
    fn run_all(&self, names: &[String]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                // After a fault nothing more is begun.
                self.run(name)
                    .inspect_err(|_| next.store(names.len(), Ordering::Relaxed))?;
            }
            Ok(())
        };
        let processors = thread::available_parallelism()?.get();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    fn run(&self, name: &str) -> Result<()> {
        let corpus = self.corpora.join(name);
        let artifacts = self.directory.join("artifacts").join(name);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&artifacts)?;
        let mut command = Command::new(self.programs.join(name));
        command
            .current_dir(&self.directory)
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args([
                "-timeout=10",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
                "-verbosity=0",
            ])
            .arg(&corpus);
        let seeds = self.directory.join("seeds").join(name);
        if seeds.is_dir() {
            command.arg(seeds);
        }
        let output = command
            .output()
            .with_context(|| format!("cannot run fuzz target {name}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!(
                "fuzz target {name} found a fault ({}); see {}\n{said}",
                output.status,
                artifacts.display()
            );
        }
        let executed = said
            .lines()
            .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
            .map_or("?", str::trim);
        println!("fuzz target {name}: {executed} inputs, nothing found");
        Ok(())
    }
}

/// The names of the `[[bin]]`s in the manifest.
fn targets(directory: &Path) -> Result<Vec<String>> {
    let manifest = directory.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)
        .with_context(|| format!("cannot read {}", manifest.display()))?;
    let names = binaries(&text);
    if names.is_empty() {
        bail!("{} names no fuzz targets", manifest.display());
    }
    Ok(names)
}

fn binaries(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[[bin]]";
        } else if let Some(name) = line.strip_prefix("name = \"").filter(|_| inside) {
            names.push(name.trim_end_matches('"').to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_binaries_and_not_the_package() {
        let manifest = "[package]\nname = \"fuzz\"\n[[bin]]\nname = \"a\"\npath = \"a.rs\"\n\
            [dependencies]\nname = \"no\"\n[[bin]]\npath = \"b.rs\"\nname = \"b\"\n";
        assert_eq!(binaries(manifest), ["a", "b"]);
    }
}

//! `cargo xtask test`: what CI runs, in the order that finds faults soonest.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cache::{Key, Places};
use crate::fuzz;
use crate::kernel::{self, Arch};
use crate::{assets, campaign, clients, lab, package, process, rust};

/// Which stages.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Stages; all when none is named
    #[arg(value_enum)]
    stages: Vec<Stage>,
    /// Seconds for each fuzz target
    #[arg(long, default_value_t = 5)]
    fuzz_seconds: u32,
    /// Seconds for requests made up of the API's description, other ones each time; without
    /// it, the same ones each time, in about a minute
    #[arg(long)]
    api_seconds: Option<u32>,
}

/// A part of the tests that can be run alone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// rustfmt changes nothing
    Format,
    /// clippy has nothing to say
    Lint,
    /// Licences and sources of dependencies, and no second version of some
    Dependencies,
    /// The documentation builds without a warning
    Doc,
    /// The guest kernel's configuration has all that users need
    Kernel,
    /// Unit and property tests, and hand-made guests on this machine's /dev/kvm
    Unit,
    /// The agent killed 200 times at random moments, and a whole machine, and its
    /// power cut
    Campaign,
    /// The commands a user types, through the driver that this machine has; shared
    /// folders with databases, compilers and a browser; other people's clients; the API
    /// fuzzed from its description
    EndToEnd,
    /// The same through the kvm driver, in the lab
    Lab,
    /// Fuzz targets
    Fuzz,
}

/// cargo-deny, built once into the cache.
const CARGO_DENY: &str = "0.20.2";

/// Runs the stages; the first that fails ends it.
pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    let all = Stage::value_variants();
    let stages: Vec<_> = all
        .iter()
        .filter(|stage| options.stages.is_empty() || options.stages.contains(stage))
        .collect();
    let mut times = Vec::new();
    for stage in stages {
        let name = stage
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned());
        println!("\n=== {name}");
        let start = Instant::now();
        stage
            .run(places, options)
            .with_context(|| format!("stage {name}"))?;
        times.push(format!("{name} {} s", start.elapsed().as_secs()));
    }
    println!("\n=== passed: {}", times.join(", "));
    Ok(ExitCode::SUCCESS)
}

impl Stage {
    fn run(self, places: &Places, options: &Options) -> Result<()> {
        let cargo = || rust::cargo(places);
        match self {
            Self::Format => process::run(cargo().args(["fmt", "--all", "--check"])),
            Self::Lint => process::run(cargo().args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "--deny",
                "warnings",
            ])),
            Self::Dependencies => dependencies(places),
            Self::Doc => process::run(
                cargo()
                    .args([
                        "doc",
                        "--workspace",
                        "--no-deps",
                        "--document-private-items",
                        "--quiet",
                    ])
                    .env("RUSTDOCFLAGS", "--deny warnings"),
            ),
            Self::Kernel => Arch::ALL
                .into_iter()
                .try_for_each(|arch| kernel::check(places, arch)),
            Self::Unit => unit(places),
            Self::Campaign => campaign::run(places, &campaign::IN_CI),
            Self::EndToEnd => end_to_end(places, options),
            Self::Lab => in_lab(places),
            Self::Fuzz => {
                fuzz::run(
                    places,
                    &fuzz::Options {
                        seconds: options.fuzz_seconds,
                        targets: Vec::new(),
                    },
                )?;
                Ok(())
            }
        }
    }
}

fn dependencies(places: &Places) -> Result<()> {
    let key = Key::new("1").with("version", CARGO_DENY.as_bytes());
    let tool = places.entry("cargo-deny", &key, |work| {
        process::run(
            rust::cargo(places)
                .current_dir("/")
                .env("CARGO_TARGET_DIR", work.join("target"))
                // It runs for a second: an optimised one is not worth its compilation.
                .args(["install", "--locked", "--quiet", "--debug", "cargo-deny"])
                .args(["--version", CARGO_DENY, "--root"])
                .arg(work),
        )?;
        Ok(std::fs::remove_dir_all(work.join("target"))?)
    })?;
    process::run(
        Command::new(tool.join("bin/cargo-deny"))
            .current_dir(&places.repository)
            // Advisories would need a database from the network.
            .args(["--workspace", "check", "--hide-inclusion-graph"])
            .args(["bans", "licenses", "sources"]),
    )
}

fn unit(places: &Places) -> Result<()> {
    // Tests of machines boot the guest that is embedded.
    assets::build(places)?;
    let mut cargo = rust::cargo(places);
    cargo.env("PATH", path_with_docker(places)?);
    let packages = ["--workspace", "--exclude", "tests"];
    if process::find("cargo-nextest").is_some() {
        cargo.args(["nextest", "run", "--no-tests", "pass"]);
    } else {
        cargo.arg("test");
    }
    process::run(cargo.args(packages))
}

/// Test programs of the package `tests` that each change has to pass.
const END_TO_END: [&str; 6] = [
    "commands", "failures", "machines", "shares", "clients", "hostile",
];

fn end_to_end(places: &Places, options: &Options) -> Result<()> {
    let dctl = rust::dctl(places)?;
    let mut cargo = rust::cargo(places);
    cargo
        .env("DCTL_BIN", dctl)
        .env("PATH", path_with_docker(places)?)
        .args(["test", "--package", "tests", "--no-fail-fast", "--lib"]);
    cargo
        .env(clients::VARIABLE, clients::fetch(places)?)
        .env("DCTL_TEST_PYTHON", schemathesis(places)?)
        .env("DCTL_POSIX_CHECKS", rust::posix_checks(places)?);
    for suite in END_TO_END {
        cargo.args(["--test", suite]);
    }
    if let Some(seconds) = options.api_seconds {
        cargo.env("DCTL_TEST_FUZZ_SECONDS", seconds.to_string());
    }
    process::run(&mut cargo)
}

/// What makes up requests, from `PyPI`.
fn schemathesis(places: &Places) -> Result<PathBuf> {
    let requirements = "tests/tests/hostile/schemathesis/requirements.txt";
    package::python(
        places,
        "schemathesis",
        &places.repository.join(requirements),
    )
}

/// `$PATH`, and after it where Docker's client is.
fn path_with_docker(places: &Places) -> Result<OsString> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(package::docker_client(places)?);
    Ok(path)
}

/// What runs in the lab: package, its test program, and which of its tests. All
/// commands and failures run in the end-to-end stage; here it is about the driver.
/// QEMU's supervisor is the other driver's, and software within software is slow.
const IN_LAB: [(&str, &str, &[&str]); 3] = [
    ("tests", "machines", &[]),
    ("dctl-machine", "machine", &["--skip", "supervisor::"]),
    (
        "tests",
        "commands",
        &[
            "run::",
            "streams::",
            "bind_mounts::files_go",
            "bind_mounts::one_file",
            "bind_mounts::read_only",
        ],
    ),
];

/// The tests of the kvm driver, with a real KVM and without privilege.
fn in_lab(places: &Places) -> Result<()> {
    let dctl = rust::dctl(places)?;
    let cache = places.cache.parent().context("the cache has a parent")?;
    for (package, test, filters) in IN_LAB {
        let executable = test_executable(places, package, test)?;
        println!("in the lab: {test} {}", filters.join(" "));
        let start = Instant::now();
        let command = std::iter::once(executable.display().to_string())
            .chain(filters.iter().copied().map(str::to_owned))
            .collect();
        let options = lab::Options {
            memory: 6144,
            cpus: 2,
            seconds: 900,
            output: None,
            netdev: lab::USER_NETWORK.to_owned(),
            unprivileged: true,
            environment: vec![
                ("DCTL_BIN", dctl.display().to_string()),
                // What the probe has to choose here.
                ("DCTL_TEST_DRIVER", "kvm".to_owned()),
                // Images that the tests made outside.
                ("XDG_CACHE_HOME", cache.display().to_string()),
            ],
            command,
        };
        if lab::run(places, &options)? != lab::End::Command(0) {
            bail!("{test} of {package} failed in the lab");
        }
        println!("in the lab: {test} {} s", start.elapsed().as_secs());
    }
    Ok(())
}

/// The program that an integration test is.
fn test_executable(places: &Places, package: &str, test: &str) -> Result<PathBuf> {
    let messages = process::output(rust::cargo(places).args([
        "test",
        "--package",
        package,
        "--test",
        test,
        "--no-run",
        "--quiet",
        "--message-format",
        "json",
    ]))?;
    messages
        .lines()
        .filter_map(|message| executable(message, test))
        .next_back()
        .with_context(|| format!("cargo built no test {test} of {package}"))
}

/// The program in one of cargo's messages, if it is about this test: the package's other
/// programs are built with it.
fn executable(message: &str, test: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    if target["name"] != test || target["kind"] != serde_json::json!(["test"]) {
        return None;
    }
    message["executable"].as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_messages() {
        let message = |kind: &str, name: &str, executable: &str| {
            format!(
                r#"{{"target":{{"kind":["{kind}"],"name":"{name}"}},"executable":{executable}}}"#
            )
        };
        let found = executable(&message("test", "a", r#""/t/a-1""#), "a");
        assert_eq!(found, Some(PathBuf::from("/t/a-1")));
        for other in [
            message("bin", "a", r#""/t/a""#),
            message("test", "b", r#""/t/b-1""#),
            message("test", "a", "null"),
            r#"{"executable":"/t/a-1"}"#.to_owned(),
            "not json".to_owned(),
        ] {
            assert_eq!(executable(&other, "a"), None, "{other}");
        }
    }
}

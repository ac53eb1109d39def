//! The API: what a request costs beside dockerd, `docker run --rm` through either, and
//! whether ten thousand requests leave anything behind.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    Installation,
    footprint::{self, Footprint},
    images,
    registry::Registry,
};

use crate::{
    Options,
    peers::{self, Figures, Peer},
    statistics::{compare, median},
};

/// Containers that there are while requests are timed.
const CONTAINERS: usize = 100;

/// What has to leave everything as it was.
const CALLS: usize = 10_000;
const EXECS: usize = 500;

/// How long dockerd may take in its lab, in seconds: a hundred containers to create and
/// to remove, each at some hundred milliseconds, and its boot.
const LAB: u32 = 2400;

pub(crate) fn run(options: &Options) -> Result<()> {
    let layout = tempfile::tempdir()?;
    images::write_busybox(layout.path());
    let registry = Registry::start();
    registry.push(layout.path(), "busybox");
    let image = registry.name("busybox");
    let rounds = (options.rounds * 2).to_string();
    let containers = CONTAINERS.to_string();
    let client = client_program()?;

    let dctl = Installation::new();
    dctl.dctl(&["pull", "--quiet", &image]).success();
    let socket = dctl.socket();
    let output = Command::new(&client)
        .arg(&socket)
        .args([&image, &containers, &rounds])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the client failed");
    let ours = Figures::read(&String::from_utf8_lossy(&output.stdout));
    let commands = commands(&dctl, &image, options.rounds * 2)?;
    let flat = leaves_nothing(&dctl, &image);
    drop(dctl);

    let port = image.split_once(':').map_or("", |(_, rest)| rest);
    let theirs = format!("{}:{port}", peers::HOST);
    let client = client.display().to_string();
    let arguments = [theirs.as_str(), &client, &containers, &rounds];
    let theirs = peers::measure(options, Peer::Docker, "api", &arguments, LAB)?;
    let middle = |figures: &Figures, name: &str| {
        median(&figures.of(name)).with_context(|| format!("{name} was not measured"))
    };
    for (name, what) in [
        ("ping", "_ping"),
        ("ping-connecting", "_ping, connecting"),
        ("ps", "list of 100 containers"),
        ("ps-connecting", "list of 100 containers, connecting"),
        ("inspect", "one of 100 containers"),
        ("inspect-connecting", "one of 100 containers, connecting"),
        ("life", "requests of `docker run --rm`"),
    ] {
        let (ours, theirs) = (middle(&ours, name)?, middle(&theirs, name)?);
        compare(what, ours, "dockerd", theirs, "ms", 1.0);
    }
    let theirs = middle(&theirs, "run")?;
    compare("`docker run --rm`", commands, "dockerd", theirs, "ms", 1.0);
    flat
}

/// The client's program, which is beside this one.
fn client_program() -> Result<PathBuf> {
    let this = env::current_exe()?;
    Ok(this.with_file_name("api-client"))
}

/// The median of `docker run --rm` of busybox's `true`, in milliseconds.
fn commands(dctl: &Installation, image: &str, rounds: usize) -> Result<f64> {
    let mut times = Vec::new();
    for number in 0..=rounds {
        let start = Instant::now();
        let status = Command::new("docker")
            .args(["run", "--rm", "--network", "none", image, "true"])
            .env("DOCKER_HOST", format!("unix://{}", dctl.socket().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("Docker's client cannot be run")?;
        ensure!(status.success(), "docker run failed");
        // The first is to warm up.
        if number > 0 {
            times.push(start.elapsed());
        }
    }
    let middle: Duration = median(&times).context("nothing was measured")?;
    Ok(middle.as_secs_f64() * 1e3)
}

/// Fails when files, processes or memory become more with use.
fn leaves_nothing(dctl: &Installation, image: &str) -> Result<()> {
    let started = dctl.dctl(&["run", "-d", image, "sleep", "1000000"]);
    let container = started.success().text();
    footprint::call(dctl, &container, CALLS / 10)?;
    footprint::exec(dctl, &container, EXECS / 10)?;
    let before = Footprint::of(dctl)?;
    footprint::call(dctl, &container, CALLS)?;
    footprint::exec(dctl, &container, EXECS)?;
    println!("  before {CALLS} calls and {EXECS} execs: {before}");
    match before.returns(dctl) {
        Ok(after) => {
            println!("  after them: {after} ok");
            Ok(())
        }
        Err(error) => bail!("what {CALLS} calls and {EXECS} execs leave: {error}"),
    }
}

//! Many containers: started in a row and at once, beside Podman; what the agent
//! keeps of a hundred; and a log of 100 MB.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tests::{Installation, images, registry::Registry};

use crate::{
    Options,
    peers::{self, Figures, Peer},
    statistics::{compare, median},
};

const MANY: usize = 50;

/// What Podman's lab may take for them, in seconds: 36 for each of the hundred starts
/// and removals, on a software processor that shares the host with others.
const PODMAN_MANY: u32 = 3600;

/// A hundred bytes to the line, so 100 MB.
const LOG: &str = "yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789 | head -n 1000000";
const LOG_BYTES: usize = 101_000_000;

/// A registry with a busybox image, and its name here and in the lab.
struct Image {
    _registry: Registry,
    here: String,
    lab: String,
}

impl Image {
    fn serve() -> Result<Self> {
        let layout = tempfile::tempdir()?;
        images::write_busybox(layout.path());
        let registry = Registry::start();
        registry.push(layout.path(), "busybox");
        let here = registry.name("busybox");
        let rest = here.split_once(':').context("a registry has a port")?.1;
        let lab = format!("{}:{rest}", peers::HOST);
        Ok(Self {
            _registry: registry,
            here,
            lab,
        })
    }
}

fn middle(figures: &Figures, name: &str) -> Result<f64> {
    median(&figures.of(name)).with_context(|| format!("{name} was not measured"))
}

/// Starts `count` containers, each after the other or all at once. Milliseconds.
fn start(dctl: &Installation, image: &str, count: usize, at_once: bool) -> Result<f64> {
    let begin = Instant::now();
    let command = || {
        let mut command = dctl.command(&["run", "-d", "--network", "none", image, "sleep", "1000"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    if at_once {
        let children: Vec<_> = (0..count)
            .map(|_| command().spawn())
            .collect::<Result<_, _>>()?;
        for mut child in children {
            ensure!(child.wait()?.success(), "a container did not start");
        }
    } else {
        for _ in 0..count {
            ensure!(command().status()?.success(), "a container did not start");
        }
    }
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

fn remove_all(dctl: &Installation) {
    let ids = dctl.dctl(&["ps", "-aq"]).success().text();
    let mut arguments = vec!["rm", "-f"];
    arguments.extend(ids.lines());
    dctl.dctl(&arguments).success();
}

/// 50 containers in a row, and 50 at once.
pub(crate) fn containers(options: &Options) -> Result<()> {
    let image = Image::serve()?;
    // Each figure is a sum over 50 containers already.
    let rounds = 1;
    let (mut rows, mut crowds) = (Vec::new(), Vec::new());
    {
        let dctl = Installation::new();
        dctl.dctl(&["run", "--rm", "--network", "none", &image.here, "true"])
            .success();
        for _ in 0..rounds {
            rows.push(start(&dctl, &image.here, MANY, false)?);
            remove_all(&dctl);
            crowds.push(start(&dctl, &image.here, MANY, true)?);
            remove_all(&dctl);
        }
    }
    let arguments = [image.lab.as_str(), &MANY.to_string(), &rounds.to_string()];
    let figures = peers::measure(options, Peer::Podman, "many", &arguments, PODMAN_MANY)?;
    for (what, ours, name) in [
        ("50 containers in a row", rows, "in-a-row"),
        ("50 containers at once", crowds, "at-once"),
    ] {
        let ours = median(&ours).context("nothing was measured")?;
        compare(what, ours, "podman", middle(&figures, name)?, "ms", 0.5);
    }
    Ok(())
}

/// A log of 100 MB, written and read.
pub(crate) fn logs(options: &Options) -> Result<()> {
    let image = Image::serve()?;
    let rounds = options.rounds.clamp(1, 3);
    let (mut write, mut reads) = (0.0, Vec::new());
    {
        let dctl = Installation::new();
        dctl.dctl(&["pull", "--quiet", &image.here]).success();
        let run = [
            "run",
            "--network",
            "none",
            "--name",
            "log",
            // The whole of it is to be there.
            "--log-opt",
            "max-size=1g",
            &image.here,
            "sh",
            "-c",
            LOG,
        ];
        let timed = |arguments: &[&str]| -> Result<f64> {
            let begin = Instant::now();
            let mut child = dctl
                .command(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut output = child.stdout.take().context("a pipe was asked for")?;
            let bytes = std::io::copy(&mut output, &mut std::io::sink())?;
            ensure!(child.wait()?.success(), "{arguments:?} failed");
            if bytes != LOG_BYTES as u64 {
                bail!("{arguments:?} gave {bytes} bytes of {LOG_BYTES}");
            }
            Ok(begin.elapsed().as_secs_f64() * 1e3)
        };
        write = timed(&run)?.max(write);
        for _ in 0..rounds {
            reads.push(timed(&["logs", "log"])?);
        }
    }
    let arguments = [image.lab.as_str(), LOG, &rounds.to_string()];
    let figures = peers::measure(options, Peer::Podman, "logs", &arguments, peers::SHORT)?;
    let read = median(&reads).context("nothing was measured")?;
    compare(
        "100 MB written",
        write,
        "podman",
        middle(&figures, "write")?,
        "ms",
        1.0,
    );
    compare(
        "100 MB of logs read",
        read,
        "podman",
        middle(&figures, "logs")?,
        "ms",
        1.0,
    );
    Ok(())
}

/// Memory of the agent with a hundred containers.
pub(crate) fn memory(_: &Options) -> Result<()> {
    let image = Image::serve()?;
    let dctl = Installation::new();
    dctl.dctl(&["run", "--rm", "--network", "none", &image.here, "true"])
        .success();
    let resident = || -> Result<f64> {
        let shell = dctl.dctl(&["machine", "shell", "cat", "/proc/1/status"]);
        let text = shell.success().text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("the agent has a size")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    };
    let before = resident()?;
    start(&dctl, &image.here, 100, false)?;
    // What starting took is given back by now, or never.
    std::thread::sleep(Duration::from_secs(5));
    let after = resident()?;
    println!(
        "  the agent: {before:.1} MiB, with 100 containers {after:.1} MiB: {:.0} KiB each",
        (after - before) * 1024.0 / 100.0
    );
    Ok(())
}

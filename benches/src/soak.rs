//! An hour of mixed traffic: what engine, monitor and agent hold must not grow.
//!
//! Connections to a published port, short, many at once, and bulk; the way out to
//! a server of this host, and names; files of a shared folder; commands in a container;
//! containers that come and go.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use ::tests::{images, registry::Registry};
use anyhow::{Context, Result, bail};

use crate::{
    Options,
    held::{Held, Process},
    network::{Network, PORT},
    statistics::median,
};

/// Between two looks at what is held.
const SAMPLE: Duration = Duration::from_secs(20);
/// What is taken for noise: open files, and KiB of memory.
const NOISE_FILES: u64 = 24;
const NOISE_MEMORY: u64 = 6 * 1024;
/// Connections that time out in the kernel's own time.
const NOISE_TRACKED: u64 = 2000;

/// In a container with the folder at /x: its files, names, and the way out.
const FILES: &str = "i=0; while [ $i -lt 50 ]; do echo text > /x/$i; cat /x/$i > /dev/null; \
     mv /x/$i /x/moved; rm /x/moved; i=$((i + 1)); done";
const NAMES: &str = "nslookup host.docker.internal > /dev/null";

pub(crate) fn run(options: &Options) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let host_port = listener.local_addr()?.port();
    thread::spawn(move || traffic::serve(&listener));
    let network = Network::start(options.traffic()?)?;
    network.serve("server", &["--publish", &format!("127.0.0.1::{PORT}")]);
    let published = network.published("server", PORT);
    let busybox = busybox(&network.registry)?;
    let folder = tempfile::tempdir()?;
    let volume = format!("{}:/x", folder.path().display());
    let detached = ["run", "--detach", "--name", "work", "--volume", &volume];
    network
        .dctl
        .dctl(&[&detached[..], &[&busybox, "sleep", "infinity"]].concat())
        .success();

    let time = Duration::from_secs(options.minutes * 60);
    let begin = Instant::now();
    let rounds = AtomicU64::new(0);
    let goes_on = || begin.elapsed() < time;
    let samples = thread::scope(|scope| -> Result<Vec<Held>> {
        let exec = |script: &str| -> Result<()> {
            let finished = network.dctl.dctl(&["exec", "work", "sh", "-c", script]);
            if finished.code() != 0 {
                bail!("{script}: {}", finished.error());
            }
            Ok(())
        };
        let (network, published, busybox, rounds) = (&network, &published, &busybox, &rounds);
        let connections = scope.spawn(move || -> Result<()> {
            while goes_on() {
                traffic::short_connections(published, 100)?;
                traffic::latencies(published, 50, 200)?;
                traffic::download(published, Duration::from_secs(1))?;
                traffic::upload(published, Duration::from_secs(1))?;
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let containers = scope.spawn(move || -> Result<()> {
            let server = format!("host.docker.internal:{host_port}");
            while goes_on() {
                exec(FILES)?;
                exec(NAMES)?;
                network.client(&[], &["short", &server, "20"]);
                network.client(&[], &["upload", &server, "1"]);
                network
                    .dctl
                    .dctl(&["run", "--rm", busybox, "true"])
                    .success();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let mut samples = Vec::new();
        while goes_on() && !connections.is_finished() && !containers.is_finished() {
            // The samples' own pace; nothing is waited for.
            thread::sleep(SAMPLE.min(time / 12));
            samples.push(Held::now(&network.dctl)?);
        }
        for worker in [connections, containers] {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a command failed; see above"),
            }
        }
        Ok(samples)
    })?;

    let quarter = samples.len() / 4;
    if quarter == 0 {
        bail!("{} samples say nothing", samples.len());
    }
    let early = typical(&samples[quarter..quarter * 2])?;
    let late = typical(&samples[samples.len() - quarter..])?;
    println!(
        "  {} minutes, {} rounds of traffic, {} samples",
        options.minutes,
        rounds.load(Ordering::Relaxed),
        samples.len()
    );
    println!("  second quarter: {early}");
    println!("  last quarter:   {late}");
    grown(&early, &late)
}

fn busybox(registry: &Registry) -> Result<String> {
    let layout = tempfile::tempdir()?;
    images::write_busybox(layout.path());
    registry.push(layout.path(), "busybox");
    Ok(registry.name("busybox"))
}

/// The median of each figure.
fn typical(samples: &[Held]) -> Result<Held> {
    let middle = |of: &dyn Fn(&Held) -> u64| {
        median(&samples.iter().map(of).collect::<Vec<_>>()).context("there are samples")
    };
    let process = |of: &dyn Fn(&Held) -> Process| -> Result<Process> {
        Ok(Process {
            files: middle(&|held| of(held).files)?,
            memory: middle(&|held| of(held).memory)?,
        })
    };
    Ok(Held {
        engine: process(&|held| held.engine)?,
        monitor: process(&|held| held.monitor)?,
        agent: process(&|held| held.agent)?,
        tracked: middle(&|held| held.tracked)?,
    })
}

/// # Errors
/// What has grown by more than noise.
fn grown(early: &Held, late: &Held) -> Result<()> {
    let mut found = Vec::new();
    for (name, early, late) in [
        ("engine", early.engine, late.engine),
        ("monitor", early.monitor, late.monitor),
        ("agent", early.agent, late.agent),
    ] {
        if late.files > early.files + NOISE_FILES {
            found.push(format!("the {name}'s open files"));
        }
        if late.memory > early.memory + early.memory / 10 + NOISE_MEMORY {
            found.push(format!("the {name}'s memory"));
        }
    }
    if late.tracked > early.tracked + NOISE_TRACKED {
        found.push("tracked connections".to_owned());
    }
    if found.is_empty() {
        println!("  flat: ok");
        return Ok(());
    }
    bail!("grown: {}", found.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_named() {
        let early = Held::default();
        grown(&early, &early).unwrap();
        let mut late = early;
        late.agent.files = NOISE_FILES + 1;
        late.monitor.memory = NOISE_MEMORY + 1;
        let error = grown(&early, &late).unwrap_err().to_string();
        assert_eq!(error, "grown: the monitor's memory, the agent's open files");
    }

    #[test]
    fn a_typical_sample_is_the_middle_one() {
        let samples = [1, 9, 5].map(|tracked| Held {
            tracked,
            ..Held::default()
        });
        assert_eq!(typical(&samples).unwrap().tracked, 5);
    }
}

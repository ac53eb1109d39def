//! The agent's create and start beside `crun run`, in one machine of ours, of a
//! container that runs one static program.
//!
//! crun comes into the machine from the host, with its libraries, onto a tmpfs
//! beside the agent. Both are told over the same vsock and in turns. What is timed
//! is what a user waits for: until the process runs for the agent, which answers
//! then; until it has ended for crun, which says nothing before.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use guest_protocol::docker::{ContainerConfig, HostConfig};
use guest_protocol::methods::{
    ContainerCreate, ContainerRemove, ContainerStart, ContainerWait, WaitCondition, WaitResult,
};

use crate::Options;
use crate::agent::{self, Agent};
use crate::statistics::{compare, median};
use crate::vm::{self, Machine, Monitor};

/// Unpacks what [`archive`] packs, with what crun needs around it.
const UNPACK: &str = "set -e; B=/bin/busybox; R=/run/bench; $B mkdir -p $R; \
    $B mount -t tmpfs bench $R; cd $R; $B tar -x -f -; \
    $B mkdir -p proc sys dev run tmp b/rootfs/proc b/rootfs/sys b/rootfs/dev; \
    for it in proc sys dev; do $B mount --rbind /$it $it; done";

/// One run for each line, and one word for each run.
const SERVE: &str = "exec /bin/busybox chroot /run/bench /bin/busybox sh -c '\
    while read name; do \
    if /usr/bin/crun --root /run/crun --cgroup-manager cgroupfs run --bundle /b $name </dev/null; \
    then echo done; else echo failed; fi; done'";

pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = vm::formatted_disk(options, folder.path())?;
    let _machine = Machine::start(options, Monitor::Ours, 1, folder.path(), &disk)?;
    let agent = Agent::new(folder.path().join("vsock.sock"));
    agent.import_busybox()?;
    agent.shell(UNPACK, &archive()?)?;
    let (_, mut crun) = agent.shell_stream(SERVE)?;
    // What comes from disk comes now.
    lifetime(&agent)?;
    crun_run(&mut crun, 0)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds * 4 {
        ours.push(lifetime(&agent)?);
        theirs.push(crun_run(&mut crun, round)?);
    }
    let middle = |part: fn(&Lifetime) -> f64| {
        let values: Vec<_> = ours.iter().map(part).collect();
        median(&values).context("nothing was measured")
    };
    let crun = median(&theirs).context("nothing was measured")?;
    let started = middle(|it| it.create + it.start)?;
    compare("create and start", started, "crun run", crun, "ms", 1.5);
    println!(
        "  create {:.1} ms, start {:.1} ms; then until it has ended {:.1} ms, removal {:.1} ms",
        middle(|it| it.create)?,
        middle(|it| it.start)?,
        middle(|it| it.end)?,
        middle(|it| it.remove)?,
    );
    let whole = middle(|it| it.create + it.start + it.end + it.remove)?;
    println!(
        "  its whole life: {whole:.1} ms, ratio {:.2} to crun's, which is whole",
        whole / crun
    );
    Ok(())
}

/// Milliseconds of a container's life.
struct Lifetime {
    create: f64,
    start: f64,
    end: f64,
    remove: f64,
}

fn lifetime(agent: &Agent) -> Result<Lifetime> {
    let mut last = Instant::now();
    let mut lap = || {
        let now = Instant::now();
        let time = now.duration_since(last);
        last = now;
        time.as_secs_f64() * 1e3
    };
    let created = agent.call(ContainerCreate {
        name: None,
        config: Box::new(ContainerConfig {
            image: Some(agent::BUSYBOX.into()),
            ..ContainerConfig::default()
        }),
        // crun's own bundle has a network namespace with nothing in it, too.
        host_config: Box::new(HostConfig {
            network_mode: Some("none".into()),
            ..HostConfig::default()
        }),
        networks: BTreeMap::new(),
    })?;
    let create = lap();
    agent.call(ContainerStart {
        container: created.id.clone(),
    })?;
    let start = lap();
    let ((), mut waiting) = agent.stream(ContainerWait {
        container: created.id.clone(),
        condition: WaitCondition::NotRunning,
    })?;
    let ended: WaitResult = agent::read_reply(&mut waiting)?;
    if ended.exit_code != 0 {
        bail!("the container ended with {}", ended.exit_code);
    }
    let end = lap();
    agent.call(ContainerRemove {
        container: created.id,
        force: false,
        volumes: true,
    })?;
    Ok(Lifetime {
        create,
        start,
        end,
        remove: lap(),
    })
}

fn crun_run(shell: &mut UnixStream, round: usize) -> Result<f64> {
    let start = Instant::now();
    writeln!(shell, "bench-{round}")?;
    let output = agent::read_output(shell)?.context("the guest's shell has ended")?;
    let time = start.elapsed();
    if output != b"done\n" {
        bail!("crun run failed: {}", String::from_utf8_lossy(&output));
    }
    Ok(time.as_secs_f64() * 1e3)
}

/// crun, its libraries, busybox to run it with, and crun's own default bundle
/// with the same program.
fn archive() -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let busybox = fs::read("/bin/busybox").context("busybox-static is not installed")?;
    agent::append(&mut archive, "bin/busybox", &busybox)?;
    agent::append(&mut archive, "b/rootfs/bin/true", &busybox)?;
    let crun = "/usr/bin/crun";
    agent::append(
        &mut archive,
        crun.trim_start_matches('/'),
        &fs::read(crun).context("crun is not installed")?,
    )?;
    let libraries = Command::new("ldd").arg(crun).output()?;
    for word in String::from_utf8_lossy(&libraries.stdout).split_whitespace() {
        if word.starts_with('/') {
            let contents = fs::read(word).with_context(|| word.to_owned())?;
            agent::append(&mut archive, word.trim_start_matches('/'), &contents)?;
        }
    }
    let folder = tempfile::tempdir()?;
    let status = Command::new(crun)
        .arg("spec")
        .current_dir(folder.path())
        .status()?;
    if !status.success() {
        bail!("crun spec failed: {status}");
    }
    let config = fs::read(folder.path().join("config.json"))?;
    let mut config: serde_json::Value = serde_json::from_slice(&config)?;
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    config["process"]["terminal"] = serde_json::json!(false);
    config["linux"]["cgroupsPath"] = serde_json::json!("/bench/crun");
    agent::append(&mut archive, "b/config.json", config.to_string().as_bytes())?;
    Ok(archive.into_inner()?)
}

//! The way out: how much goes from a container to a server of the host and back, beside
//! slirp4netns and passt, each feeding a QEMU guest on the same software processor.
//!
//! The peers' guest is the lab: Debian's kernel, a virtio network card with frames of
//! 64 KiB, and the same client outside of any container. The server is one for all, on
//! this host's loopback.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tests::installation::wait_until;

use crate::{
    Options,
    network::{Network, Rates, TRANSFER},
};

/// What a peer gets to begin.
const READY: Duration = Duration::from_secs(20);
/// Frames as large as a peer takes them, in bytes.
const MTU: &str = "65520";
/// In the lab: so many rounds of both ways.
const CLIENT: &str = "ip link set eth0 mtu \"$4\"; i=0; while [ $i -lt \"$5\" ]; do \
     for way in download upload; do \"$1\" $way \"$2\" \"$3\"; done; i=$((i + 1)); done";

pub(crate) fn run(options: &Options) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || traffic::serve(&listener));
    let seconds = TRANSFER.as_secs().to_string();

    let mut ours = Rates::default();
    {
        let network = Network::start(options.traffic()?)?;
        let server = format!("host.docker.internal:{port}");
        for _ in 0..options.rounds {
            let client = |way| network.client(&[], &[way, &server, &seconds]);
            ours.add(&client("download"), &client("upload"))?;
        }
    }
    for peer in [Peer::Slirp, Peer::Passt] {
        let theirs = peer.measure(options, port, &seconds)?;
        ours.compare("the way out", peer.program(), &theirs, 1.0)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Peer {
    Slirp,
    Passt,
}

impl Peer {
    fn program(self) -> &'static str {
        match self {
            Self::Slirp => "slirp4netns",
            Self::Passt => "passt",
        }
    }

    fn measure(self, options: &Options, port: u16, seconds: &str) -> Result<Rates> {
        let folder = tempfile::tempdir()?;
        let (_processes, mut command) = match self {
            Self::Slirp => slirp(options)?,
            Self::Passt => passt(options, folder.path())?,
        };
        let output = command
            .args(["--", "/bin/sh", "-c", CLIENT, "egress"])
            .arg(options.traffic()?)
            .args([&format!("{}:{port}", crate::peers::HOST), seconds, MTU])
            .arg(options.rounds.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("the lab cannot be run")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("{} failed in the lab: {text}", self.program());
        }
        let mut rates = Rates::default();
        let lines: Vec<&str> = text.lines().collect();
        for round in lines.chunks(2) {
            let [down, up] = round else {
                bail!("{} said {text:?}", self.program());
            };
            rates.add(down, up)?;
        }
        Ok(rates)
    }
}

/// A process that ends with the bench.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(command: &mut Command) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        Ok(Self(child))
    }
}

/// A peer's program out of its unpacked package, with its libraries.
fn program(options: &Options, name: &str) -> Result<Command> {
    let packages: &PathBuf = options
        .peers
        .as_ref()
        .context("the peers' packages were not named (--peers)")?;
    let mut command = Command::new(packages.join("usr/bin").join(name));
    command.env("LD_LIBRARY_PATH", packages.join("usr/lib/x86_64-linux-gnu"));
    Ok(command)
}

/// The lab, with QEMU's network back end as its `-netdev` takes it.
fn lab(options: &Options, netdev: &str) -> Result<Vec<std::ffi::OsString>> {
    let program = options
        .lab
        .as_ref()
        .context("the program that runs the lab was not named (--lab)")?;
    let mut words = vec![program.into()];
    let fixed = ["lab", "--memory", "1024", "--cpus", "2", "--seconds", "900"];
    words.extend(fixed.map(Into::into));
    words.extend(["--netdev", netdev].map(Into::into));
    Ok(words)
}

/// passt on a socket that QEMU speaks to.
fn passt(options: &Options, folder: &Path) -> Result<(Vec<Process>, Command)> {
    let socket = folder.join("passt.sock");
    let passt = Process::start(
        program(options, "passt")?
            .args(["--foreground", "--runas", "0", "--socket"])
            .arg(&socket)
            .args(["--address", "10.0.2.15", "--netmask", "24"])
            .args(["--gateway", crate::peers::HOST, "--mtu", MTU]),
    )?;
    wait_until("passt listens", READY, || socket.exists());
    let netdev = format!(
        "stream,id=net,server=off,addr.type=unix,addr.path={}",
        socket.display()
    );
    let words = lab(options, &netdev)?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    Ok((vec![passt], command))
}

/// slirp4netns on one interface of a network namespace, QEMU on another, and a bridge
/// between them.
fn slirp(options: &Options) -> Result<(Vec<Process>, Command)> {
    let holder =
        Process::start(Command::new("unshare").args(["--net", "--kill-child", "sleep", "3600"]))?;
    let process = holder.0.id();
    let namespace = PathBuf::from(format!("/proc/{process}/ns/net"));
    let own = std::fs::read_link("/proc/self/ns/net")?;
    wait_until("a network namespace", READY, || {
        std::fs::read_link(&namespace).is_ok_and(|other| other != own)
    });
    let within = || {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace.display()));
        command
    };
    let ip = |words: &str| -> Result<bool> {
        let status = within()
            .arg("ip")
            .args(words.split(' '))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("nsenter and ip cannot be run")?;
        Ok(status.success())
    };
    let slirp = Process::start(program(options, "slirp4netns")?.args([
        "--mtu",
        MTU,
        &process.to_string(),
        "tap0",
    ]))?;
    wait_until("slirp4netns is ready", READY, || {
        ip("link show tap0").is_ok_and(|there| there)
    });
    for words in [
        "tuntap add tap1 mode tap vnet_hdr".to_owned(),
        "link add bridge0 type bridge".to_owned(),
        format!("link set tap0 mtu {MTU} master bridge0 up"),
        format!("link set tap1 mtu {MTU} master bridge0 up"),
        format!("link set bridge0 mtu {MTU} up"),
    ] {
        if !ip(&words)? {
            bail!("ip {words} failed");
        }
    }
    let words = lab(options, "tap,id=net,ifname=tap1,script=no,downscript=no")?;
    let mut command = within();
    command.args(words);
    Ok((vec![slirp, holder], command))
}

//! Published ports: how much goes through one, how long a byte takes, and what many
//! connections leave behind.
//!
//! Beside it, over the same machine and the same vsock: a proxy in the guest that copies
//! in user space as `docker-proxy` does (socat, with its buffer of 32 KiB), and `ssh -L`
//! to an sshd in a container. Both reach the same server by the same bridge.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tests::{images, installation, registry};

use crate::{
    Options,
    held::Held,
    network::{Network, PORT, Rates},
};

/// Where socat listens on vsock in the guest.
const PROXY_PORT: u32 = 7001;
/// Connections one after the other that must leave nothing.
const SHORT: usize = 10_000;
/// Connections that are open while one is measured.
const OPEN: usize = 1000;
const SAMPLES: usize = 2000;

pub(crate) fn run(options: &Options) -> Result<()> {
    let network = Network::start(options.traffic()?)?;
    let inside = network.serve("server", &["--publish", &format!("127.0.0.1::{PORT}")]);
    let published = network.published("server", PORT);
    bulk(options, &network, &inside, &published)?;
    latency(&network, &inside, &published)?;
    leaks(&network, &published)
}

fn bulk(options: &Options, network: &Network, inside: &str, published: &str) -> Result<()> {
    let layout = images::debian_with(&["socat", "openssh-server"]);
    network.registry.push(&layout, "peers");
    let image = network.registry.name("peers");
    let proxy = Proxy::start(network, &image, inside)?;
    let ssh = Ssh::start(network, &image, inside)?;
    let (mut ours, mut copied, mut tunnelled) =
        (Rates::default(), Rates::default(), Rates::default());
    for _ in 0..options.rounds {
        ours.measure(published)?;
        copied.measure(&proxy.address)?;
        tunnelled.measure(&ssh.address)?;
    }
    ours.compare("a published port", "user-space proxy", &copied, 2.0)?;
    ours.compare("a published port", "ssh -L", &tunnelled, 1.0)
}

/// socat in the guest's own network, reached by the machine's vsock.
struct Proxy {
    address: String,
}

impl Proxy {
    fn start(network: &Network, image: &str, inside: &str) -> Result<Self> {
        let listen = format!("VSOCK-LISTEN:{PROXY_PORT},fork");
        network
            .dctl
            .dctl(&[
                "run",
                "--detach",
                "--name",
                "proxy",
                "--network",
                "host",
                // Sockets of this family are for the privileged.
                "--privileged",
                image,
                "socat",
                "-b",
                "32768",
                &listen,
                &format!("TCP:{inside},nodelay"),
            ])
            .success();
        let vsock = network.dctl.home().join("run/machines/default/vsock.sock");
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let within = Instant::now() + Duration::from_secs(30);
        while guest_port(&vsock).is_err() {
            if Instant::now() > within {
                bail!("socat does not listen in the guest");
            }
            thread::sleep(Duration::from_millis(100));
        }
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                // A failure is a connection that ends, which the client reports.
                let _ = guest_port(&vsock).and_then(|guest| splice(stream, guest));
            }
        });
        Ok(Self { address })
    }
}

/// A connection to the proxy's port.
fn guest_port(vsock: &Path) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(vsock)?;
    stream.write_all(format!("CONNECT {PROXY_PORT}\n").as_bytes())?;
    let mut accepted = String::new();
    BufReader::with_capacity(1, &stream).read_line(&mut accepted)?;
    if accepted.starts_with("OK ") {
        Ok(stream)
    } else {
        bail!("nobody listens on port {PROXY_PORT} of the guest")
    }
}

/// Carries both ways: the host's part, which costs the peer as little as it can.
fn splice(host: TcpStream, guest: UnixStream) -> Result<()> {
    host.set_nodelay(true)?;
    let (mut from_host, mut to_guest) = (host.try_clone()?, guest.try_clone()?);
    let (mut from_guest, mut to_host) = (guest, host);
    thread::spawn(move || {
        // On Linux a splice(2) in a loop.
        let _ = std::io::copy(&mut from_host, &mut to_guest);
        let _ = to_guest.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_guest, &mut to_host);
        let _ = to_host.shutdown(Shutdown::Write);
    });
    Ok(())
}

/// `ssh -L` to an sshd in a container. Dropped, it has ended.
struct Ssh {
    address: String,
    client: Child,
    _keys: tempfile::TempDir,
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // It may have ended by itself, which is as well.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

impl Ssh {
    fn start(network: &Network, image: &str, inside: &str) -> Result<Self> {
        let keys = tempfile::tempdir()?;
        let key = keys.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status()
            .context("ssh-keygen cannot be run (Debian: openssh-client)")?;
        if !made.success() {
            bail!("ssh-keygen failed: {made}");
        }
        let public = fs::read_to_string(key.with_extension("pub"))?;
        let script = "set -e; mkdir -p /run/sshd /root/.ssh; printf %s \"$1\" > /root/.ssh/authorized_keys; \
             exec /usr/sbin/sshd -D -e";
        network
            .dctl
            .dctl(&[
                "run",
                "--detach",
                "--name",
                "sshd",
                "--publish",
                "127.0.0.1::22",
                image,
                "sh",
                "-c",
                script,
                "sh",
                &public,
            ])
            .success();
        let sshd = network.published("sshd", 22);
        installation::wait_until("sshd greets", Duration::from_mins(1), || greets(&sshd));
        let port = sshd.rsplit_once(':').context("an address has a port")?.1;
        let address = registry::free_address().to_string();
        let client = Command::new("ssh")
            .args(["-N", "-L", &format!("{address}:{inside}")])
            .args(["-F", "/dev/null", "-p", port])
            .args(["-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "ExitOnForwardFailure=yes"])
            .args(["-o", "LogLevel=ERROR"])
            .arg("-i")
            .arg(&key)
            .arg("root@127.0.0.1")
            .stdin(Stdio::null())
            .spawn()
            .context("ssh cannot be run (Debian: openssh-client)")?;
        let ssh = Self {
            address,
            client,
            _keys: keys,
        };
        installation::wait_until("ssh -L listens", Duration::from_mins(1), || {
            TcpStream::connect(&ssh.address).is_ok()
        });
        Ok(ssh)
    }
}

fn greets(sshd: &str) -> bool {
    let mut greeting = [0; 4];
    TcpStream::connect(sshd)
        .and_then(|mut stream| stream.read_exact(&mut greeting))
        .is_ok_and(|()| greeting == *b"SSH-")
}

fn latency(network: &Network, inside: &str, published: &str) -> Result<()> {
    for open in [1, OPEN] {
        let ours = traffic::latencies(published, open, SAMPLES)?;
        let words = [open, SAMPLES].map(|number| number.to_string());
        let direct = network.client(&[], &["latency", inside, &words[0], &words[1]]);
        let direct: Vec<u64> = direct
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [median, p99] = direct[..] else {
            bail!("traffic said {direct:?}");
        };
        let (ours, theirs) = (ours.p99.as_micros(), p99);
        println!(
            "  a byte and back at {open} open connections: p99 {ours} µs, inside the guest {theirs} µs \
             (median {median} µs): ratio {:.2}",
            ours as f64 / theirs as f64
        );
    }
    Ok(())
}

fn leaks(network: &Network, published: &str) -> Result<()> {
    // What is made once is there.
    traffic::short_connections(published, 100)?;
    let before = Held::now(&network.dctl)?;
    let took = traffic::short_connections(published, SHORT)?;
    let after = Held::now(&network.dctl)?;
    println!("  {SHORT} short connections in {:.1} s", took.as_secs_f64());
    println!("    before: {before}");
    println!("    after:  {after}");
    Ok(())
}

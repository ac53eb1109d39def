//! The lab: a virtual machine with a real `/dev/kvm`, on any machine.
//!
//! QEMU's software processor emulates AMD's virtualisation with nested paging,
//! so that a Linux booted on it has the complete `kvm_amd`. The lab boots
//! Debian's kernel so, over this machine's files (read-only, with a scratch layer
//! that is thrown away), runs one command and passes its exit status through.
//! It is software: compare what is measured within one run, never across.

mod kernel;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub(crate) use self::kernel::fetch as fetch_kernel;
use crate::cache::Places;
use crate::cpio::Archive;
use crate::process;

/// QEMU's own network: the host's loopback is at 10.0.2.2.
pub(crate) const USER_NETWORK: &str = "user,id=net";

/// What the lab is to run, and on what.
#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// Memory of the lab in MiB
    #[arg(long, default_value_t = 4096)]
    pub(crate) memory: u32,
    /// Processors of the lab
    #[arg(long, default_value_t = 2)]
    pub(crate) cpus: u32,
    /// Give up after this many seconds (exit status 124)
    #[arg(long, default_value_t = 600)]
    pub(crate) seconds: u64,
    /// A directory that the command may leave files in, as `$LAB_OUT`
    #[arg(long)]
    pub(crate) output: Option<PathBuf>,
    /// Run as a user without privilege who is in the group kvm
    #[arg(long)]
    pub(crate) unprivileged: bool,
    /// QEMU's network back end of id `net`, as its `-netdev` takes it
    #[arg(long, default_value = USER_NETWORK)]
    pub(crate) netdev: String,
    /// Variables for the command besides those that everything in the lab gets
    #[arg(skip)]
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The command
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// How a lab ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The command did, with this exit status.
    Command(u8),
    /// The command had not, when the time was over.
    TimedOut,
    /// The lab's own machine did, before the command.
    Machine,
}

impl End {
    /// The exit status that says so, as timeout(1) and env(1) have them.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Command(status) => status,
            Self::TimedOut => 124,
            Self::Machine => 125,
        }
    }
}

/// Machines that one command may take. Rarely one ends in a fault of its own kernel: seen was
/// a stack that exceptions without end had filled, each with the registers of a guest that
/// had just exited. On hardware no program can bring that about, and none in the lab has
/// more privilege than one there.
const MACHINES: usize = 3;

/// What the lab's machine says every few seconds.
const BEAT: &str = "beat";

/// A machine that has said nothing for so long stands still.
const SILENCE: Duration = Duration::from_mins(3);

/// The environment that goes into the lab besides `PATH` and `HOME`.
const ENVIRONMENT: [&str; 8] = [
    "CARGO_TARGET_DIR",
    "DCTL_ASSETS",
    "DCTL_BIN",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "RUSTUP_HOME",
    "CARGO_HOME",
    "XDG_CACHE_HOME",
];

/// The directory whose `lib/modules` has the modules of the lab's kernel.
pub(crate) fn kernel_root(places: &Places) -> Result<String> {
    Ok(kernel::find(places)?.root.display().to_string())
}

/// Runs a command in the lab, again if the lab's own machine does not live through it: what
/// the command does in there is scratch, and what it leaves in its output it can leave twice.
pub(crate) fn run(places: &Places, options: &Options) -> Result<End> {
    on_machines(|| run_once(places, options))
}

fn on_machines(mut run: impl FnMut() -> Result<End>) -> Result<End> {
    for machine in 1..MACHINES {
        let end = run()?;
        if end != End::Machine {
            return Ok(end);
        }
        eprintln!("lab: machine {machine} of {MACHINES} is gone, the command is run again");
    }
    run()
}

fn run_once(places: &Places, options: &Options) -> Result<End> {
    let kernel = kernel::find(places)?;
    let work = tempfile::Builder::new().prefix("dctl-lab.").tempdir()?;
    let initial_root = work.path().join("initramfs.cpio");
    fs::write(&initial_root, archive(places, &kernel, options)?)?;
    let console = work.path().join("console.log");
    let nothing = work.path().join("output");
    let output = if let Some(directory) = &options.output {
        fs::create_dir_all(directory)?;
        directory.canonicalize()?
    } else {
        fs::create_dir(&nothing)?;
        nothing
    };

    let (stdout, stdout_lab) = UnixStream::pair()?;
    let (stderr, stderr_lab) = UnixStream::pair()?;
    let (result, result_lab) = UnixStream::pair()?;
    let mut qemu = qemu(&kernel, &initial_root, &console, &output, options)?;
    for (number, stream) in [(1, &stdout_lab), (2, &stderr_lab), (3, &result_lab)] {
        rustix::io::fcntl_setfd(stream, rustix::io::FdFlags::empty())?;
        qemu.arg("-chardev")
            .arg(format!("socket,id=port{number},fd={}", stream.as_raw_fd()))
            .arg("-device")
            .arg(format!("virtserialport,chardev=port{number},nr={number}"));
    }
    let mut child = qemu.spawn().context("cannot run QEMU")?;
    drop([stdout_lab, stderr_lab, result_lab].map(OwnedFd::from));

    let copies = [
        thread::spawn(move || forward(stdout, std::io::stdout())),
        thread::spawn(move || forward(stderr, std::io::stderr())),
    ];
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // An error here is a lab that died, which the missing result says.
        for line in BufReader::new(result).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let end = wait(&receiver, Duration::from_secs(options.seconds));
    stop(&mut child)?;
    for copy in copies {
        let _ = copy.join();
    }
    match end {
        End::Command(_) => return Ok(end),
        End::TimedOut => {
            eprintln!("lab: the command did not end in {} s", options.seconds);
            return Ok(end);
        }
        End::Machine => {}
    }
    eprintln!("lab: the machine stopped before the command ended; its last messages:");
    let messages = fs::read(&console).unwrap_or_default();
    let messages = String::from_utf8_lossy(&messages);
    let lines: Vec<_> = messages.lines().collect();
    for line in &lines[lines.len().saturating_sub(30)..] {
        eprintln!("  {line}");
    }
    Ok(End::Machine)
}

/// Waits for the command's exit status, with a beat of the machine's now and then until it
/// comes.
fn wait(lines: &mpsc::Receiver<String>, most: Duration) -> End {
    let start = Instant::now();
    loop {
        let left = most.saturating_sub(start.elapsed());
        match lines.recv_timeout(left.min(SILENCE)) {
            Ok(line) if line == BEAT => {}
            Ok(line) => return line.trim().parse().map_or(End::Machine, End::Command),
            Err(RecvTimeoutError::Timeout) if left <= SILENCE => return End::TimedOut,
            // It stands still, or is gone.
            Err(_) => return End::Machine,
        }
    }
}

fn forward(mut from: UnixStream, mut to: impl Write) {
    let mut buffer = [0; 16 << 10];
    // Ends with the lab, or when nobody reads what it prints.
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to
            .write_all(&buffer[..length])
            .and_then(|()| to.flush())
            .is_err()
        {
            return;
        }
    }
}

fn stop(child: &mut Child) -> Result<()> {
    // The command has ended or is given up; what the lab has is scratch.
    if child.try_wait()?.is_none() {
        child.kill()?;
    }
    child.wait()?;
    Ok(())
}

fn qemu(
    kernel: &kernel::Kernel,
    initial_root: &Path,
    console: &Path,
    output: &Path,
    options: &Options,
) -> Result<Command> {
    let qemu = process::need("qemu-system-x86_64")?;
    // The lab ends with whoever started it.
    let mut command = Command::new(process::need("setpriv")?);
    command.args(["--pdeathsig", "KILL"]).arg(qemu);
    command
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            // With its virtual interrupt flag QEMU's processor sometimes ends in a storm
            // of interrupts: the lab stood still in one of some fifteen boots of two CPUs.
            // It copies strings of bytes a byte at a time: a kernel that is told that they are
            // fast, as they are on hardware, took two of the five seconds of a machine's start
            // to put kernel and initial root into its memory.
            "max,-vgif,-erms,-fsrm",
        ])
        .args(["-smp", &options.cpus.to_string()])
        .args(["-m", &options.memory.to_string()])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initial_root)
        .args([
            "-append",
            // A host that is busy gives a timer's interrupt too late for the kernel's check.
            "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on no_timer_check",
        ])
        .arg("-serial")
        .arg(option("file:", console.as_os_str()))
        .args([
            "-virtfs",
            "local,path=/,mount_tag=files,security_model=none,readonly=on,multidevs=remap",
        ])
        .arg("-virtfs")
        .arg(option(
            "local,mount_tag=output,security_model=none,path=",
            output.as_os_str(),
        ))
        .args(["-netdev", &options.netdev])
        .args(["-device", "virtio-net-pci,netdev=net"])
        .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if !options_show_warnings() {
        // TCG names each feature of `-cpu max` that it hasn't.
        command.stderr(Stdio::null());
    }
    Ok(command)
}

fn options_show_warnings() -> bool {
    std::env::var_os("DCTL_LAB_DEBUG").is_some()
}

/// `prefix` and a path; QEMU takes a doubled comma for a comma.
fn option(prefix: &str, path: &OsStr) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(prefix);
    option.push(path.to_string_lossy().replace(',', ",,"));
    option
}

/// The lab's initial root: busybox, the kernel's modules, and the job.
fn archive(places: &Places, kernel: &kernel::Kernel, options: &Options) -> Result<Vec<u8>> {
    let busybox = process::need("busybox")?;
    let mut archive = Archive::new(Vec::new());
    for directory in ["bin", "dev", "modules"] {
        archive.directory(directory, 0o755)?;
    }
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.file("init", 0o755, include_bytes!("init.sh"))?;
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?)?;
    for (number, module) in kernel.modules()?.iter().enumerate() {
        let name = module
            .file_name()
            .and_then(OsStr::to_str)
            .context("a module has a name")?;
        // Numbered, so that the shell's order is the order to load them in.
        archive.file(
            &format!("modules/{:02}-{name}", number + 10),
            0o644,
            &fs::read(module).with_context(|| format!("cannot read {}", module.display()))?,
        )?;
    }
    archive.file("job", 0o644, job(places, options)?.as_bytes())?;
    Ok(archive.finish()?)
}

/// The script that runs the command, reports its status and ends the lab.
fn job(places: &Places, options: &Options) -> Result<String> {
    let directory = std::env::current_dir()?;
    let mut script = String::new();
    let user = if options.unprivileged {
        // A user without privilege may not be able to reach what root built: each
        // directory on the way is opened, in the scratch layer.
        for path in [
            &directory,
            &places.repository,
            &places.target,
            &places.cache,
        ] {
            for ancestor in path.ancestors() {
                let ancestor = quote(&format!(".{}", ancestor.display()))?;
                writeln!(script, "$b chmod a+rx {ancestor} 2>/dev/null")?;
            }
        }
        script.push_str(
            "echo 'dctl:x:4242:4242::/home/dctl:/bin/sh' >> etc/passwd\n\
             echo 'dctl:x:4242:' >> etc/group\n\
             $b mkdir -p home/dctl run/user/4242\n\
             $b chown -R 4242:4242 home/dctl run/user/4242\n\
             $b chmod 700 run/user/4242\n",
        );
        "setpriv --reuid 4242 --regid 4242 --groups kvm --inh-caps=-all --no-new-privs "
    } else {
        script.push_str("$b mkdir -p run/user/0\n$b chmod 700 run/user/0\n");
        ""
    };
    let (home, runtime) = if options.unprivileged {
        ("/home/dctl".to_owned(), "/run/user/4242")
    } else {
        (
            variable("HOME").unwrap_or("/root".to_owned()),
            "/run/user/0",
        )
    };
    let path = variable("PATH").unwrap_or("/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    // A port can be opened once.
    writeln!(script, "exec 3> /dev/lab-3")?;
    writeln!(script, "(while echo {BEAT} >&3; do $b sleep 5; done) &")?;
    script.push_str("$b chroot . /usr/bin/env -i LAB_OUT=/lab-out TERM=dumb");
    for (name, value) in [
        ("PATH", path.as_str()),
        ("HOME", &home),
        ("XDG_RUNTIME_DIR", runtime),
    ] {
        write!(script, " {name}={}", quote(value)?)?;
    }
    for name in ENVIRONMENT {
        // A user without privilege has a cache of its own.
        if let Some(value) = variable(name)
            && !(options.unprivileged && name == "XDG_CACHE_HOME")
        {
            write!(script, " {name}={}", quote(&value)?)?;
        }
    }
    for (name, value) in &options.environment {
        write!(script, " {name}={}", quote(value)?)?;
    }
    let mut command = format!(
        "cd {} || exit; exec {user}",
        quote(&directory.display().to_string())?
    );
    for word in &options.command {
        write!(command, " {}", quote(word)?)?;
    }
    writeln!(
        script,
        " /bin/sh -c {} < /dev/null > /dev/lab-1 2> /dev/lab-2 3>&-",
        quote(&command)?
    )?;
    script.push_str("echo $? >&3\n$b sync\n$b poweroff -f\n");
    Ok(script)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `word` for a POSIX shell.
fn quote(word: &str) -> Result<String> {
    if word.contains('\0') {
        bail!("a command's word cannot hold a zero byte");
    }
    Ok(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for word in ["", "plain", "two words", "it's", "$HOME `id` \"x\" \\ \n!"] {
            let output = process::output(
                Command::new("sh").args(["-c", &format!("printf %s. {}", quote(word).unwrap())]),
            )
            .unwrap();
            assert_eq!(output, format!("{word}."));
        }
        assert!(quote("a\0b").is_err());
    }

    #[test]
    fn only_the_loss_of_a_machine_is_answered_with_another() {
        let run = |ends: &[End]| {
            let mut left = ends.iter().copied();
            let end = on_machines(|| left.next().context("one machine too many")).unwrap();
            (end, left.len())
        };
        assert_eq!(run(&[End::Command(0)]), (End::Command(0), 0));
        for end in [End::Command(1), End::TimedOut] {
            assert_eq!(run(&[end, End::Command(0)]), (end, 1));
        }
        assert_eq!(
            run(&[End::Machine, End::Machine, End::Command(0)]),
            (End::Command(0), 0)
        );
        assert_eq!(run(&[End::Machine; 4]), (End::Machine, 1));
    }

    #[test]
    fn a_status_is_told_from_beats_and_from_silence() {
        let end = |lines: &[&str]| {
            let (sender, receiver) = mpsc::channel();
            for line in lines {
                sender.send((*line).to_owned()).unwrap();
            }
            let most = Duration::from_millis(20);
            // While there is a sender, there is a machine.
            let running = wait(&receiver, most);
            drop(sender);
            (running, wait(&receiver, most))
        };
        assert_eq!(end(&[BEAT, BEAT, "0"]), (End::Command(0), End::Machine));
        assert_eq!(end(&["125"]), (End::Command(125), End::Machine));
        assert_eq!(end(&[BEAT]), (End::TimedOut, End::Machine));
        assert_eq!(end(&["no number"]), (End::Machine, End::Machine));
    }

    #[test]
    fn commas_in_paths_are_not_options() {
        assert_eq!(option("file:", OsStr::new("/a,b")), "file:/a,,b");
    }
}

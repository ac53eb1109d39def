//! A folder of the host in a container, beside virtiofsd under the same QEMU.
//!
//! The peer takes the place of our file server and of nothing else: machine, guest,
//! agent and container are the same; a program named as QEMU's stands before it and
//! gives QEMU virtiofsd's socket where ours is. The machine's own data disk is measured
//! for comparison.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use guest_protocol::share::export_name;
use serde_json::Value;
use tests::{Installation, images, installation::wait_until, registry::Registry};

use crate::{
    Options,
    statistics::{compare, compare_rates},
};

/// The tree that `git status` looks at.
const DIRECTORIES: usize = 500;
const FILES: usize = 100;

const QEMU: &str = "qemu-system-x86_64";

/// One measurement: what it is, its unit, and the script that prints a figure.
struct Task {
    what: &'static str,
    unit: &'static str,
    command: Words,
}

enum Words {
    /// fio with these arguments, and where in its report the figure is.
    Fio(&'static str, &'static str),
    /// A script that prints milliseconds.
    Milliseconds(&'static str),
}

const TASKS: [Task; 8] = [
    Task {
        what: "sequential write",
        unit: "MB/s",
        command: Words::Fio(
            "--rw=write --bs=1M --size=256M --filename=large --end_fsync=1",
            "/jobs/0/write/bw_bytes",
        ),
    },
    Task {
        what: "sequential read",
        unit: "MB/s",
        command: Words::Fio(
            "--rw=read --bs=1M --size=256M --filename=large",
            "/jobs/0/read/bw_bytes",
        ),
    },
    Task {
        what: "random reads of 4 KiB",
        unit: "a second",
        command: Words::Fio(
            "--rw=randread --bs=4k --size=256M --filename=large --direct=1 --runtime=5 --time_based",
            "/jobs/0/read/iops",
        ),
    },
    Task {
        what: "random writes of 4 KiB",
        unit: "a second",
        command: Words::Fio(
            "--rw=randwrite --bs=4k --size=256M --filename=large --direct=1 --runtime=5 --time_based",
            "/jobs/0/write/iops",
        ),
    },
    Task {
        what: "small files made",
        unit: "a second",
        command: Words::Fio(
            "--ioengine=filecreate --nrfiles=2000 --openfiles=1 --filesize=4k --fallocate=none",
            "/jobs/0/read/iops",
        ),
    },
    Task {
        what: "small files looked at",
        unit: "a second",
        command: Words::Fio(
            "--ioengine=filestat --nrfiles=2000 --openfiles=1 --filesize=4k --fallocate=none",
            "/jobs/0/read/iops",
        ),
    },
    Task {
        what: "small files removed",
        unit: "a second",
        command: Words::Fio(
            "--ioengine=filedelete --nrfiles=2000 --openfiles=1 --filesize=4k --fallocate=none",
            "/jobs/0/read/iops",
        ),
    },
    Task {
        what: "git status, 50,000 files",
        unit: "ms",
        command: Words::Milliseconds(
            "begin=$(date +%s%N); git status --porcelain > /tmp/status; \
             echo $((($(date +%s%N) - begin) / 1000000)); test ! -s /tmp/status",
        ),
    },
];

pub(crate) fn run(options: &Options) -> Result<()> {
    let virtiofsd = options
        .virtiofsd
        .as_ref()
        .context("virtiofsd was not named (--virtiofsd)")?;
    let folder = tempfile::tempdir()?;
    let shared = folder.path().join("shared");
    make_tree(&shared.join("tree"))?;
    let registry = Registry::start();
    registry.push(&images::debian_with(&["fio", "git"]), "files");
    let image = registry.name("files");

    let rounds = options.rounds.clamp(1, 3);
    let (ours, disk) = {
        let dctl = Installation::new();
        dctl.dctl(&["machine", "start"]).success();
        let machine = Machine::start(dctl, &image, &shared);
        (
            machine.measure("/x", rounds)?,
            machine.measure("/data", rounds)?,
        )
    };

    // The same folder, under the name that the agent looks for.
    let root = folder.path().join("root");
    fs::create_dir(&root)?;
    let path = shared.to_str().context("the folder's path is UTF-8")?;
    fs::rename(&shared, root.join(export_name(path, false)))?;
    fs::create_dir(&shared)?;
    let peer = Peer::start(virtiofsd, &root, folder.path())?;
    let theirs = {
        let dctl = Installation::new();
        let status = dctl
            .command(&["machine", "start"])
            .env("PATH", &peer.path)
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("no machine with virtiofsd: {status}");
        }
        Machine::start(dctl, &image, &shared).measure("/x", rounds)?
    };

    for ((task, ours), (theirs, disk)) in TASKS.iter().zip(&ours).zip(theirs.iter().zip(&disk)) {
        let compare = match task.command {
            Words::Fio(..) => compare_rates,
            Words::Milliseconds(_) => compare,
        };
        compare(task.what, *ours, "virtiofsd", *theirs, task.unit, 1.0);
        println!("    data disk: {disk:.1} {}", task.unit);
    }
    Ok(())
}

/// A git repository of many small files, with nothing to commit.
fn make_tree(tree: &Path) -> Result<()> {
    for directory in 0..DIRECTORIES {
        let directory = tree.join(format!("directory{directory}"));
        fs::create_dir_all(&directory)?;
        for file in 0..FILES {
            fs::write(directory.join(format!("file{file}")), "a line of text\n")?;
        }
    }
    for words in [
        &["init", "--quiet"][..],
        &["add", "--all"],
        &[
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@localhost",
            "commit",
            "--quiet",
            "-m",
            "all",
        ],
    ] {
        let status = Command::new("git")
            .current_dir(tree)
            .args(words)
            .status()
            .context("git cannot be run")?;
        if !status.success() {
            bail!("git {} failed: {status}", words.join(" "));
        }
    }
    Ok(())
}

/// A machine with a container that has the folder at `/x`.
struct Machine(Installation);

impl Machine {
    fn start(dctl: Installation, image: &str, shared: &Path) -> Self {
        dctl.dctl(&["pull", "--quiet", image]).success();
        let mount = format!("{}:/x", shared.display());
        let detached = ["run", "--detach", "--name", "work", "--volume", &mount];
        // A volume is on the data disk.
        let volume = ["--volume", "data:/data", image, "sleep", "infinity"];
        dctl.dctl(&[&detached[..], &volume].concat()).success();
        let copied = "mkdir /data/tree && cd /data/tree && cp -a /x/tree/.git . && \
             git config --global --add safe.directory '*' && git checkout --quiet --force .";
        dctl.dctl(&["exec", "work", "sh", "-c", copied]).success();
        Self(dctl)
    }

    /// A figure for each task, in a folder of the container.
    fn measure(&self, at: &str, rounds: usize) -> Result<Vec<f64>> {
        TASKS
            .iter()
            .map(|task| {
                let figures = (0..rounds)
                    .map(|_| self.figure(at, task))
                    .collect::<Result<Vec<f64>>>()?;
                crate::statistics::median(&figures).context("nothing was measured")
            })
            .collect()
    }

    fn figure(&self, at: &str, task: &Task) -> Result<f64> {
        let script = match task.command {
            Words::Fio(arguments, _) => format!(
                "cd {at} && fio --name=bench --ioengine=psync --output-format=json {arguments}"
            ),
            // As the first time after a while: nothing about the tree is fresh.
            Words::Milliseconds(script) => format!("cd {at}/tree && sleep 2 && {script}"),
        };
        let text = self
            .0
            .dctl(&["exec", "work", "sh", "-c", &script])
            .success()
            .text();
        match task.command {
            Words::Fio(_, place) => {
                let begin = text.find('{').context("fio reported nothing")?;
                let report: Value = serde_json::from_str(&text[begin..])?;
                let figure = report
                    .pointer(place)
                    .and_then(Value::as_f64)
                    .with_context(|| format!("fio's report has no {place}"))?;
                Ok(if place.ends_with("bytes") {
                    figure / 1e6
                } else {
                    figure
                })
            }
            Words::Milliseconds(_) => text.trim().parse().with_context(|| format!("{text:?}")),
        }
    }
}

/// virtiofsd, and a `PATH` by which QEMU finds it.
struct Peer {
    process: Child,
    path: std::ffi::OsString,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends with its QEMU.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Peer {
    fn start(virtiofsd: &Path, root: &Path, folder: &Path) -> Result<Self> {
        let socket = folder.join("virtiofsd.sock");
        let process = Command::new(virtiofsd)
            .arg("--socket-path")
            .arg(&socket)
            .arg("--shared-dir")
            .arg(root)
            .args(["--sandbox", "none", "--xattr", "--cache", "auto"])
            .stdin(Stdio::null())
            .stderr(fs::File::create(folder.join("virtiofsd.log"))?)
            .spawn()
            .context("cannot run virtiofsd")?;
        let before = std::env::var_os("PATH").unwrap_or_default();
        let qemu = std::env::split_paths(&before)
            .map(|directory| directory.join(QEMU))
            .find(|program| program.exists())
            .with_context(|| format!("{QEMU} is not in PATH"))?;
        let programs = folder.join("programs");
        fs::create_dir(&programs)?;
        let script = format!(
            "#!/bin/sh\nfor word; do\n    shift\n    case $word in\n    \
             socket,id=shares,*) word=socket,id=shares,path={} ;;\n    esac\n    \
             set -- \"$@\" \"$word\"\ndone\nexec {} \"$@\"\n",
            socket.display(),
            qemu.display()
        );
        let program = programs.join(QEMU);
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let directories: Vec<PathBuf> = std::iter::once(programs)
            .chain(std::env::split_paths(&before))
            .collect();
        wait_until("virtiofsd listens", Duration::from_secs(20), || {
            socket.exists()
        });
        Ok(Self {
            process,
            path: std::env::join_paths(directories)?,
        })
    }
}

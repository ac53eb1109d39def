//! The contract with Docker: what a real `dockerd` answers is recorded in the lab, whose
//! kernel and control groups are as new as the guest's, and kept in `tests/contract/`.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::cache::Places;
use crate::{lab, peers, process, rust};

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum Task {
    /// Record what a real dockerd answers, in `tests/contract/`
    Record {
        /// These groups of requests alone
        groups: Vec<String>,
    },
    /// Tell where the answers of the engine on a socket differ from the recording
    Compare {
        /// The engine's socket
        socket: PathBuf,
        /// These groups of requests alone
        groups: Vec<String>,
    },
}

/// Bridges and packet filters, of which the lab loads none by itself.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=80% tmpfs /mnt
modprobe --dirname "$LAB_KERNEL" --all bridge veth br_netfilter iptable_nat iptable_filter \
    iptable_raw ip6table_nat ip6table_filter ip6table_raw xt_conntrack xt_MASQUERADE \
    xt_addrtype xt_comment xt_nat xt_set xt_tcpudp nf_conntrack_netlink
# A group of its own, as a service has: the root has no limits to be looked at.
mkdir /sys/fs/cgroup/engine
echo 0 > /sys/fs/cgroup/engine/cgroup.procs
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done
mkdir /mnt/bin
for program in iptables ip6tables iptables-save iptables-restore; do
    ln -s "/usr/sbin/${program%%-*}-legacy${program#${program%%-*}}" "/mnt/bin/$program"
done
PATH="/mnt/bin:$PATH"
recorder=$2
shift 2
start_dockerd
"$recorder" record /run/docker.sock "$LAB_OUT" "$@"
"#;

/// Records or compares.
pub(crate) fn run(places: &Places, task: &Task) -> Result<ExitCode> {
    process::run(rust::cargo(places).args(["build", "--package", "tests", "--bin", "contract"]))?;
    let program = places.target.join("debug/contract");
    match task {
        Task::Compare { socket, groups } => {
            process::run(
                Command::new(program)
                    .arg("compare")
                    .arg(socket)
                    .args(groups),
            )?;
        }
        Task::Record { groups } => {
            let script = format!("{}{SCRIPT}", peers::DOCKERD);
            let mut command = [
                "/bin/sh",
                "-c",
                &script,
                "contract",
                &peers::unpacked(places)?.display().to_string(),
                &program.display().to_string(),
            ]
            .map(str::to_owned)
            .to_vec();
            command.extend_from_slice(groups);
            let options = lab::Options {
                memory: 4096,
                cpus: 2,
                seconds: 3600,
                output: Some(places.repository.join("tests/contract")),
                unprivileged: false,
                netdev: lab::USER_NETWORK.to_owned(),
                environment: vec![("LAB_KERNEL", lab::kernel_root(places)?)],
                command,
            };
            if lab::run(places, &options)? != lab::End::Command(0) {
                bail!("nothing was recorded");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

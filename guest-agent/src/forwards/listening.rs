//! What containers listen on that share the machine's network (`--network host`): the
//! kernel's tables of sockets, and which of them their processes have open.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use guest_protocol::port::{ListeningSocket, Transport};

/// The kernel's tables of the agent's own network, the machine's.
const TABLES: [(&str, Transport); 4] = [
    ("tcp", Transport::Tcp),
    ("tcp6", Transport::Tcp),
    ("udp", Transport::Udp),
    ("udp6", Transport::Udp),
];

/// States of a socket in them: a TCP one that listens, a UDP one without a peer.
const LISTENS: &str = "0A";
const UNCONNECTED: &str = "07";

/// From here on a UDP port is a client's, most likely: the kernel gives them out.
const FIRST_EPHEMERAL: u16 = 32_768;

/// How deep cgroups in a container's cgroup are looked at.
const DEEPEST: u32 = 8;

/// A container whose sockets are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sharer {
    /// Its id.
    pub(crate) id: String,
    /// Its cgroup's folder.
    pub(crate) cgroup: PathBuf,
}

/// Looks again and again, and searches processes only when sockets have changed.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    sharers: Vec<Sharer>,
    sockets: HashMap<u64, (Transport, u16)>,
    found: BTreeSet<ListeningSocket>,
}

impl Watch {
    /// What `sharers` listen on now.
    pub(crate) fn look(&mut self, sharers: Vec<Sharer>) -> &BTreeSet<ListeningSocket> {
        let sockets = if sharers.is_empty() {
            HashMap::new()
        } else {
            sockets()
        };
        if sharers != self.sharers || sockets != self.sockets {
            self.found = owned(&sharers, &sockets);
            // A socket that nobody has yet may be on its way to its owner.
            let all_found = self.found.len() >= sockets.len();
            self.sockets = if all_found { sockets } else { HashMap::new() };
            self.sharers = sharers;
        }
        &self.found
    }
}

/// All sockets that wait for peers, by inode.
fn sockets() -> HashMap<u64, (Transport, u16)> {
    TABLES
        .into_iter()
        .flat_map(|(name, transport)| {
            // Without IPv6 there is no table of it.
            let table = fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
            parse(&table, transport)
        })
        .collect()
}

fn parse(table: &str, transport: Transport) -> Vec<(u64, (Transport, u16))> {
    let socket = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (_, local, _, state) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let inode: u64 = fields.nth(5)?.parse().ok()?;
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let waits = match transport {
            Transport::Tcp => state == LISTENS,
            Transport::Udp => state == UNCONNECTED && port < FIRST_EPHEMERAL,
        };
        (waits && inode != 0 && port != 0).then_some((inode, (transport, port)))
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// Which of `sockets` the processes of which container have open.
fn owned(
    sharers: &[Sharer],
    sockets: &HashMap<u64, (Transport, u16)>,
) -> BTreeSet<ListeningSocket> {
    let mut found = BTreeSet::new();
    for sharer in sharers {
        for inode in inodes(&sharer.cgroup) {
            if let Some(&(transport, port)) = sockets.get(&inode) {
                found.insert(ListeningSocket {
                    container: sharer.id.clone(),
                    transport,
                    port,
                });
            }
        }
    }
    found
}

/// Inodes of the sockets that the processes in a cgroup have open.
fn inodes(cgroup: &Path) -> HashSet<u64> {
    let mut processes = Vec::new();
    collect_processes(cgroup, DEEPEST, &mut processes);
    let mut inodes = HashSet::new();
    for process in processes {
        // Processes end while they are looked at.
        let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else {
            continue;
        };
        inodes.extend(files.flatten().filter_map(|file| {
            let target = fs::read_link(file.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            inode.strip_suffix(']')?.parse::<u64>().ok()
        }));
    }
    inodes
}

fn collect_processes(cgroup: &Path, depth: u32, processes: &mut Vec<u32>) {
    let list = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    processes.extend(list.lines().filter_map(|line| line.parse::<u32>().ok()));
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    for child in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_processes(&child.path(), depth, processes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, UdpSocket},
        os::{fd::AsFd, unix::fs::MetadataExt},
    };

    use super::*;

    #[test]
    fn sockets_are_found_with_their_owners() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        // A cgroup, as far as it is looked at: this process is in one within it.
        let cgroup = tempfile::tempdir().unwrap();
        let child = cgroup.path().join("child");
        fs::create_dir(&child).unwrap();
        fs::write(
            child.join("cgroup.procs"),
            format!("{}\n", std::process::id()),
        )
        .unwrap();
        let sharer = || Sharer {
            id: "web".into(),
            cgroup: cgroup.path().to_owned(),
        };
        let mut watch = Watch::default();
        let wanted = ListeningSocket {
            container: "web".into(),
            transport: Transport::Tcp,
            port,
        };
        assert!(watch.look(vec![sharer()]).contains(&wanted));
        assert!(watch.look(Vec::new()).is_empty());
        assert!(watch.look(vec![sharer()]).contains(&wanted));
        drop(listener);
        assert!(!watch.look(vec![sharer()]).contains(&wanted));
    }

    #[test]
    fn the_tables_lines_are_understood() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
             1: 0100007F:1F91 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n\
             2: broken\n";
        assert_eq!(
            parse(table, Transport::Tcp),
            [(4711, (Transport::Tcp, 8080))]
        );
        assert!(parse(table, Transport::Udp).is_empty());
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let inode = rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        // A client's, by its port.
        assert!(!sockets().contains_key(&inode));
        assert_ne!(fs::metadata("/proc/net/udp").unwrap().ino(), 0);
    }
}

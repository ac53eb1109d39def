//! One process, as the kernel's `/proc` describes it (proc(5)).

use std::fs;

use crate::clock;

/// The kernel's `USER_HZ`, which times in `/proc` are counted in.
const TICKS: u64 = 100;

/// What is known of one process.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// The program's short name.
    pub(super) name: String,
    /// The command line; the name in brackets if there is none.
    pub(super) command: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) state: char,
    pub(super) parent: u64,
    pub(super) group: u64,
    pub(super) session: u64,
    pub(super) terminal: u64,
    /// The process group in its terminal's foreground.
    pub(super) foreground: i64,
    pub(super) minor_faults: u64,
    pub(super) major_faults: u64,
    pub(super) priority: i64,
    pub(super) nice: i64,
    pub(super) threads: u64,
    /// CPU time, in seconds.
    pub(super) time: u64,
    /// CPU time in thousandths of its age.
    pub(super) usage: u64,
    /// Since it started, in seconds.
    pub(super) age: u64,
    /// When it started, Unix nanoseconds.
    pub(super) started: i64,
    /// Virtual memory, in KiB.
    pub(super) virtual_size: u64,
    /// Resident memory, in KiB.
    pub(super) resident: u64,
    /// The machine's memory, in KiB.
    pub(super) machine_memory: u64,
    /// Some of its pages are locked into memory.
    pub(super) locked: bool,
    /// Where in the kernel it sleeps.
    pub(super) waits_in: String,
}

impl Process {
    /// Reads what there is of `pid`; `None` when it has ended.
    pub(super) fn read(pid: u32) -> Option<Self> {
        let file = |name: &str| fs::read(format!("/proc/{pid}/{name}"));
        // Names and arguments may be any bytes.
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let stat = text(file("stat").ok()?);
        let status = text(file("status").ok()?);
        let arguments = text(file("cmdline").ok()?);
        let waits_in = file("wchan").map(text).unwrap_or_default();
        // The name is in parentheses and may hold anything; the fields come after
        // the last.
        let (head, fields) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let signed = |index: usize| fields.get(index)?.parse::<i64>().ok();
        let ids = |key: &str| status_ids(&status, key);
        let used = number(11)? + number(12)?;
        let started_ms = number(19)?.saturating_mul(1000 / TICKS);
        let age_ms = clock::uptime_ms().saturating_sub(started_ms);
        let command = if arguments.is_empty() {
            format!("[{name}]")
        } else {
            arguments.trim_end_matches('\0').replace('\0', " ")
        };
        Some(Self {
            pid,
            command,
            uid: ids("Uid:")?,
            gid: ids("Gid:")?,
            state: fields.first()?.chars().next()?,
            parent: number(1)?,
            group: number(2)?,
            session: number(3)?,
            terminal: number(4)?,
            foreground: signed(5)?,
            minor_faults: number(7)?,
            major_faults: number(9)?,
            priority: signed(15)?,
            nice: signed(16)?,
            threads: number(17)?,
            time: used / TICKS,
            usage: (used.saturating_mul(1000 / TICKS).saturating_mul(1000))
                .checked_div(age_ms)
                .unwrap_or(0),
            age: age_ms / 1000,
            started: clock::now().saturating_sub((age_ms as i64).saturating_mul(1_000_000)),
            virtual_size: number(20)? / 1024,
            resident: kibibytes(&status, "VmRSS:"),
            machine_memory: machine_memory(),
            locked: kibibytes(&status, "VmLck:") > 0,
            waits_in: match waits_in.as_str() {
                "" | "0" => "-".to_owned(),
                _ => waits_in,
            },
            name,
        })
    }
}

/// The effective id in a line of `/proc/pid/status`: the second of four.
fn status_ids(status: &str, key: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn kibibytes(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

fn machine_memory() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kibibytes(&info, "MemTotal:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let process = Process::read(std::process::id()).unwrap();
        assert_eq!(process.pid, std::process::id());
        assert_eq!(process.uid, rustix::process::geteuid().as_raw());
        assert!(process.resident > 0 && process.virtual_size >= process.resident);
        assert!(process.threads >= 1 && process.machine_memory > 0);
        assert!(!process.command.is_empty());
        assert!(Process::read(u32::MAX).is_none());
    }
}

//! The processes of a container, as `ps -ef` would show them in the machine.

use std::{fs, path::Path};

use guest_protocol::{AgentError, ErrorKind, methods::ProcessList};

use super::{Containers, cgroup};
use crate::{clock, error::Result};

const TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

/// The kernel's `USER_HZ`, which times in `/proc` are counted in.
const TICKS: u64 = 100;

impl Containers {
    /// Its processes.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn top(&self, reference: &str) -> Result<ProcessList> {
        let entry = self.find(reference)?;
        if entry.live().process.is_none() {
            return Err(AgentError::new(
                ErrorKind::Conflict,
                format!("container {} is not running", entry.id),
            ));
        }
        let mut ids = Vec::new();
        collect(&cgroup::path(&entry.id), &mut ids);
        ids.sort_unstable();
        Ok(ProcessList {
            titles: TITLES.map(str::to_owned).to_vec(),
            // One that ended meanwhile is left out.
            processes: ids.into_iter().filter_map(row).collect(),
        })
    }
}

fn collect(cgroup: &Path, ids: &mut Vec<u32>) {
    if let Ok(list) = fs::read_to_string(cgroup.join("cgroup.procs")) {
        ids.extend(list.lines().filter_map(|id| id.parse::<u32>().ok()));
    }
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    for item in below.filter(|item| item.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect(&item.path(), ids);
    }
}

fn row(id: u32) -> Option<Vec<String>> {
    let numbers = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let command = fs::read(format!("/proc/{id}/cmdline")).ok()?;
    let uid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_whitespace()
        .next()?;
    // The name is in parentheses and may hold anything; the fields come after the last.
    let (head, fields) = numbers.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let used = number(11)? + number(12)?;
    let started_ms = number(19)? * 1000 / TICKS;
    let age_ms = clock::uptime_ms().saturating_sub(started_ms);
    let start = clock::now() - (age_ms as i64).saturating_mul(1_000_000);
    let command = if command.is_empty() {
        format!("[{}]", head.split_once('(')?.1)
    } else {
        let text = String::from_utf8_lossy(&command);
        text.trim_end_matches('\0').replace('\0', " ")
    };
    let seconds = used / TICKS;
    let usage = (used * 1000 / TICKS * 100).checked_div(age_ms).unwrap_or(0);
    Some(vec![
        uid.to_owned(),
        id.to_string(),
        fields.get(1)?.to_string(),
        usage.min(99).to_string(),
        clock::rfc3339(start).get(11..16)?.to_owned(),
        terminal(number(4)?),
        format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
        command,
    ])
}

fn terminal(device: u64) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_row() {
        let row = row(std::process::id()).unwrap();
        assert_eq!(row.len(), TITLES.len());
        assert_eq!(row[1], std::process::id().to_string());
    }

    #[test]
    fn terminals_have_names() {
        assert_eq!(terminal(0), "?");
        assert_eq!(terminal(0x8803), "pts/3");
    }
}

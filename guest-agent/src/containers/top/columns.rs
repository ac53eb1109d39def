//! The columns of `ps`: their names, titles and what they show (ps(1), "STANDARD
//! FORMAT SPECIFIERS").

use super::process::Process;
use crate::clock;

/// One column of a list.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) title: String,
    pub(super) show: fn(&Process) -> String,
}

/// A column that `-o` can name: its names, its title, what it shows.
type Known = (
    &'static [&'static str],
    &'static str,
    fn(&Process) -> String,
);

const KNOWN: &[Known] = &[
    (&["pid", "tgid"], "PID", |p| p.pid.to_string()),
    (&["ppid"], "PPID", |p| p.parent.to_string()),
    (&["pgid", "pgrp"], "PGID", |p| p.group.to_string()),
    (&["sid", "sess", "session"], "SID", |p| {
        p.session.to_string()
    }),
    (&["tpgid"], "TPGID", |p| p.foreground.to_string()),
    (&["user", "euser", "uname"], "USER", |p| name(p.uid)),
    (&["ruser"], "RUSER", |p| name(p.uid)),
    (&["uid", "euid"], "UID", |p| p.uid.to_string()),
    (&["group", "egroup"], "GROUP", |p| name(p.gid)),
    (&["rgroup"], "RGROUP", |p| name(p.gid)),
    (&["gid", "egid"], "GID", |p| p.gid.to_string()),
    (&["comm", "ucmd", "ucomm"], "COMMAND", |p| p.name.clone()),
    (&["args", "command"], "COMMAND", |p| p.command.clone()),
    (&["cmd"], "CMD", |p| p.command.clone()),
    (&["%cpu", "pcpu"], "%CPU", cpu_percent),
    (&["c"], "C", |p| (p.usage / 10).min(99).to_string()),
    (&["%mem", "pmem"], "%MEM", memory_percent),
    (&["vsz", "vsize"], "VSZ", |p| p.virtual_size.to_string()),
    (&["rss", "rssize", "rsz"], "RSS", |p| p.resident.to_string()),
    (&["sz"], "SZ", |p| (p.virtual_size / 4).to_string()),
    (&["stat"], "STAT", state),
    (&["s", "state"], "S", |p| p.state.to_string()),
    (&["time", "cputime"], "TIME", |p| hours(p.time)),
    (&["bsdtime"], "TIME", |p| minutes(p.time)),
    (&["times", "cputimes"], "TIME", |p| p.time.to_string()),
    (&["etime"], "ELAPSED", |p| elapsed(p.age)),
    (&["etimes"], "ELAPSED", |p| p.age.to_string()),
    (&["stime", "start_time"], "STIME", |p| {
        start(p.started, p.age)
    }),
    (&["bsdstart"], "START", |p| start(p.started, p.age)),
    (&["start"], "STARTED", |p| clock_time(p.started, 11..19)),
    (&["lstart"], "STARTED", |p| clock_time(p.started, 0..19)),
    (&["tty", "tt", "tname"], "TTY", |p| terminal(p.terminal)),
    (&["ni", "nice"], "NI", |p| p.nice.to_string()),
    (&["pri"], "PRI", |p| (39 - p.priority).to_string()),
    (&["nlwp", "thcount"], "NLWP", |p| p.threads.to_string()),
    (&["lwp", "spid", "tid"], "LWP", |p| p.pid.to_string()),
    (&["min_flt", "minflt"], "MINFLT", |p| {
        p.minor_faults.to_string()
    }),
    (&["maj_flt", "majflt"], "MAJFLT", |p| {
        p.major_faults.to_string()
    }),
    (&["wchan"], "WCHAN", |p| p.waits_in.clone()),
];

/// The column of this name.
pub(super) fn find(name: &str) -> Option<Column> {
    KNOWN
        .iter()
        .find(|(names, ..)| names.contains(&name))
        .map(|(_, title, show)| Column {
            title: (*title).to_owned(),
            show: *show,
        })
}

/// The same under another title.
pub(super) fn titled(name: &str, title: &str) -> Option<Column> {
    Some(Column {
        title: title.to_owned(),
        ..find(name)?
    })
}

/// The machine has no other users; containers' are numbers to it.
fn name(id: u32) -> String {
    if id == 0 {
        "root".to_owned()
    } else {
        id.to_string()
    }
}

fn tenths(thousandths: u64) -> String {
    format!("{}.{}", thousandths / 10, thousandths % 10)
}

fn cpu_percent(process: &Process) -> String {
    tenths(process.usage)
}

fn memory_percent(process: &Process) -> String {
    let share = process.resident.saturating_mul(1000);
    tenths(share.checked_div(process.machine_memory).unwrap_or(0))
}

fn state(process: &Process) -> String {
    let mut text = process.state.to_string();
    match process.nice {
        ..0 => text.push('<'),
        1.. => text.push('N'),
        0 => {}
    }
    for (holds, letter) in [
        (process.locked, 'L'),
        (process.session == u64::from(process.pid), 's'),
        (process.threads > 1, 'l'),
        (u64::try_from(process.foreground) == Ok(process.group), '+'),
    ] {
        if holds {
            text.push(letter);
        }
    }
    text
}

/// `[dd-]hh:mm:ss`
fn hours(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let text = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 {
        format!("{days}-{text}")
    } else {
        text
    }
}

/// `m:ss`
fn minutes(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// `[[dd-]hh:]mm:ss`
fn elapsed(seconds: u64) -> String {
    if seconds < 3600 {
        format!("{:02}:{:02}", seconds / 60, seconds % 60)
    } else {
        hours(seconds)
    }
}

/// The time of day for what started today, else the day.
fn start(started: i64, age: u64) -> String {
    if age < 86400 {
        clock_time(started, 11..16)
    } else {
        clock_time(started, 5..10)
    }
}

/// A part of `2026-11-21T08:00:00…`.
fn clock_time(time: i64, part: std::ops::Range<usize>) -> String {
    clock::rfc3339(time).get(part).unwrap_or("?").to_owned()
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
    fn cells_are_as_ps_writes_them() {
        assert_eq!(hours(3661), "01:01:01");
        assert_eq!(hours(90061), "1-01:01:01");
        assert_eq!(elapsed(61), "01:01");
        assert_eq!(minutes(125), "2:05");
        assert_eq!(tenths(1234), "123.4");
        assert_eq!(terminal(0), "?");
        assert_eq!(terminal(0x8803), "pts/3");
        assert_eq!((name(0), name(1000)), ("root".into(), "1000".into()));
        let process = Process {
            pid: 7,
            state: 'S',
            session: 7,
            group: 7,
            foreground: 7,
            threads: 2,
            ..Process::default()
        };
        assert_eq!(state(&process), "Ssl+");
    }

    #[test]
    fn every_column_has_one_meaning() {
        let mut names: Vec<_> = KNOWN.iter().flat_map(|(names, ..)| *names).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

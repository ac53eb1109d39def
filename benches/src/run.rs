//! A warm `dctl run --rm` of busybox's `true`, and where its time goes.
//!
//! Relays between `dctl` and the engine, and between the engine and the agent,
//! note when each message passes. The command's whole time is cut at these notes,
//! so the pieces add up to it. What the relays themselves cost is seen beside it:
//! the same command without them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Options;
use crate::agent::{Agent, BUSYBOX};
use crate::relay::{self, Inserted, Notes, Speech};
use crate::statistics::{median, milliseconds};

pub(crate) fn run(options: &Options) -> Result<()> {
    let home = tempfile::tempdir()?;
    let measured = measure(options, home.path());
    let stopped = dctl(options, home.path(), None, &["machine", "stop"]);
    measured?;
    stopped.map(|_| ())
}

const RUN: [&str; 4] = ["run", "--rm", BUSYBOX, "true"];

fn measure(options: &Options, home: &Path) -> Result<()> {
    let first = dctl(options, home, None, &["run", "--rm", "hello"])?;
    println!(
        "  first `dctl run --rm hello` (engine, machine, image): {}",
        milliseconds(first)
    );
    let vsock = home.join("run/machines/default/vsock.sock");
    Agent::new(vsock.clone()).import_busybox()?;
    dctl(options, home, None, &RUN)?;
    let (mut runs, mut starts, mut nothings) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds * 2 {
        runs.push(dctl(options, home, None, &RUN)?);
        starts.push(dctl(options, home, None, &["--version"])?);
        let start = Instant::now();
        Command::new("/bin/true").status()?;
        nothings.push(start.elapsed());
    }
    let middle = |values: &[Duration]| median(values).context("nothing was measured");
    println!(
        "  warm `dctl run --rm busybox true`: {}",
        milliseconds(middle(&runs)?)
    );
    println!(
        "  of it, a process that only says its version: {} (/bin/true: {})",
        milliseconds(middle(&starts)?),
        milliseconds(middle(&nothings)?)
    );

    let notes = Notes::default();
    let front = home.join("relay.sock");
    relay::start(
        &front,
        &home.join("run/docker.sock"),
        Speech::Engine,
        &notes,
    )?;
    let _inserted = Inserted::new(&vsock, Speech::Agent, &notes)?;
    let host = format!("unix://{}", front.display());
    let mut table = Table::default();
    for _ in 0..options.rounds * 2 {
        notes.take();
        let start = Instant::now();
        dctl(options, home, Some(&host), &RUN)?;
        let mut round = notes.take();
        round.push((Instant::now(), "dctl ends".to_owned()));
        table.add(start, round);
    }
    print!("{table}");
    Ok(())
}

fn dctl(
    options: &Options,
    home: &Path,
    host: Option<&str>,
    arguments: &[&str],
) -> Result<Duration> {
    let mut command = Command::new(&options.dctl);
    command
        .args(arguments)
        .env("DCTL_HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if let Some(host) = host {
        command.env("DCTL_HOST", host);
    }
    let start = Instant::now();
    let status = command.status().context("cannot run dctl")?;
    if !status.success() {
        bail!("dctl {} failed: {status}", arguments.join(" "));
    }
    Ok(start.elapsed())
}

/// What happened in a command, on the average of its rounds.
#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    rounds: u32,
    total: Duration,
}

struct Row {
    what: String,
    /// Sum over all rounds of the time since what happened before it.
    took: Duration,
    /// Sum over the rounds in which it happened of the time since the start.
    at: Duration,
    rounds: u32,
}

impl Table {
    fn add(&mut self, start: Instant, notes: Vec<(Instant, String)>) {
        let mut last = start;
        for (at, what) in notes {
            let index = self.rows.iter().position(|row| row.what == what);
            let index = index.unwrap_or_else(|| {
                self.rows.push(Row {
                    what,
                    took: Duration::ZERO,
                    at: Duration::ZERO,
                    rounds: 0,
                });
                self.rows.len() - 1
            });
            let row = &mut self.rows[index];
            row.took += at.duration_since(last);
            row.at += at.duration_since(start);
            row.rounds += 1;
            last = at;
        }
        self.rounds += 1;
        self.total += last.duration_since(start);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rounds = self.rounds.max(1);
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|row| row.at / row.rounds.max(1));
        let mut text = String::new();
        writeln!(
            text,
            "  where the time goes, relays in between (average of {} runs):",
            self.rounds
        )?;
        for row in rows {
            writeln!(
                text,
                "  {:>8.1} ms  until {}",
                (row.took / rounds).as_secs_f64() * 1e3,
                row.what
            )?;
        }
        writeln!(
            text,
            "  {:>8.1} ms  in all",
            (self.total / rounds).as_secs_f64() * 1e3
        )?;
        formatter.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_add_up_whatever_their_order() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut table = Table::default();
        table.add(start, vec![(at(1), "a".into()), (at(3), "b".into())]);
        table.add(
            start,
            vec![
                (at(2), "b".into()),
                (at(7), "a".into()),
                (at(9), "c".into()),
            ],
        );
        let sum: Duration = table.rows.iter().map(|row| row.took).sum();
        assert_eq!(sum, table.total);
        assert_eq!(table.total, Duration::from_millis(12));
    }
}

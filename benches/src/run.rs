//! A warm `dctl run --rm`: the command as a user types it, and the calls that it
//! makes to the engine, each by itself.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Options;
use crate::statistics::{median, milliseconds};

pub(crate) fn run(options: &Options) -> Result<()> {
    let home = tempfile::tempdir()?;
    let dctl = |arguments: &[&str]| -> Result<Duration> {
        let start = Instant::now();
        let status = Command::new(&options.dctl)
            .args(arguments)
            .env("DCTL_HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("dctl {} failed: {status}", arguments.join(" "));
        }
        Ok(start.elapsed())
    };
    let measured = measure(options, home.path(), &dctl);
    let stopped = dctl(&["machine", "stop"]);
    measured?;
    stopped.map(|_| ())
}

fn measure(
    options: &Options,
    home: &Path,
    dctl: &dyn Fn(&[&str]) -> Result<Duration>,
) -> Result<()> {
    let first = dctl(&["run", "--rm", "hello"])?;
    println!(
        "  first `dctl run --rm hello` (engine, machine, image): {}",
        milliseconds(first)
    );
    let (mut runs, mut versions) = (Vec::new(), Vec::new());
    let mut steps: Vec<Vec<Duration>> = vec![Vec::new(); STEPS.len()];
    for _ in 0..options.rounds {
        runs.push(dctl(&["run", "--rm", "hello"])?);
        versions.push(dctl(&["version"])?);
        for (times, time) in steps.iter_mut().zip(calls(home)?) {
            times.push(time);
        }
    }
    let middle = |values: &[Duration]| median(values).context("nothing was measured");
    println!(
        "  warm `dctl run --rm hello`: {}",
        milliseconds(middle(&runs)?)
    );
    println!(
        "  of it, the command's own start (`dctl version`): {}",
        milliseconds(middle(&versions)?)
    );
    for (name, times) in STEPS.iter().zip(&steps) {
        println!("  engine: {name}: {}", milliseconds(middle(times)?));
    }
    Ok(())
}

const STEPS: [&str; 4] = ["create", "start", "wait", "remove"];

/// The calls behind `run`, in turn, on the engine's socket.
fn calls(home: &Path) -> Result<[Duration; 4]> {
    let socket = home.join("run/docker.sock");
    let timed = |method: &str, path: &str, body: &str| -> Result<(Duration, String)> {
        let start = Instant::now();
        let answer = http(&socket, method, path, body)?;
        Ok((start.elapsed(), answer))
    };
    let (create, answer) = timed("POST", "/containers/create", r#"{"Image":"hello"}"#)?;
    let answer: serde_json::Value =
        serde_json::from_str(&answer).with_context(|| format!("the engine answered {answer:?}"))?;
    let id = answer["Id"].as_str().context("no id was answered")?;
    let (start, _) = timed("POST", &format!("/containers/{id}/start"), "")?;
    let (wait, _) = timed("POST", &format!("/containers/{id}/wait"), "")?;
    let (remove, _) = timed("DELETE", &format!("/containers/{id}"), "")?;
    Ok([create, start, wait, remove])
}

/// One call of HTTP/1.0, whose answer ends with the connection.
fn http(socket: &Path, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("no engine at {}", socket.display()))?;
    write!(
        stream,
        "{method} /v1.47{path} HTTP/1.0\r\nHost: dctl\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("not HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        bail!("{method} {path}: {status} {body}");
    }
    Ok(body.to_owned())
}

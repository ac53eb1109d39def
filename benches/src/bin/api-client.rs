//! A client of the Docker Engine API that measures what answers it: ours, or dockerd in
//! the lab. Prints a line for each figure, its name and milliseconds, as `peers.sh` does.
//!
//! `api-client SOCKET IMAGE CONTAINERS ROUNDS`; the image must be there.

use std::{
    env,
    io::Read,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::api::Connection;

/// Requests of each kind that are timed.
const REQUESTS: usize = 200;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("api-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let mut next = |name| {
        arguments
            .next()
            .with_context(|| format!("{name} is missing"))
    };
    let socket = next("the socket")?;
    let image = next("the image")?;
    let containers: usize = next("the number of containers")?.parse()?;
    let rounds: usize = next("the number of rounds")?.parse()?;
    let socket = Path::new(&socket);

    let mut client = Connection::open(socket)?;
    let body = format!(
        r#"{{"Image":"{image}","Cmd":["true"],"Labels":{{"one":"1","two":"2"}},"HostConfig":{{"NetworkMode":"none"}}}}"#
    );
    let mut last = String::new();
    for number in 0..containers {
        let path = format!("/containers/create?name=bench-{number}");
        let created = client.ask("POST", &path, &body)?.success().json();
        created["Id"]
            .as_str()
            .context("an id")?
            .clone_into(&mut last);
    }
    let inspect = format!("/containers/{last}/json");
    for (name, path) in [
        ("ping", "/_ping"),
        ("ps", "/containers/json?all=1"),
        ("inspect", inspect.as_str()),
    ] {
        time(name, || {
            client.ask("GET", path, "")?.success();
            Ok(())
        })?;
        // As commands do, each of which connects anew.
        time(&format!("{name}-connecting"), || {
            let mut client = Connection::open(socket)?;
            client.ask("GET", path, "")?.success();
            Ok(())
        })?;
    }
    for number in 0..=rounds {
        let took = life(socket, &image)?;
        // The first is to warm up.
        if number > 0 {
            print("life", took);
        }
    }
    for number in 0..containers {
        let path = format!("/containers/bench-{number}?force=1");
        let removed = client.ask("DELETE", &path, "")?;
        ensure!(removed.status == 204, "status {}", removed.status);
    }
    Ok(())
}

/// The requests of `docker run --rm`, without the client around them.
fn life(socket: &Path, image: &str) -> Result<Duration> {
    let start = Instant::now();
    let mut client = Connection::open(socket)?;
    let body = format!(
        r#"{{"Image":"{image}","Cmd":["true"],"AttachStdout":true,"AttachStderr":true,"HostConfig":{{"NetworkMode":"none","AutoRemove":true}}}}"#
    );
    let created = client.ask("POST", "/containers/create", &body)?;
    let created = created.success().json();
    let id = created["Id"].as_str().context("an id")?;
    let attach = format!("/containers/{id}/attach?stream=1&stdout=1&stderr=1");
    let mut output = Connection::open(socket)?.hijack(&attach, "")?;
    let mut waiting = Connection::open(socket)?;
    let wait = format!("/containers/{id}/wait?condition=removed");
    waiting.begin("POST", &wait, "")?;
    let started = client.ask("POST", &format!("/containers/{id}/start"), "")?;
    started.success();
    let mut said = Vec::new();
    output.read_to_end(&mut said)?;
    let ended = waiting.chunks()?;
    ensure!(
        String::from_utf8_lossy(&ended).contains(r#""StatusCode":0"#),
        "the container failed: {}",
        String::from_utf8_lossy(&ended)
    );
    Ok(start.elapsed())
}

/// Prints the median of many.
fn time(name: &str, mut request: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..REQUESTS / 10 {
        request()?;
    }
    let mut times = Vec::new();
    for _ in 0..REQUESTS {
        let start = Instant::now();
        request()?;
        times.push(start.elapsed());
    }
    times.sort();
    print(name, times[REQUESTS / 2]);
    Ok(())
}

fn print(name: &str, time: Duration) {
    println!("{name} {:.3}", time.as_secs_f64() * 1e3);
}

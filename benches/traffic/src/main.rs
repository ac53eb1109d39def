//! The program: `traffic serve PORT`, or a client and the server it is to measure.
//! A client prints one figure: bytes a second, or microseconds.

use std::io;
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: traffic serve PORT
       traffic download|upload HOST:PORT SECONDS
       traffic latency HOST:PORT OPEN SAMPLES
       traffic short HOST:PORT COUNT";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("traffic: {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

/// Whether the words were understood.
fn run(words: &[&str]) -> io::Result<bool> {
    let number = |text: &str| text.parse().ok();
    match *words {
        ["serve", port] => {
            let Ok(port) = port.parse::<u16>() else {
                return Ok(false);
            };
            traffic::serve(&TcpListener::bind(("0.0.0.0", port))?)?;
        }
        [direction @ ("download" | "upload"), server, seconds] => {
            let Some(seconds) = number(seconds) else {
                return Ok(false);
            };
            let time = Duration::from_secs(seconds);
            let rate = if direction == "download" {
                traffic::download(server, time)?
            } else {
                traffic::upload(server, time)?
            };
            println!("{rate:.0}");
        }
        ["latency", server, open, samples] => {
            let (Ok(open), Ok(samples)) = (open.parse(), samples.parse()) else {
                return Ok(false);
            };
            let latencies = traffic::latencies(server, open, samples)?;
            println!(
                "{} {}",
                latencies.median.as_micros(),
                latencies.p99.as_micros()
            );
        }
        ["short", server, count] => {
            let Ok(count) = count.parse() else {
                return Ok(false);
            };
            let time = traffic::short_connections(server, count)?;
            println!("{}", time.as_micros());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

//! The clients, each of which gives a figure.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::{PIECE, service};

/// Nothing takes longer but a road that is broken.
const WITHIN: Duration = Duration::from_mins(1);

/// What is received first is not counted: windows open.
const WARM_UP: Duration = Duration::from_millis(500);

fn connect(server: &str, service: u8) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, WITHIN) {
            Ok(mut stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(WITHIN))?;
                stream.set_write_timeout(Some(WITHIN))?;
                stream.write_all(&[service])?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[allow(clippy::cast_precision_loss, reason = "a rate is no count")]
fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64()
}

/// Receives from `server` for `time`: bytes a second.
///
/// # Errors
/// A connection that fails or ends.
pub fn download(server: &str, time: Duration) -> io::Result<f64> {
    let mut stream = connect(server, service::SOURCE)?;
    let mut buffer = vec![0; PIECE];
    let begin = Instant::now();
    let (mut counted, mut bytes) = (None, 0);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let now = Instant::now();
        match counted {
            None if now - begin >= WARM_UP => counted = Some(now),
            None => {}
            Some(since) => {
                bytes += count as u64;
                if now - begin >= time + WARM_UP {
                    return Ok(rate(bytes, now - since));
                }
            }
        }
    }
}

/// Sends to `server` for `time`: bytes a second that it says it has received.
///
/// # Errors
/// A connection that fails or ends, and a server that received less than was sent.
pub fn upload(server: &str, time: Duration) -> io::Result<f64> {
    let mut stream = connect(server, service::SINK)?;
    let zeros = vec![0; PIECE];
    let begin = Instant::now();
    let mut sent = 0_u64;
    while begin.elapsed() < time {
        stream.write_all(&zeros)?;
        sent += zeros.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut received = [0; 8];
    stream.read_exact(&mut received)?;
    if u64::from_be_bytes(received) != sent {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(rate(sent, begin.elapsed()))
}

/// Of round trips, how long one in two and one in a hundred takes at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latencies {
    /// The median.
    pub median: Duration,
    /// The 99th percentile.
    pub p99: Duration,
}

/// Sends a byte to `server` and back so many times, one after the other, over as many
/// connections in turn as are `open`.
///
/// # Errors
/// A connection that fails or ends.
pub fn latencies(server: &str, open: usize, samples: usize) -> io::Result<Latencies> {
    let mut streams = (0..open.max(1))
        .map(|_| connect(server, service::ECHO))
        .collect::<io::Result<Vec<_>>>()?;
    let mut byte = [0];
    for stream in &mut streams {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
    }
    let mut times = Vec::with_capacity(samples);
    let count = streams.len();
    for sample in 0..samples.max(1) {
        let stream = &mut streams[sample % count];
        let begin = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    let at = |hundredths: usize| times[(times.len() - 1) * hundredths / 100];
    Ok(Latencies {
        median: at(50),
        p99: at(99),
    })
}

/// So many connections one after the other, each for one byte and back.
///
/// # Errors
/// A connection that fails or ends.
pub fn short_connections(server: &str, count: usize) -> io::Result<Duration> {
    let begin = Instant::now();
    let mut byte = [0];
    for _ in 0..count {
        let mut stream = connect(server, service::ECHO)?;
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
    }
    Ok(begin.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || crate::serve(&listener));
        address
    }

    #[test]
    fn every_figure_comes_from_traffic() {
        let server = server();
        let time = Duration::from_millis(50);
        assert!(download(&server, time).unwrap() > 0.0);
        assert!(upload(&server, time).unwrap() > 0.0);
        let latencies = latencies(&server, 3, 100).unwrap();
        assert!(latencies.median <= latencies.p99);
        assert!(short_connections(&server, 10).unwrap() > Duration::ZERO);
    }

    #[test]
    fn a_server_that_ends_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || drop(listener.accept()));
        assert!(download(&address, WITHIN).is_err());
    }
}

//! The server.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::{PIECE, service};

/// A connection needs no more.
const STACK: usize = 64 * 1024;

/// Serves `listener` until it fails, a thread for each connection.
///
/// # Errors
/// What the listener reports.
pub fn serve(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        thread::Builder::new().stack_size(STACK).spawn(move || {
            // A client that goes away is how most of them end.
            let _ = answer(stream);
        })?;
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wanted = [0];
    stream.read_exact(&mut wanted)?;
    match wanted[0] {
        service::SOURCE => {
            let zeros = vec![0; PIECE];
            loop {
                stream.write_all(&zeros)?;
            }
        }
        service::SINK => {
            let mut buffer = vec![0; PIECE];
            let mut total = 0_u64;
            loop {
                match stream.read(&mut buffer)? {
                    0 => break,
                    count => total += count as u64,
                }
            }
            stream.write_all(&total.to_be_bytes())
        }
        service::ECHO => {
            let mut buffer = [0; 512];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => stream.write_all(&buffer[..count])?,
                }
            }
        }
        _ => Ok(()),
    }
}

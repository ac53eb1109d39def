//! TCP connections.

use std::io;

use tokio::net::{TcpStream, UnixStream};

use super::{accept, policy::Target, refusal, refuse};

/// Connects, answers, and passes bytes until both sides have ended.
pub(super) async fn serve(mut stream: UnixStream, target: Target) -> io::Result<()> {
    let connected = tokio::select! {
        connected = connect(target) => connected,
        // The guest has given up.
        error = gone(&stream) => return Err(error),
    };
    match connected {
        Ok(connection) => {
            accept(&mut stream).await?;
            stream_relay::prepare(&connection)?;
            stream_relay::relay(connection.into_std()?, stream.into_std()?.into()).await?;
            Ok(())
        }
        Err(error) => refuse(stream, refusal(&error)).await,
    }
}

async fn connect(target: Target) -> io::Result<TcpStream> {
    let mut problem = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (number, address) in target.addresses().into_iter().enumerate() {
        match TcpStream::connect(address).await {
            Ok(connection) => return Ok(connection),
            // What the first address says counts: a host may have no IPv6.
            Err(error) if number == 0 => problem = error,
            Err(_) => {}
        }
    }
    Err(problem)
}

/// Waits until the guest closes its stream, which says nothing before it is answered.
async fn gone(stream: &UnixStream) -> io::Error {
    loop {
        if let Err(error) = stream.readable().await {
            return error;
        }
        match stream.try_read(&mut [0]) {
            Ok(0) => return io::ErrorKind::BrokenPipe.into(),
            Ok(_) => return io::ErrorKind::InvalidData.into(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return error,
        }
    }
}

//! One flow of datagrams: a client of the host, as a socket in the container's network.

use std::{io, net};

use guest_protocol::datagrams::{DatagramReader, DatagramWriter, MAX_DATAGRAM};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::UdpSocket,
};

/// Bytes of datagrams that are read from the host at once.
const BUFFER: usize = 16 * 1024;

/// Passes datagrams on until the host closes.
///
/// # Errors
/// When the stream breaks or the socket cannot be waited for. What the socket says
/// about single datagrams (nobody listens, too long) is no end: UDP promises nothing.
pub(crate) async fn carry(
    socket: net::UdpSocket,
    stream: impl AsyncRead + AsyncWrite + Send,
) -> io::Result<()> {
    let socket = UdpSocket::from_std(socket)?;
    let (from_host, to_host) = tokio::io::split(stream);
    let mut from_host = DatagramReader::new(BufReader::with_capacity(BUFFER, from_host));
    let mut to_host = DatagramWriter::new(to_host);
    let inward = async {
        while let Some(payload) = from_host.next().await? {
            // As on any network: what is not taken is lost.
            let _ = socket.send(payload).await;
        }
        Ok(())
    };
    let outward = async {
        let mut payload = vec![0; MAX_DATAGRAM];
        loop {
            socket.readable().await?;
            match socket.try_recv(&mut payload) {
                Ok(length) => {
                    let payload = payload.get(..length).unwrap_or_default();
                    to_host.write(payload).await?;
                }
                // Nothing yet, or an ICMP message about a datagram that was sent.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::select! {
        ended = inward => ended,
        broken = outward => broken,
    }
}

//! The way out: reaches for the containers of a machine what they ask for, as a
//! program of the user's.
//!
//! The guest opens one stream for each connection, flow of datagrams, pinging program
//! or DNS question ([`guest_protocol::egress`]). [`policy`] says what it may have and
//! what an address means here; [`tcp`], [`udp`], [`echo`] and [`resolve`] do it. The
//! guest is not trusted: what it can cause to be open or kept is bounded.
//!
//! Nothing here keeps state of the host's network: each thing is asked of the host's
//! kernel and resolver when it is wanted, so a network that changes is no event.

mod echo;
mod policy;
mod resolve;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use dctl_machine::Machine;
use guest_protocol::{
    egress::{EGRESS_PORT, Refusal, Request},
    frame,
};
use rustix::io::Errno;
use tokio::{net::UnixStream, sync::Semaphore, time::timeout};

use crate::guest_streams;
use policy::Policy;

/// Streams of the guest at most; the guest is told of further ones.
const MOST: usize = 4096;

/// How long a stream may take to say what it is for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the machine's guest for as long as the engine runs.
pub(crate) async fn keep(machine: Machine) {
    let slots = Arc::new(Semaphore::new(MOST));
    let policy = Arc::new(Policy::of(machine.files().clone()));
    guest_streams::accept(&machine, EGRESS_PORT, |stream| {
        serve(stream, &slots, &policy);
    })
    .await;
}

fn serve(stream: UnixStream, slots: &Arc<Semaphore>, policy: &Arc<Policy>) {
    let slot = Arc::clone(slots).try_acquire_owned();
    let policy = Arc::clone(policy);
    tokio::spawn(async move {
        let done = match slot {
            Ok(_slot) => answer(stream, &policy).await,
            Err(_) => refuse(stream, Refusal::TooMany).await,
        };
        if let Err(error) = done {
            tracing::debug!(%error, "a stream of the guest ended early");
        }
    });
}

async fn answer(mut stream: UnixStream, policy: &Policy) -> io::Result<()> {
    let request = timeout(REQUEST_TIMEOUT, frame::read(&mut stream)).await?;
    let request: Request = request.map_err(io::Error::other)?;
    tracing::trace!(?request, "leaves");
    let allowed = |to| policy.target(to);
    match request {
        Request::Tcp(to) => match allowed(to) {
            Ok(target) => tcp::serve(stream, target).await,
            Err(refusal) => refuse(stream, refusal).await,
        },
        Request::Udp(to) => match allowed(to) {
            Ok(target) => udp::serve(stream, target).await,
            Err(refusal) => refuse(stream, refusal).await,
        },
        Request::Echo(to) => match allowed(SocketAddr::new(to, 0)) {
            Ok(target) => echo::serve(stream, target).await,
            Err(refusal) => refuse(stream, refusal).await,
        },
        Request::Resolve => resolve::serve(stream).await,
    }
}

async fn accept(stream: &mut UnixStream) -> io::Result<()> {
    let answer: guest_protocol::egress::Answer = Ok(());
    frame::write(stream, &answer)
        .await
        .map_err(io::Error::other)
}

async fn refuse(mut stream: UnixStream, refusal: Refusal) -> io::Result<()> {
    let answer: guest_protocol::egress::Answer = Err(refusal);
    frame::write(&mut stream, &answer)
        .await
        .map_err(io::Error::other)
}

/// What the host's error is to the guest.
fn refusal(error: &io::Error) -> Refusal {
    let Some(error) = Errno::from_io_error(error) else {
        return Refusal::HostUnreachable;
    };
    match error {
        Errno::CONNREFUSED | Errno::CONNRESET => Refusal::Refused,
        Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT => {
            Refusal::NetworkUnreachable
        }
        Errno::TIMEDOUT => Refusal::TimedOut,
        Errno::ACCESS | Errno::PERM => Refusal::Prohibited,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Refusal::TooMany,
        _ => Refusal::HostUnreachable,
    }
}

//! The way out: what containers send to the world is carried by the host.
//!
//! No packet leaves the guest. Its kernel ends the connections here ([`table`] and
//! [`link`] see to it that they come), and what they carry goes to the engine over
//! vsock ([`engine`]), one stream for each, which reaches the destination as a program
//! of the user's. The first packet of anything is held by [`queue`] until the host
//! knows whether the destination can be reached: so a refusal, an unreachable network
//! and a slow one are inside what they are outside. Then [`connections`], [`flows`]
//! (UDP) or [`echo`] (ping) have it.
//!
//! Containers are not trusted: what they can cause to be held or opened is bounded,
//! and their packets are parsed by [`packet`], which takes any bytes.

mod connections;
mod echo;
mod engine;
mod flows;
mod link;
mod packet;
mod queue;
mod sockets;
mod table;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc};

pub(crate) use engine::Engine;

use crate::error::{Context, Result};

/// What is set up for one network namespace.
#[derive(Debug)]
struct Settings {
    engine: Engine,
    /// The kind of the link that the default routes go to.
    link_kind: &'static str,
}

/// Carries what leaves this machine, from now on and for as long as the process lives.
/// Called within the runtime that does it, in the machine's own network namespace.
///
/// # Errors
/// When the kernel refuses an interface, a rule or a socket.
pub(crate) fn start() -> Result<()> {
    start_with(Settings {
        engine: Engine::Vsock,
        link_kind: "dummy",
    })
}

fn start_with(settings: Settings) -> Result<()> {
    bypass_bridges().context("cannot keep bridges out of the way of packets that leave")?;
    link::set_up(settings.link_kind)?;
    let listeners =
        connections::Listeners::bind().context("cannot listen for connections that leave")?;
    table::replace(listeners.port())?;
    let queue = queue::Queue::open().context("cannot hold packets that leave")?;
    let engine = Arc::new(settings.engine);
    let connections = connections::Connections::start(Arc::clone(&engine), listeners);
    let handlers = queue::Handlers {
        connections,
        flows: flows::Flows::new(Arc::clone(&engine)),
        echo: echo::Echo::new(engine),
    };
    tokio::spawn(queue.serve(handlers));
    Ok(())
}

/// Keeps the hooks of IP from being called for frames that a bridge passes on: called
/// there, they would find a connection's socket, which is forgotten until the packet
/// comes to the machine itself.
fn bypass_bridges() -> io::Result<()> {
    for switch in ["iptables", "ip6tables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{switch}");
        match std::fs::write(path, "0") {
            // A kernel that cannot do it does not do it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// Has the host's resolver answer a DNS message.
///
/// # Errors
/// When the engine cannot be reached or gives no answer.
pub(crate) async fn resolve(question: &[u8]) -> io::Result<Vec<u8>> {
    Engine::Vsock.resolve(question).await
}

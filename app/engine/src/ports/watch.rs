//! Listeners of containers that start and end without a request: by a restart policy,
//! at a boot, before this engine was started; and of what containers listen on that
//! share the machine's network (`--network host`).

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry as MapEntry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use guest_protocol::{
    container::Event,
    frame,
    methods::{Events, ListeningSockets},
    port::ListeningSocket,
};
use tokio::task::JoinHandle;

use super::{Listeners, Ports, bind};
use crate::agent::CallError;

/// How long to wait before a machine that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// How often ports that could not be bound are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Actions after which a container runs, or does not.
const ACTIONS: [&str; 3] = ["start", "die", "destroy"];

/// Follows the machine for as long as the engine runs.
pub(crate) async fn follow(ports: Ports) {
    loop {
        ports.shared.agent.guest().wait_until_running().await;
        let followed = tokio::select! {
            followed = containers(&ports) => followed,
            followed = machine_network(&ports) => followed,
        };
        if let Err(error) = followed {
            tracing::debug!(%error, "the machine's ports are not followed");
        }
        // It is off, or does not answer.
        ports.close(|_, _| true).await;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Follows containers until the machine ends.
async fn containers(ports: &Ports) -> Result<(), CallError> {
    let events = Events {
        since: None,
        until: None,
    };
    let ((), stream) = ports.shared.agent.open_running(events).await?;
    // What happens from here on is told: nothing is lost between the two.
    ports.reconcile_all().await?;
    let follow = async {
        let mut stream = stream;
        // The end of the machine is the end of its events.
        while let Ok(event) = frame::read::<_, Event>(&mut stream).await {
            if event.kind == "container" && ACTIONS.contains(&event.action.as_str()) {
                ports.reconcile(&event.id).await;
            }
        }
        Ok(())
    };
    let retry = async {
        loop {
            tokio::time::sleep(RETRY).await;
            if ports.any_missing() {
                ports.reconcile_all().await?;
            }
        }
    };
    tokio::select! {
        ended = follow => ended,
        failed = retry => failed,
    }
}

/// Follows what containers listen on in the machine's network until it ends.
async fn machine_network(ports: &Ports) -> Result<(), CallError> {
    let ((), mut stream) = ports.shared.agent.open_running(ListeningSockets {}).await?;
    let mut open = Open::default();
    while let Ok(sockets) = frame::read::<_, BTreeSet<ListeningSocket>>(&mut stream).await {
        open.become_these(ports, sockets).await;
    }
    Ok(())
}

/// Listeners on the host's loopback addresses. Gone when dropped.
#[derive(Default)]
struct Open {
    listeners: HashMap<ListeningSocket, Vec<JoinHandle<()>>>,
}

impl Open {
    async fn become_these(&mut self, ports: &Ports, sockets: BTreeSet<ListeningSocket>) {
        let gone: Vec<_> = self
            .listeners
            .extract_if(|socket, _| !sockets.contains(socket))
            .collect();
        for (_, tasks) in gone {
            Listeners::Serving(tasks).close().await;
        }
        for socket in sockets {
            if let MapEntry::Vacant(place) = self.listeners.entry(socket) {
                let tasks = open(ports, place.key());
                place.insert(tasks);
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        for task in self.listeners.values().flatten() {
            task.abort();
        }
    }
}

/// Opens the port on both loopback addresses, as far as it is free.
fn open(ports: &Ports, socket: &ListeningSocket) -> Vec<JoinHandle<()>> {
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let target = ports.target(&socket.container, socket.port);
    let mut tasks = Vec::new();
    for address in loopback {
        let address = SocketAddr::new(address, socket.port);
        let served = bind::socket(address, socket.transport)
            .and_then(|bound| bind::serve(bound, target.clone()));
        match served {
            Ok(task) => tasks.push(task),
            Err(error) => tracing::warn!(
                %address, transport = socket.transport.as_str(), %error,
                "what a container listens on in the machine's network is not on the host"
            ),
        }
    }
    tasks
}

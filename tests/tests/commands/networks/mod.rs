//! Networks: their lives, who reaches whom in them, names and addresses.

mod addresses;
mod lives;
mod names;
mod reach;

use std::sync::atomic::{AtomicU32, Ordering};

use crate::shared::{Name, dctl, shared};

/// A network's name that nobody else uses, and whose network goes with it.
///
/// Declared before its containers, it goes after them.
struct Network(String);

impl Network {
    /// A name; the network is not made.
    fn name() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(format!("net{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Made with these options.
    #[track_caller]
    fn new(options: &[&str]) -> Self {
        let network = Self::name();
        dctl(&[&["network", "create"], options, &[network.as_str()]].concat()).success();
        network
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It may never have come to be.
        let _ = dctl(&["network", "rm", "--force", &self.0]);
    }
}

/// A container that sleeps, with these options.
#[track_caller]
fn sleeping(options: &[&str]) -> Name {
    let name = Name::new();
    let head = ["run", "-d", "--name", name.as_str()];
    let tail = [shared().busybox.as_str(), "sleep", "600"];
    dctl(&[&head[..], options, &tail].concat()).success();
    name
}

/// What `script` does in a container that runs.
#[track_caller]
fn exec(container: &Name, script: &str) -> tests::Finished {
    dctl(&["exec", container.as_str(), "sh", "-c", script])
}

/// Whether one ping from `container` to `target` comes back.
#[track_caller]
fn reaches(container: &Name, target: &str) -> bool {
    exec(container, &format!("ping -c 1 -W 2 {target}")).code() == 0
}

/// A field of an end point of a container in a network.
#[track_caller]
fn endpoint(container: &Name, network: &str, field: &str) -> String {
    let template = format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}");
    shared().installation.inspect(container.as_str(), &template)
}

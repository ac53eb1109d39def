//! What happens to containers, told to whoever listens.

use std::collections::BTreeMap;

use guest_protocol::container::{Container, Event};
use tokio::sync::broadcast;

use crate::clock;

/// Events that wait for one slow listener; older ones are lost to it.
const QUEUE: usize = 1024;

/// Where events go. Clones share the listeners.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            sender: broadcast::Sender::new(QUEUE),
        }
    }

    /// What happens from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    /// Tells that `action` happened to `container`; `more` are attributes beside
    /// its name, image and labels.
    pub(crate) fn container(&self, container: &Container, action: &str, more: &[(&str, String)]) {
        let mut attributes: BTreeMap<String, String> = container
            .config
            .labels
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        attributes.insert("image".into(), container.image.clone());
        attributes.insert("name".into(), container.name.clone());
        attributes.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone())),
        );
        self.send("container", action, &container.id, attributes);
    }

    /// Tells that `action` happened to the image `id`, known as `name`.
    pub(crate) fn image(&self, id: &str, action: &str, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.send("image", action, id, attributes);
    }

    fn send(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        // An error means that nobody listens.
        let _ = self.sender.send(Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            id: id.to_owned(),
            attributes,
            time: clock::now(),
        });
    }
}

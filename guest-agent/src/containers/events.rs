//! What happens to containers, told to whoever listens.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use guest_protocol::{
    container::{Container, Event},
    image::Image,
};
use serde_json::Value;
use tokio::sync::broadcast;

use crate::clock;

/// Events that wait for one slow listener; older ones are lost to it.
const QUEUE: usize = 1024;

/// How many past events are remembered: more than Docker's 256, which a few health
/// checks push out in minutes.
const REMEMBERED: usize = 1024;

/// How much of a container's labels its events tell, in bytes. Configurations may hold
/// megabytes of them, and events are kept, and queued for each listener.
const LABELS: usize = 64 * 1024;

/// Where events go. Clones share the listeners and the memory.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
    past: Arc<Mutex<VecDeque<Event>>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            sender: broadcast::Sender::new(QUEUE),
            past: Arc::default(),
        }
    }

    /// What happens from now on, and what is remembered from `since` (Unix
    /// nanoseconds) on. No event is in both, none is lost between them.
    pub(crate) fn subscribe(&self, since: Option<i64>) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = self.past();
        let remembered = match since {
            Some(since) => past
                .iter()
                .filter(|event| event.time >= since)
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        (remembered, self.sender.subscribe())
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that `action` happened to `container`; `more` are attributes beside
    /// its name, image and labels.
    pub(crate) fn container(&self, container: &Container, action: &str, more: &[(&str, String)]) {
        let labels = container.config.labels.iter().flatten();
        let labels = labels.map(|(key, value)| (key.as_str(), value.as_str()));
        let mut attributes = kept_labels(labels);
        attributes.insert("image".into(), container.image.clone());
        attributes.insert("name".into(), container.name.clone());
        attributes.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone())),
        );
        self.send("container", action, &container.id, attributes);
    }

    /// Tells that `action` happened to an image that is there; `actor` is its id, or the
    /// name that it was pulled or pushed by.
    pub(crate) fn image(&self, image: &Image, actor: &str, action: &str, name: &str) {
        let labels = image.configuration.pointer("/config/Labels");
        let labels = labels.and_then(Value::as_object).into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        let mut attributes = kept_labels(labels);
        attributes.insert("name".to_owned(), name.to_owned());
        self.send("image", action, actor, attributes);
    }

    /// Tells that the image `id` is there no more.
    pub(crate) fn image_deleted(&self, id: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), id.to_owned())]);
        self.send("image", "delete", id, attributes);
    }

    /// Tells that `action` happened to a volume; `more` are attributes beside its
    /// driver.
    pub(crate) fn volume(&self, name: &str, action: &str, more: &[(&str, String)]) {
        let mut attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        attributes.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone())),
        );
        self.send("volume", action, name, attributes);
    }

    /// Tells that `action` happened to a network, or to a container in it.
    pub(crate) fn network(
        &self,
        id: &str,
        name: &str,
        driver: &str,
        action: &str,
        container: Option<&str>,
    ) {
        let mut attributes = BTreeMap::from([
            ("name".to_owned(), name.to_owned()),
            ("type".to_owned(), driver.to_owned()),
        ]);
        if let Some(container) = container {
            attributes.insert("container".to_owned(), container.to_owned());
        }
        self.send("network", action, id, attributes);
    }

    /// Tells that unused things of a kind were removed, which took so many bytes.
    pub(crate) fn pruned(&self, kind: &str, reclaimed: u64) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed.to_string())]);
        self.send(kind, "prune", "", attributes);
    }

    fn send(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let event = Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            id: id.to_owned(),
            attributes,
            time: clock::now(),
        };
        // Held until it is sent: whoever subscribes sees it once.
        let mut past = self.past();
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(event.clone());
        // An error means that nobody listens.
        let _ = self.sender.send(event);
    }
}

/// As many labels as events may tell.
fn kept_labels<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    let mut room = LABELS;
    let fits = |(key, value): &(&str, &str)| {
        let left = room.checked_sub(key.len() + value.len());
        room = left.unwrap_or(room);
        left.is_some()
    };
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    labels.filter(fits).map(owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_without_end_are_not_kept() {
        let events = Events::new();
        let mut container = Container::default();
        let labels = [("small", 10), ("large", LABELS)].map(|(key, length)| {
            let value = "x".repeat(length);
            (key.to_owned(), value)
        });
        container.config.labels = Some(labels.into());
        events.container(&container, "create", &[]);
        let (past, _) = events.subscribe(Some(0));
        let keys: Vec<_> = past[0].attributes.keys().collect();
        assert_eq!(keys, ["image", "name", "small"]);
    }

    #[test]
    fn the_last_events_are_remembered_and_told_once() {
        let events = Events::new();
        let count = REMEMBERED + 44;
        for number in 0..count {
            events.image_deleted(&number.to_string());
        }
        let (past, mut coming) = events.subscribe(Some(0));
        assert_eq!(past.len(), REMEMBERED);
        assert_eq!(past[0].id, "44");
        assert!(coming.try_recv().is_err());
        events.image_deleted("next");
        assert_eq!(coming.try_recv().unwrap().id, "next");
        let last = past.last().unwrap().time + 1;
        assert_eq!(events.subscribe(Some(last)).0.len(), 1);
        assert!(events.subscribe(None).0.is_empty());
    }
}

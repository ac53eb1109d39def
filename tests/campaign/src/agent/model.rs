//! What must be there: what one worker was told, and what its last call, which the
//! kill cut off, may have changed.

use std::collections::{BTreeMap, BTreeSet};

/// Something that is known, or was about to become something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot<T> {
    /// What was acknowledged last.
    pub(crate) known: T,
    /// What the call under way would make of it.
    pub(crate) pending: Option<T>,
}

impl<T: PartialEq> Slot<T> {
    pub(crate) fn new(known: T) -> Self {
        Self {
            known,
            pending: None,
        }
    }

    pub(crate) fn allows(&self, found: &T) -> bool {
        self.known == *found || self.pending.as_ref() == Some(found)
    }

    /// It turned out to be this.
    pub(crate) fn settle(&mut self, found: T) {
        self.known = found;
        self.pending = None;
    }
}

/// Makes what is different in `next` pending.
fn on_the_way<T: Clone + PartialEq>(
    slots: &mut BTreeMap<String, Slot<T>>,
    next: &BTreeMap<String, Slot<T>>,
    absent: &T,
) {
    for (name, after) in next {
        let slot = slots
            .entry(name.clone())
            .or_insert_with(|| Slot::new(absent.clone()));
        if slot.known != after.known {
            slot.pending = Some(after.known.clone());
        }
    }
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Made {
    /// Its id, when it was told.
    pub(crate) id: Option<String>,
    /// Its image's id.
    pub(crate) image: String,
    /// How its last run ended, when that was told.
    pub(crate) exit_code: Option<i64>,
    /// Its anonymous volumes, once they are known.
    pub(crate) volumes: Option<Vec<String>>,
    /// The named volume that it writes to.
    pub(crate) named: Option<String>,
}

/// What one worker knows. Its names are nobody else's.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// The worker's number: it is in all names.
    pub(crate) number: usize,
    /// Image ids by tag.
    pub(crate) tags: BTreeMap<String, Slot<Option<String>>>,
    /// Containers by name; `None` for one that is gone.
    pub(crate) containers: BTreeMap<String, Slot<Option<Made>>>,
    /// What named volumes hold, by name.
    pub(crate) tokens: BTreeMap<String, Slot<Option<String>>>,
    /// Volumes without containers by name: the token of what they were filled with,
    /// empty for nothing; `None` for one that is gone.
    pub(crate) volumes: BTreeMap<String, Slot<Option<String>>>,
    /// Layers that containers' changes became.
    pub(crate) committed: BTreeSet<String>,
    /// Anonymous volumes that their containers left behind.
    pub(crate) kept: BTreeSet<String>,
    /// Anonymous volumes that may be either.
    pub(crate) doubtful: BTreeSet<String>,
    /// Groups of names of which all exist or none: tags of one call.
    pub(crate) together: Vec<String>,
    /// Two names of which one exists: a container being renamed.
    pub(crate) renamed: Option<(String, String)>,
    /// The container that was being run.
    pub(crate) running: Option<String>,
    /// The container that the last call ran, whether it was cut off or not.
    pub(crate) ran: Option<String>,
    /// All ids ever given out.
    pub(crate) ids: BTreeSet<String>,
    /// Makes each token, image and container one of its own.
    pub(crate) counter: u32,
}

impl Model {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            number,
            tags: BTreeMap::new(),
            containers: BTreeMap::new(),
            tokens: BTreeMap::new(),
            volumes: BTreeMap::new(),
            committed: BTreeSet::new(),
            kept: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            together: Vec::new(),
            renamed: None,
            running: None,
            ran: None,
            ids: BTreeSet::new(),
            counter: 0,
        }
    }

    /// A number that was not used before.
    pub(crate) fn next(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    /// The call under way was refused: everything is as it was.
    pub(crate) fn forget_pending(&mut self) {
        self.tags.values_mut().for_each(|slot| slot.pending = None);
        self.containers
            .values_mut()
            .for_each(|slot| slot.pending = None);
        self.tokens
            .values_mut()
            .for_each(|slot| slot.pending = None);
        self.volumes
            .values_mut()
            .for_each(|slot| slot.pending = None);
        self.doubtful.clear();
        self.settled();
    }

    /// This model on the way to `next`, which is one call later.
    pub(crate) fn until(&self, next: &Self) -> Self {
        let mut model = self.clone();
        on_the_way(&mut model.tags, &next.tags, &None);
        on_the_way(&mut model.tokens, &next.tokens, &None);
        on_the_way(&mut model.volumes, &next.volumes, &None);
        model.committed.extend(next.committed.iter().cloned());
        on_the_way(&mut model.containers, &next.containers, &None);
        let (mut came, mut went) = (None, None);
        for (name, slot) in &model.containers {
            match (&slot.known, &slot.pending) {
                (None, Some(Some(_))) => came = Some(name.clone()),
                (Some(_), Some(None)) => went = Some(name.clone()),
                _ => {}
            }
        }
        // It may end as it did before: the code does not tell.
        model.running.clone_from(&next.ran);
        model.renamed = went.zip(came);
        let kept = next.kept.difference(&self.kept).cloned();
        model.doubtful.extend(kept);
        model
    }

    /// Ids of containers that are there, and that no call under way takes away.
    pub(crate) fn sure_containers(&self) -> impl Iterator<Item = &str> {
        self.containers.values().filter_map(|slot| {
            let made = slot.known.as_ref()?;
            slot.pending.is_none().then_some(made.id.as_deref()?)
        })
    }

    /// The call under way is over.
    pub(crate) fn settled(&mut self) {
        self.together.clear();
        self.renamed = None;
        self.running = None;
    }
}

//! Volumes that no container has: made, filled from an archive as a whole, removed.

use std::collections::BTreeMap;

use guest_protocol::methods::{VolumeCreate, VolumeRemove, VolumeRestore};

use super::Worker;
use crate::agent::{
    call::{Called, receive, send_chunks},
    images::archive_of,
    model::Slot,
};

/// How many a worker has.
const VOLUMES: u32 = 3;
/// Files in an archive.
const FILES: usize = 5;

/// The files that a volume was filled with, by name. None for no token.
pub(crate) fn files(token: &str) -> BTreeMap<String, Vec<u8>> {
    if token.is_empty() {
        return BTreeMap::new();
    }
    let seed = token.bytes().fold(0_u64, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(byte.into())
    });
    let mut random = fastrand::Rng::with_seed(seed);
    (0..FILES)
        .map(|number| {
            let mut contents = vec![0; random.usize(..60_000)];
            random.fill(&mut contents);
            (format!("file-{number}"), contents)
        })
        .chain([("token".to_owned(), token.as_bytes().to_vec())])
        .collect()
}

impl Worker<'_> {
    fn volume_name(&mut self) -> String {
        self.name("lone-volume", VOLUMES)
    }

    pub(super) fn create_volume(&mut self) -> Called<()> {
        let name = self.volume_name();
        let slot = self.model.volumes.entry(name.clone());
        let slot = slot.or_insert_with(|| Slot::new(None));
        if slot.known.is_none() {
            slot.pending = Some(Some(String::new()));
        }
        self.caller.call(VolumeCreate {
            name: Some(name.clone()),
            driver: String::new(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        })?;
        self.settle_volume(&name);
        Ok(())
    }

    /// One that is there: the call makes it first, which is a change of its own.
    pub(super) fn restore_volume(&mut self) -> Called<()> {
        let name = self.volume_name();
        let number = self.model.next();
        let token = format!("{}-{number}", self.model.number);
        let Some(slot) = self.model.volumes.get_mut(&name) else {
            return Ok(());
        };
        if slot.known.is_none() {
            return Ok(());
        }
        let archive = archive_of(files(&token))?;
        slot.pending = Some(Some(token));
        let ((), mut stream) = self.caller.open(VolumeRestore { name: name.clone() })?;
        send_chunks(&mut stream, &archive);
        receive::<()>(&mut stream)?;
        self.settle_volume(&name);
        Ok(())
    }

    pub(super) fn remove_volume(&mut self) -> Called<()> {
        let name = self.volume_name();
        if let Some(slot) = self.model.volumes.get_mut(&name) {
            slot.pending = Some(None);
        }
        self.caller.call(VolumeRemove {
            name: name.clone(),
            force: self.random.bool(),
        })?;
        self.settle_volume(&name);
        Ok(())
    }

    fn settle_volume(&mut self, name: &str) {
        if let Some(slot) = self.model.volumes.get_mut(name)
            && let Some(pending) = slot.pending.take()
        {
            slot.known = pending;
        }
    }
}

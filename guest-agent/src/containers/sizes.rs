//! How much disk a container takes: what it wrote, and that with its image.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
};

use guest_protocol::methods::DiskUsage;

use super::{Containers, Entry};
use crate::error::Result;

impl Containers {
    /// The sizes of one container, or of all, by id. Reads every directory that they
    /// wrote to.
    ///
    /// # Errors
    /// When there is no such container, or the images cannot be read.
    pub(crate) fn sizes(&self, reference: Option<&str>) -> Result<BTreeMap<String, DiskUsage>> {
        let entries = match reference {
            Some(reference) => vec![self.find(reference)?],
            None => self.entries(),
        };
        Ok(entries
            .iter()
            .map(|entry| (entry.id.clone(), self.size_of(entry)))
            .collect())
    }

    fn size_of(&self, entry: &Entry) -> DiskUsage {
        let image = entry.record().container.image_id.clone();
        // An image that was removed by force has no size any more.
        let image = self.shared.images.resolve(&image);
        let written = folder_size(&self.shared.paths.container(&entry.id).join("upper"));
        DiskUsage {
            written,
            total: image.map_or(0, |image| image.size).saturating_add(written),
        }
    }
}

/// Bytes in the regular files of a tree, each counted once however many names it
/// has, and in symbolic links. What goes away meanwhile is not counted.
fn folder_size(folder: &Path) -> u64 {
    let mut total = 0_u64;
    let mut linked = HashSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = item.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(item.path());
            } else if metadata.nlink() == 1 || linked.insert((metadata.dev(), metadata.ino())) {
                total = total.saturating_add(metadata.size());
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/one"), [0; 100]).unwrap();
        fs::hard_link(at("a/b/one"), at("two")).unwrap();
        fs::write(at("three"), [0; 10]).unwrap();
        assert_eq!(folder_size(folder.path()), 110);
        assert_eq!(folder_size(&at("nothing")), 0);
    }
}

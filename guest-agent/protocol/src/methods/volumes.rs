//! Volumes, and archives of their files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Method, Request};
use crate::volume::Volume;

methods! {
    /// Makes a volume; one that exists with the same driver and options is as good.
    VolumeCreate {
        /// Its name; the agent makes one up when there is none.
        name: Option<String>,
        /// Its driver: `local`, or empty for it.
        driver: String,
        /// Options of the driver.
        options: BTreeMap<String, String>,
        /// Labels.
        labels: BTreeMap<String, String>,
    } -> Volume;

    /// All volumes, by name.
    VolumeList {} -> Vec<Volume>;

    /// One volume.
    VolumeInspect {
        /// Its name.
        name: String,
    } -> Volume;

    /// Bytes that the files of a volume take on the disk.
    VolumeUsage {
        /// Its name.
        name: String,
    } -> u64;

    /// Removes a volume that no container has.
    VolumeRemove {
        /// Its name.
        name: String,
        /// No error when there is none.
        force: bool,
    } -> ();

    /// A volume's files as a tar. The stream is as for
    /// [`ContainerArchiveGet`](super::ContainerArchiveGet).
    VolumeBackup {
        /// Its name.
        name: String,
    } -> ();

    /// Puts what a tar holds in place of a volume's files, all or nothing; makes the
    /// volume when there is none. The stream is as for
    /// [`ContainerArchivePut`](super::ContainerArchivePut). A
    /// [`crate::ErrorKind::Conflict`] while a container that has it runs.
    VolumeRestore {
        /// Its name.
        name: String,
    } -> ();
}

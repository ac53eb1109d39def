//! The directory that `app/machine` embeds: the guest's kernel and initial root,
//! compressed, the starter image, and the digests of what they unpack to.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::{self, Key, Places};
use crate::kernel::{self, Arch};
use crate::{initramfs, rust};

/// Builds all assets and returns their directory.
pub(crate) fn build(places: &Places) -> Result<PathBuf> {
    let kernel = kernel::build(places, Arch::X86_64)?;
    let initial_root = initramfs::build(places)?;
    let starter = starter_image(places)?;

    let mut sums = String::new();
    let mut sum = |name: &str, path: &Path| -> Result<()> {
        // The format of sha256sum(1).
        writeln!(sums, "{}  {name}", cache::sha256(path)?)?;
        Ok(())
    };
    sum("vmlinux", &kernel)?;
    sum("initramfs.cpio", &initial_root)?;
    sum("starter-image.tar", &starter)?;

    let directory = &places.assets;
    cache::copy(
        &compressed(places, &kernel)?,
        &directory.join("vmlinux.zst"),
    )?;
    cache::copy(
        &compressed(places, &initial_root)?,
        &directory.join("initramfs.cpio.zst"),
    )?;
    cache::copy(&starter, &directory.join("starter-image.tar"))?;
    if !fs::read_to_string(directory.join("SHA256SUMS")).is_ok_and(|present| present == sums) {
        cache::write(&directory.join("SHA256SUMS"), sums.as_bytes())?;
    }
    // Machines, tests and benches that are given files rather than an embedding program.
    cache::copy(&kernel, &rust::guest_directory(places).join("vmlinux"))?;
    Ok(directory.clone())
}

/// A compressed copy in the cache: the kernel takes a while, and rarely changes.
fn compressed(places: &Places, file: &Path) -> Result<PathBuf> {
    let key = Key::new("1").with_file("file", file)?;
    let entry = places.entry("compressed", &key, |work| {
        initramfs::compress(file, &work.join("zst"))
    })?;
    Ok(entry.join("zst"))
}

/// The starter image as a tar of an OCI image layout.
fn starter_image(places: &Places) -> Result<PathBuf> {
    let program = rust::starter_program(places)?;
    let program =
        fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    // OCI's name of the architecture.
    let image = starter_image::image(&program, "amd64")?;
    let path = rust::guest_directory(places).join("starter-image.tar");
    if !fs::read(&path).is_ok_and(|present| present == image) {
        cache::write(&path, &image)?;
    }
    Ok(path)
}

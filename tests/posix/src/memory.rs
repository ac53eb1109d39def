//! Files mapped into memory.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

use crate::Check;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "a mapping shows the file",
        run: shows,
    },
    Check {
        name: "a shared mapping writes the file",
        run: writes,
    },
    Check {
        name: "a private mapping does not",
        run: private,
    },
];

const LENGTH: usize = 16384;

/// A mapping of the first bytes of a file.
struct Mapping(*mut u8);

impl Mapping {
    fn new(file: &File, flags: MapFlags, protection: ProtFlags) -> Result<Self> {
        // SAFETY: a new mapping, wherever the kernel likes, of a file that is as long.
        let start = unsafe { mmap(std::ptr::null_mut(), LENGTH, protection, flags, file, 0) }?;
        Ok(Self(start.cast()))
    }

    fn get(&self, at: usize) -> u8 {
        assert!(at < LENGTH);
        // SAFETY: inside the mapping; others may write it at any time.
        unsafe { self.0.add(at).read_volatile() }
    }

    fn put(&self, at: usize, byte: u8) {
        assert!(at < LENGTH);
        // SAFETY: inside the mapping, which is writable.
        unsafe { self.0.add(at).write_volatile(byte) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        let _ = unsafe { munmap(self.0.cast(), LENGTH) };
    }
}

fn file(at: &Path) -> Result<File> {
    fs::write(at.join("f"), [b'a'; LENGTH])?;
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .open(at.join("f"))?)
}

fn shows(at: &Path) -> Result<()> {
    let file = file(at)?;
    let mapping = Mapping::new(&file, MapFlags::SHARED, ProtFlags::READ)?;
    ensure!(mapping.get(0) == b'a' && mapping.get(LENGTH - 1) == b'a');
    std::os::unix::fs::FileExt::write_all_at(&file, b"b", 5000)?;
    ensure!(mapping.get(5000) == b'b');
    Ok(())
}

fn writes(at: &Path) -> Result<()> {
    let file = file(at)?;
    let both = ProtFlags::READ | ProtFlags::WRITE;
    let mapping = Mapping::new(&file, MapFlags::SHARED, both)?;
    mapping.put(9000, b'c');
    // SAFETY: the whole mapping.
    unsafe { msync(mapping.0.cast(), LENGTH, MsyncFlags::SYNC) }?;
    ensure!(fs::read(at.join("f"))?[9000] == b'c');
    Ok(())
}

fn private(at: &Path) -> Result<()> {
    let file = file(at)?;
    let both = ProtFlags::READ | ProtFlags::WRITE;
    let mapping = Mapping::new(&file, MapFlags::PRIVATE, both)?;
    mapping.put(0, b'd');
    drop(mapping);
    ensure!(fs::read(at.join("f"))?[0] == b'a');
    Ok(())
}

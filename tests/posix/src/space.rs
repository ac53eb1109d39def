//! Sparse files, preallocation, copying, and the file system's own numbers.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek, statvfs};
use rustix::io::Errno;

use crate::{Check, fails};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "a sparse file takes no room",
        run: sparse,
    },
    Check {
        name: "SEEK_DATA and SEEK_HOLE",
        run: holes,
    },
    Check {
        name: "fallocate",
        run: allocate,
    },
    Check {
        name: "copy_file_range",
        run: copy,
    },
    Check {
        name: "statvfs",
        run: numbers,
    },
];

fn file(path: &Path) -> Result<File> {
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?)
}

fn sparse(at: &Path) -> Result<()> {
    let path = at.join("f");
    let file = file(&path)?;
    file.write_all_at(b"end", 1 << 30)?;
    file.sync_all()?;
    let metadata = fs::metadata(&path)?;
    ensure!(metadata.len() == (1 << 30) + 3);
    ensure!(metadata.blocks() < 1024, "{} blocks", metadata.blocks());
    let mut bytes = [1; 100];
    file.read_exact_at(&mut bytes, 12345)?;
    ensure!(bytes == [0; 100]);
    Ok(())
}

fn holes(at: &Path) -> Result<()> {
    let file = file(&at.join("f"))?;
    file.write_all_at(&vec![1; 65536], 1 << 20)?;
    file.sync_all()?;
    ensure!(seek(&file, SeekFrom::Data(0))? == 1 << 20);
    ensure!(seek(&file, SeekFrom::Hole(1 << 20))? == (1 << 20) + 65536);
    fails(seek(&file, SeekFrom::Data(1 << 24)), Errno::NXIO)
}

fn allocate(at: &Path) -> Result<()> {
    let path = at.join("f");
    let file = file(&path)?;
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20)?;
    ensure!(fs::metadata(&path)?.len() == 1 << 20);
    file.write_all_at(&[7; 8192], 0)?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 4096, 4096)?;
    let mut bytes = vec![1; 8192];
    file.read_exact_at(&mut bytes, 0)?;
    ensure!(bytes[..4096] == [7; 4096] && bytes[4096..] == [0; 4096]);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 2 << 20)?;
    ensure!(fs::metadata(&path)?.len() == 1 << 20);
    Ok(())
}

fn copy(at: &Path) -> Result<()> {
    let from = file(&at.join("from"))?;
    let text: Vec<u8> = (0..300_000).map(|byte| (byte % 253) as u8).collect();
    from.write_all_at(&text, 0)?;
    let to = file(&at.join("to"))?;
    let (mut here, mut there) = (1000, 10);
    while here < 300_000 {
        let left = 300_000 - here as usize;
        let copied = copy_file_range(&from, Some(&mut here), &to, Some(&mut there), left)?;
        ensure!(copied > 0);
    }
    ensure!(fs::read(at.join("to"))?[10..] == text[1000..]);
    Ok(())
}

fn numbers(at: &Path) -> Result<()> {
    let numbers = statvfs(at)?;
    ensure!(numbers.f_blocks > 0 && numbers.f_bsize > 0 && numbers.f_namemax == 255);
    Ok(())
}

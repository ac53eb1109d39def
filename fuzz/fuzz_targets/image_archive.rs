//! An archive of images, as `docker load` takes it: members, links between them, and
//! the documents that say which images there are. Whatever it holds: no panic, no
//! memory without bound, nothing left beside the spool.

#![no_main]

use std::{fs, io::Cursor};

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

/// The agent is a program, not a library: its modules are taken as they are.
#[path = "../../guest-agent/src/images"]
#[allow(dead_code, unused_imports)]
mod images {
    pub mod compression;
    pub mod description;
    pub mod overlay;
    mod space;
    pub mod unpack;

    pub mod archive {
        mod contents;
        mod spool;

        /// Finds the images in an archive.
        pub fn read(directory: &std::path::Path, bytes: Vec<u8>) -> Option<usize> {
            let spool = spool::Spool::fill(directory, std::io::Cursor::new(bytes)).ok()?;
            let images = contents::images(&spool, "linux/amd64").ok()?;
            Some(images.len())
        }
    }
}

/// What the documents of an archive are called. All but the first two are blobs, too,
/// named by their digests.
const NAMES: [&str; 5] = ["manifest.json", "index.json", "m.json", "c.json", "l.tar"];

fuzz_target!(|bytes: &[u8]| {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let read = |bytes: Vec<u8>| {
        images::archive::read(directory.path(), bytes);
        let left = fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(left, 0, "something was left of the archive");
    };
    // As an archive, and as the texts of documents in one that is in order.
    read(match images::compression::Compression::of(bytes) {
        images::compression::Compression::None => dctl_fuzz::with_check_sums(bytes),
        _ => bytes.to_vec(),
    });
    let mut archive = tar::Builder::new(Cursor::new(Vec::new()));
    for (name, text) in documents(bytes) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, &*text)
            .expect("a write to memory");
    }
    let archive = archive.into_inner().expect("a write to memory");
    read(archive.into_inner());
});

/// The input's documents, between zeros. The byte 2 stands for the digest of the third,
/// 3 for that of the fourth and 4 for that of the fifth, in those that come before: no
/// fuzzer finds a digest.
fn documents(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut members = Vec::new();
    let mut digests = vec![String::new(); NAMES.len()];
    let texts: Vec<_> = bytes.splitn(NAMES.len(), |byte| *byte == 0).collect();
    for (index, text) in texts.iter().enumerate().rev() {
        let mut document = Vec::with_capacity(text.len());
        for byte in *text {
            match digests.get(usize::from(*byte)) {
                Some(digest) if !digest.is_empty() && index != NAMES.len() - 1 => {
                    document.extend_from_slice(digest.as_bytes());
                }
                _ => document.push(*byte),
            }
        }
        if document.is_empty() {
            continue;
        }
        if index >= 2 {
            let hex = hex::encode(Sha256::digest(&document));
            digests[index] = format!("sha256:{hex}");
            members.push((format!("blobs/sha256/{hex}"), document.clone()));
        }
        members.push((NAMES[index].to_owned(), document));
    }
    members
}

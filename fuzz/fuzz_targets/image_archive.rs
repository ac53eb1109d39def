//! An archive of images, as `docker load` takes it: members, links between them, and
//! the documents that say which images there are. Whatever it holds: no panic, no
//! memory without bound, nothing left beside the spool.

#![no_main]

use std::{fs, io::Cursor};

use libfuzzer_sys::fuzz_target;

/// The agent is a program, not a library: its modules are taken as they are.
#[path = "../../guest-agent/src/images"]
#[allow(dead_code, unused_imports)]
mod images {
    mod compression;
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

/// What may become the documents of an archive.
const NAMES: [&str; 4] = ["manifest.json", "index.json", "c.json", "l.tar"];

fuzz_target!(|bytes: &[u8]| {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let read = |bytes: Vec<u8>| {
        images::archive::read(directory.path(), bytes);
        let left = fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(left, 0, "something was left of the archive");
    };
    // As it is, and as the texts of documents in an archive that is in order.
    read(bytes.to_vec());
    let mut archive = tar::Builder::new(Cursor::new(Vec::new()));
    for (name, text) in NAMES.iter().zip(bytes.split(|byte| *byte == 0)) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, text)
            .expect("a write to memory");
    }
    let archive = archive.into_inner().expect("a write to memory");
    read(archive.into_inner());
});

//! More files than there are descriptors for.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use libtest_mimic::{Failed, Trial};
use shares::{ExportOptions, Limits};

use crate::mount::{Mounted, Road};

/// Directories, and files in each of them.
const DIRECTORIES: usize = 100;
const FILES: usize = 1000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("100,000 files with 500 descriptors", hundred_thousand),
        Trial::test(
            "files are found again without their descriptor",
            found_again,
        ),
    ]
}

fn few() -> Mounted {
    let limits = Limits {
        descriptors: 500,
        ..Limits::default()
    };
    Mounted::with(Road::Device, limits, ExportOptions::default())
}

fn hundred_thousand() -> Result<(), Failed> {
    let share = few();
    for directory in 0..DIRECTORIES {
        let path = share.host().join(directory.to_string());
        fs::create_dir(&path)?;
        for file in 0..FILES {
            File::create(path.join(file.to_string()))?;
        }
    }
    let mut seen = 0;
    for directory in fs::read_dir(share.path())? {
        for file in fs::read_dir(directory?.path())? {
            seen += usize::from(file?.metadata()?.len() == 0);
        }
    }
    assert_eq!(seen, DIRECTORIES * FILES);
    let counts = share.server.counts();
    assert!(counts.inodes > 10_000, "{counts:?}");
    assert!(counts.descriptors < 700, "{counts:?}");
    // The first ones, whose descriptors are long gone.
    for directory in 0..DIRECTORIES {
        let path = share.path().join(directory.to_string());
        fs::write(path.join("0"), "text")?;
        fs::rename(path.join("0"), path.join("renamed"))?;
        fs::remove_file(path.join("1"))?;
    }
    assert_eq!(fs::read(share.host().join("7/renamed"))?, b"text");
    assert!(!share.host().join("99/1").exists());
    Ok(())
}

fn found_again() -> Result<(), Failed> {
    let share = few();
    let deep = share.path().join("a/b/c/d");
    fs::create_dir_all(&deep)?;
    fs::write(deep.join("kept"), "kept")?;
    fs::write(deep.join("unlinked"), "unlinked")?;
    let open = File::open(deep.join("unlinked"))?;
    let directory = File::open(&deep)?;
    fs::rename(share.path().join("a/b"), share.path().join("moved"))?;
    fs::remove_file(share.path().join("moved/c/d/unlinked"))?;
    // Everything else is used, until none of these have descriptors but what is open.
    for number in 0..3000 {
        fs::write(share.host().join(number.to_string()), "")?;
        fs::metadata(share.path().join(number.to_string()))?;
    }
    assert_eq!(std::io::read_to_string(&open)?, "unlinked");
    assert_eq!(open.metadata()?.nlink(), 0);
    let kept = rustix::fs::openat(
        &directory,
        "kept",
        rustix::fs::OFlags::RDONLY,
        rustix::fs::Mode::empty(),
    )?;
    assert_eq!(std::io::read_to_string(File::from(kept))?, "kept");
    // Another file in the old one's place is another file.
    let path = share.path().join("5");
    let before = fs::metadata(&path)?;
    fs::write(share.host().join("new"), "new")?;
    fs::rename(share.host().join("new"), share.host().join("5"))?;
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_ne!(fs::metadata(&path)?.ino(), before.ino());
    assert_eq!(fs::read(&path)?, b"new");
    Ok(())
}

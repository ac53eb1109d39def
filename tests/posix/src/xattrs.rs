//! Extended attributes.

use std::fs::File;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use crate::{Check, fails};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "user attributes are kept",
        run: kept,
    },
    Check {
        name: "XATTR_CREATE and XATTR_REPLACE",
        run: flags,
    },
    Check {
        name: "attributes in any bytes",
        run: bytes,
    },
];

fn get(path: &Path, name: &str) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0; 65536];
    let length = getxattr(path, name, &mut value)?;
    value.truncate(length);
    Ok(value)
}

fn kept(at: &Path) -> Result<()> {
    let path = at.join("f");
    File::create(&path)?;
    fails(get(&path, "user.a"), Errno::NODATA)?;
    setxattr(&path, "user.a", b"1", XattrFlags::empty())?;
    setxattr(&path, "user.b", b"", XattrFlags::empty())?;
    setxattr(&path, "user.a", b"22", XattrFlags::empty())?;
    ensure!(get(&path, "user.a")? == b"22" && get(&path, "user.b")?.is_empty());
    fails(getxattr(&path, "user.a", &mut [0_u8; 1]), Errno::RANGE)?;
    let mut names = vec![0; 4096];
    let length = listxattr(&path, &mut names)?;
    let mut listed: Vec<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| name.starts_with(b"user."))
        .collect();
    listed.sort();
    ensure!(listed == [b"user.a", b"user.b"], "{listed:?}");
    removexattr(&path, "user.a")?;
    fails(get(&path, "user.a"), Errno::NODATA)?;
    fails(removexattr(&path, "user.a"), Errno::NODATA)
}

fn flags(at: &Path) -> Result<()> {
    setxattr(at, "user.a", b"1", XattrFlags::CREATE)?;
    fails(
        setxattr(at, "user.a", b"2", XattrFlags::CREATE),
        Errno::EXIST,
    )?;
    fails(
        setxattr(at, "user.b", b"2", XattrFlags::REPLACE),
        Errno::NODATA,
    )
}

fn bytes(at: &Path) -> Result<()> {
    let value: Vec<u8> = (0..=255).collect();
    setxattr(at, "user.\u{e4} b", &value, XattrFlags::empty())?;
    ensure!(get(at, "user.\u{e4} b")? == value);
    Ok(())
}

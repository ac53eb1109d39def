//! Sizes of what is installed and of what is in it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::Options;

pub(crate) fn run(options: &Options) -> Result<()> {
    let files = [
        ("dctl, all in one", options.dctl.clone()),
        ("  kernel, unpacked", options.guest.join("vmlinux")),
        ("  initial root", options.guest.join("initramfs.cpio")),
        ("  agent in it", options.agent.clone()),
        ("  starter image", options.guest.join("starter-image.tar")),
    ];
    for (what, file) in files {
        println!("  {what}: {:.1} MiB", mebibytes(&file)?);
    }
    Ok(())
}

fn mebibytes(file: &Path) -> Result<f64> {
    let length = fs::metadata(file)
        .with_context(|| format!("cannot measure {}", file.display()))?
        .len();
    Ok(length as f64 / f64::from(1 << 20))
}

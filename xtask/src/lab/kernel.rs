//! The lab's kernel: Debian's stock one with its modules, from the machine
//! itself when it is installed, otherwise unpacked into the cache. It is never
//! installed, as that would change how the machine itself boots.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Key, Places};
use crate::package::unpack;
use crate::process;

/// The meta package that names the current kernel.
const PACKAGE: &str = "linux-image-amd64";

/// Modules that the lab loads, each with what it depends on.
const MODULES: [&str; 13] = [
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
    "virtio_net",
    "virtio_rng",
    "kvm_amd",
    "vhost_vsock",
    "tun",
    "fuse",
    "loop",
    "ext4",
];

/// A kernel image and the root that its `lib/modules` is in.
pub(crate) struct Kernel {
    /// The compressed image that QEMU boots.
    pub(crate) image: PathBuf,
    version: String,
    pub(super) root: PathBuf,
}

impl Kernel {
    /// The newest kernel beneath `root` that has modules.
    fn beneath(root: &Path) -> Option<Self> {
        let mut versions: Vec<_> = fs::read_dir(root.join("lib/modules"))
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|version| version.ends_with("-amd64") && !version.contains("cloud"))
            .filter(|version| root.join(format!("boot/vmlinuz-{version}")).exists())
            .filter(|version| {
                root.join(format!("lib/modules/{version}/modules.dep"))
                    .exists()
            })
            .collect();
        versions.sort();
        let version = versions.pop()?;
        Some(Self {
            image: root.join(format!("boot/vmlinuz-{version}")),
            version,
            root: root.to_path_buf(),
        })
    }

    /// The files of [`MODULES`] and all that they depend on, in loading order.
    pub(crate) fn modules(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for module in MODULES {
            let text = process::output(
                Command::new(process::need("modprobe")?)
                    .arg("--dirname")
                    .arg(&self.root)
                    .args(["--set-version", &self.version, "--show-depends", module]),
            )?;
            for file in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let file = PathBuf::from(file.trim());
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

/// The kernel to boot the lab with.
pub(crate) fn find(places: &Places) -> Result<Kernel> {
    if let Some(kernel) = Kernel::beneath(Path::new("/")) {
        return Ok(kernel);
    }
    let cached = fs::read_dir(places.cache.join("lab-kernel"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Kernel::beneath(&entry.ok()?.path()))
        .max_by(|a, b| a.version.cmp(&b.version));
    cached.context("the lab has no kernel; run `cargo xtask setup`")
}

/// Unpacks Debian's current kernel into the cache unless there is one.
pub(crate) fn fetch(places: &Places) -> Result<()> {
    if find(places).is_ok() {
        return Ok(());
    }
    let depends = process::output(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let Some(package) = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
    else {
        bail!("the package lists don't know {PACKAGE}; run `apt-get update`");
    };
    let package = format!("linux-image-{package}");
    println!("Fetching {package} for the lab");
    places.entry(
        "lab-kernel",
        &Key::new("1").with("package", package.as_bytes()),
        |work| {
            unpack(&package, work)?;
            // Debian 12 keeps modules in /lib, later ones in /usr/lib.
            if !work.join("lib").exists() && work.join("usr/lib/modules").exists() {
                std::os::unix::fs::symlink("usr/lib", work.join("lib"))?;
            }
            let version = package.trim_start_matches("linux-image-");
            process::run(
                Command::new(process::need("depmod")?)
                    .arg("-b")
                    .arg(work)
                    .arg(version),
            )
        },
    )?;
    Ok(())
}

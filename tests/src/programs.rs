//! Debian's programs as a folder of this host that containers mount at `/usr`: made
//! once, in a root file system that this system's apt installs into, and kept in the
//! cache by what they were made from. So no machine of a software CPU has to unpack
//! hundreds of megabytes of an image before a test begins.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    command::run,
    images::debian::{cache, debian},
};

/// What is there besides Debian's smallest system.
#[derive(Debug, Clone, Copy)]
pub struct Programs<'a> {
    /// What to call them in the cache.
    pub name: &'a str,
    /// Debian's packages, without what they only recommend.
    pub packages: &'a [&'a str],
    /// What root does with them afterwards, in a shell that stops at what fails. It has
    /// this host's network.
    pub script: &'a str,
}

impl Programs<'_> {
    /// The folder. Containers must not change it.
    ///
    /// # Panics
    /// If it cannot be made: that takes root, and Debian's archive.
    pub fn folder(&self) -> PathBuf {
        let base = debian();
        let cache = cache("debian-programs");
        fs::create_dir_all(&cache).expect("the cache can be written");
        let folder = cache.join(format!("{}-{}", self.name, key(&base, self)));
        // Of two test processes the second waits. The lock ends with its file.
        let lock = File::create(cache.join(format!(".lock-{}", self.name)));
        let lock = lock.expect("the cache can be written");
        lock.lock().expect("a file can be locked");
        if folder.exists() {
            return folder;
        }
        let work = tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(&cache)
            .expect("the cache can be written");
        let root = work.path().join("root");
        fs::create_dir(&root).expect("the cache can be written");
        let in_root = |command: &mut Command| {
            run(command.current_dir(&root), b"", WITHIN).success();
        };
        in_root(
            Command::new("tar")
                .args(["--extract", "--gzip", "--numeric-owner", "--file"])
                .arg(layer(&base)),
        );
        in_root(
            Command::new("unshare")
                .args(["--mount", "--pid", "--fork", "sh", "-exc", INSTALL, "sh"])
                .arg(&root)
                .arg(self.script)
                .args(self.packages),
        );
        fs::rename(root.join("usr"), &folder).expect("it can be put into the cache");
        folder
    }
}

/// PostgreSQL's server and its tools, without what compiles queries: it is larger than
/// all the rest. There is no database yet.
pub const POSTGRES: Programs<'_> = Programs {
    name: "postgres",
    packages: &["postgresql"],
    // Its tools are wrapped for several versions in one system, in Perl.
    script: "rm -rf /usr/lib/llvm-* /usr/lib/*/libLLVM* /usr/lib/*/libz3*
        ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/",
};

/// What people work with in a folder of their own: git, npm and Vite, and the linker
/// that cargo calls.
pub const DEVELOPMENT: Programs<'_> = Programs {
    name: "development",
    packages: &["git", "nodejs", "gcc", "libc6-dev"],
    // Debian's npm is hundreds of packages. It fetches another and goes.
    script: "apt-get --quiet --assume-yes install --no-install-recommends npm
        npm install --global --prefix /usr/local npm@10.9.8 vite@5.4.9
        apt-get --quiet --assume-yes purge --auto-remove npm
        rm -rf /root/.npm /root/.cache",
};

/// How long fetching and installing may take.
const WITHIN: Duration = Duration::from_mins(30);

/// Runs in mount and process namespaces of its own, so that whatever was mounted or
/// started ends with it: `$1` is the root, `$2` the script, and then come packages.
const INSTALL: &str = r#"
root=$1 script=$2; shift 2
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
test -e "$root/etc/resolv.conf" || : > "$root/etc/resolv.conf"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/ssl/certs/ca-certificates.crt "$root/run/" 2> /dev/null || true
apt-config dump | grep -E '^Acquire::[^ ]*(Proxy|Check-)' > "$root/run/apt.conf" || true
for unread in doc man locale i18n; do
    echo "DPkg::Options:: \"--path-exclude=/usr/share/$unread/*\";" >> "$root/run/apt.conf"
done
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C HOME=/root TMPDIR=/tmp
export APT_CONFIG=/run/apt.conf NODE_EXTRA_CA_CERTS=/run/ca-certificates.crt
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
chroot "$root" apt-get --quiet update
chroot "$root" apt-get --quiet --assume-yes install --no-install-recommends "$@"
chroot "$root" sh -ec "$script"
rm "$root/usr/sbin/policy-rc.d"
rm -rf "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/locale"
"#;

/// What the folder is made from, as a short name.
fn key(base: &Path, programs: &Programs<'_>) -> String {
    let mut key = Sha256::new();
    let index = fs::read(base.join("index.json")).expect("a layout has an index");
    let parts = [INSTALL, programs.script]
        .into_iter()
        .chain(programs.packages.iter().copied());
    for part in std::iter::once(&index[..]).chain(parts.map(str::as_bytes)) {
        key.update((part.len() as u64).to_be_bytes());
        key.update(part);
    }
    hex::encode(&key.finalize()[..8])
}

/// The archive that is a layout's only layer.
fn layer(layout: &Path) -> PathBuf {
    let json = |path: PathBuf| -> Value {
        let text = fs::read(path).expect("a layout's file");
        serde_json::from_slice(&text).expect("a layout's documents are JSON")
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let name = digest.strip_prefix("sha256:").expect("a SHA-256 digest");
        layout.join("blobs/sha256").join(name)
    };
    let index = json(layout.join("index.json"));
    let manifest = json(blob(&index["manifests"][0]));
    blob(&manifest["layers"][0])
}

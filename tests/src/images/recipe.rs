//! Debian images with further packages in a layer of their own: made once, in a root
//! file system that this system's apt installs into, and kept in the cache by what they
//! were made from.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{debian, write_layout};
use crate::command::run;

/// What an image has that Debian's own does not.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// What to call it in the cache.
    pub name: &'a str,
    /// Debian's packages, without what they only recommend.
    pub packages: &'a [&'a str],
    /// What root does in it afterwards, in a shell that stops at what fails. It has
    /// this host's network.
    pub script: &'a str,
    /// Its variables besides `PATH`.
    pub environment: &'a [&'a str],
}

impl Recipe<'_> {
    /// The image's layout. Its bottom layer is that of [`debian()`](debian::debian).
    ///
    /// # Panics
    /// If it cannot be made: that takes root, and Debian's archive.
    pub fn layout(&self) -> PathBuf {
        let base = debian();
        let cache = base.parent().expect("it is in the cache");
        let key = key(&base, self);
        let layout = cache.join(format!("{}-{key}", self.name));
        // Of two test processes the second waits. The lock ends with its file.
        let lock = File::create(cache.join(format!(".lock-{}", self.name)));
        let lock = lock.expect("the cache can be written");
        lock.lock().expect("a file can be locked");
        if layout.exists() {
            return layout;
        }
        let work = tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(cache)
            .expect("the cache can be written");
        let at = |name: &str| work.path().join(name);
        let bottom = bottom_layer(&base);
        fs::write(at("base.tar"), &bottom).expect("the cache can be written");
        fs::create_dir(at("root")).expect("the cache can be written");
        let in_root = |command: &mut Command| {
            run(command.current_dir(at("root")), b"", WITHIN).success();
        };
        in_root(
            Command::new("tar")
                .args(["--extract", "--numeric-owner", "--xattrs", "--file"])
                .arg(at("base.tar")),
        );
        // What is newer than this is not the base's.
        fs::write(at("stamp"), "").expect("the cache can be written");
        in_root(
            Command::new("unshare")
                .args(["--mount", "--pid", "--fork", "sh", "-exc", INSTALL, "sh"])
                .arg(at("root"))
                .arg(self.script)
                .args(self.packages),
        );
        in_root(
            Command::new("sh")
                .args(["-exc", COLLECT, "sh"])
                .args(NOT_KEPT),
        );
        let top = fs::read(at("top.tar")).expect("the archive that tar made");
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let environment: Vec<&str> = [&[path], self.environment].concat();
        let configuration = json!({"Cmd": ["bash"], "Env": environment});
        write_layout(&at("layout"), &[bottom, top], &configuration);
        fs::rename(at("layout"), &layout).expect("the layout can be put into the cache");
        layout
    }
}

/// PostgreSQL's server and its tools, without what compiles queries: it is larger than
/// all the rest. There is no database yet.
pub const POSTGRES: Recipe<'_> = Recipe {
    name: "postgres",
    packages: &["postgresql"],
    // Its tools are wrapped for several versions in one system, in Perl.
    script: "rm -rf /etc/postgresql /var/lib/postgresql/*
        rm -rf /usr/lib/llvm-* /usr/lib/*/libLLVM* /usr/lib/*/libz3*
        ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/",
    environment: &["LANG=C.UTF-8"],
};

/// What people work with in a folder of their own: git, npm and Vite, and the linker
/// that cargo calls.
pub const DEVELOPMENT: Recipe<'_> = Recipe {
    name: "development",
    packages: &["git", "nodejs", "gcc", "libc6-dev"],
    // Debian's npm is hundreds of packages. It fetches another and goes.
    script: "apt-get --quiet --assume-yes install --no-install-recommends npm
        npm install --global --prefix /usr/local npm@10.9.8 vite@5.4.9
        apt-get --quiet --assume-yes purge --auto-remove npm
        rm -rf /root/.npm /root/.cache",
    environment: &[],
};

/// How long fetching and installing may take.
const WITHIN: Duration = Duration::from_mins(30);

/// Directories whose contents belong to no image.
const NOT_KEPT: [&str; 7] = [
    "./dev",
    "./proc",
    "./run",
    "./sys",
    "./tmp",
    "./var/cache/apt",
    "./var/lib/apt/lists",
];

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
"#;

/// Archives what has changed since the stamp. Its arguments are not looked into.
const COLLECT: &str = r#"
set -f
set -- $(printf ' -path %s/* -o' "$@")
find . -mindepth 1 \( "$@" -false \) -prune -o -cnewer ../stamp -print0 |
    LC_ALL=C sort --zero-terminated |
    tar --create --file=../top.tar --numeric-owner --xattrs \
        --null --no-recursion --files-from=-
"#;

/// What the image is made from, as a short name.
fn key(base: &Path, recipe: &Recipe<'_>) -> String {
    let mut key = Sha256::new();
    let index = fs::read(base.join("index.json")).expect("a layout has an index");
    let parts = [INSTALL, COLLECT, recipe.script]
        .into_iter()
        .chain(recipe.packages.iter().copied())
        .chain(recipe.environment.iter().copied());
    for part in std::iter::once(&index[..]).chain(parts.map(str::as_bytes)) {
        key.update((part.len() as u64).to_be_bytes());
        key.update(part);
    }
    hex::encode(&key.finalize()[..8])
}

/// The archive of a layout's only layer.
fn bottom_layer(layout: &Path) -> Vec<u8> {
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
    let compressed = File::open(blob(&manifest["layers"][0])).expect("the layer");
    let mut archive = Vec::new();
    GzDecoder::new(compressed)
        .read_to_end(&mut archive)
        .expect("the layer is compressed with gzip");
    archive
}

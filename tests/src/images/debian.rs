//! Images of Debian, made by debootstrap once and kept in the cache of the project's
//! tools.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::json;

use super::write_layout;
use crate::command::run;

/// The Debian release of the images.
pub const RELEASE: &str = "bookworm";
/// Where its packages come from when the system does not say.
const ARCHIVE: &str = "http://deb.debian.org/debian";

/// The layout of the smallest Debian image.
///
/// # Panics
/// If it cannot be made.
pub fn debian() -> PathBuf {
    debian_with(&[])
}

/// The layout of a Debian image with these packages, and what they depend on.
///
/// # Panics
/// If it cannot be made.
pub fn debian_with(packages: &[&str]) -> PathBuf {
    let cache = cache("debian-image");
    let name = [&[RELEASE], packages].concat().join("+");
    let layout = cache.join(name);
    if layout.exists() {
        return layout;
    }
    fs::create_dir_all(&cache).expect("the cache can be written");
    let work = tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(&cache)
        .expect("the cache can be written");
    let at = |name: &str| work.path().join(name);
    let within = Duration::from_mins(30);
    let mut bootstrap = Command::new("debootstrap");
    bootstrap.arg("--variant=minbase");
    if !packages.is_empty() {
        bootstrap.arg(format!("--include={}", packages.join(",")));
    }
    bootstrap.arg(RELEASE).arg(at("root")).arg(archive());
    run(&mut bootstrap, b"", within).success();
    run(
        Command::new("tar")
            .arg("--create")
            .arg("--file")
            .arg(at("root.tar"))
            .args(["--numeric-owner", "--xattrs", "--sort=name"])
            .args([
                "--exclude=./var/cache/apt/*",
                "--exclude=./var/lib/apt/lists/*",
            ])
            .arg("--directory")
            .arg(at("root"))
            .arg("."),
        b"",
        within,
    )
    .success();
    let archive = fs::read(at("root.tar")).expect("the archive that tar made");
    let configuration = json!({
        "Cmd": ["bash"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    });
    write_layout(&at("layout"), &[archive], &configuration);
    // Another test process may have been faster; both made the same.
    if fs::rename(at("layout"), &layout).is_err() {
        assert!(layout.exists(), "the layout cannot be put into the cache");
    }
    layout
}

/// Where the project's tools keep what is of one kind and slow to make.
pub(crate) fn cache(kind: &str) -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .expect("XDG_CACHE_HOME or HOME is set")
        .join("dctl-build")
        .join(kind)
}

/// The archive that this system's packages come from, without a slash at its end.
pub fn archive() -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| {
            let words: Vec<String> = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
                .collect();
            words
        })
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
        .map_or(ARCHIVE.to_owned(), |word| {
            word.trim_end_matches('/').to_owned()
        })
}

//! Other engines: what dctl is measured with, and the `dockerd` whose answers are
//! recorded. Their packages are unpacked and not installed.

use std::path::PathBuf;

use anyhow::Result;

use crate::cache::{Key, Places};
use crate::package::{self, Suite};

/// What they need that is not on every Debian.
const PACKAGES: [(&str, Suite); 16] = [
    ("podman", Suite::Installed),
    ("conmon", Suite::Installed),
    ("golang-github-containers-common", Suite::Installed),
    ("golang-github-containers-image", Suite::Installed),
    ("libgpgme11", Suite::Installed),
    ("libassuan0", Suite::Installed),
    ("libdevmapper1.02.1", Suite::Installed),
    ("libsubid4", Suite::Installed),
    ("slirp4netns", Suite::Installed),
    ("libslirp0", Suite::Installed),
    ("passt", Suite::Installed),
    // What Docker is today. Its programs run with an older C library; runc of the same
    // suite would not.
    ("docker.io", Suite::Unstable),
    ("docker-cli", Suite::Unstable),
    ("containerd", Suite::Unstable),
    ("tini-static", Suite::Unstable),
    ("runc", Suite::Installed),
];

/// The script that starts `dockerd`: `start_dockerd ARGUMENT...`.
pub(crate) const DOCKERD: &str = include_str!("../../benches/src/dockerd.sh");

/// The directory that they are in.
pub(crate) fn unpacked(places: &Places) -> Result<PathBuf> {
    let names: Vec<_> = PACKAGES.iter().map(|(name, _)| *name).collect();
    let key = Key::new("2").with("packages", names.join(" ").as_bytes());
    places.entry("peers", &key, |work| {
        for (name, suite) in PACKAGES {
            package::unpack_of(suite, name, work)?;
        }
        package::forget(work)
    })
}

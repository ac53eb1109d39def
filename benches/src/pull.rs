//! Pulling and unpacking an image of 500 MB, beside Podman and Docker.

use std::time::Instant;

use anyhow::{Context, Result};
use tests::{Installation, images, registry::Registry};

use crate::{
    Options,
    peers::{self, Peer},
    statistics::{compare, median},
};

/// Bytes that the image has, unpacked.
const SIZE: u64 = 500_000_000;
const LAYERS: usize = 5;

pub(crate) fn run(options: &Options) -> Result<()> {
    let layout = tempfile::tempdir()?;
    images::write_system_files(layout.path(), SIZE, LAYERS);
    let registry = Registry::start();
    registry.push(layout.path(), "large");
    drop(layout);
    let image = registry.name("large");

    let rounds = options.rounds.clamp(1, 3);
    let mut ours = Vec::new();
    {
        let dctl = Installation::new();
        dctl.dctl(&["machine", "start"]).success();
        for _ in 0..rounds {
            let start = Instant::now();
            dctl.dctl(&["pull", "--quiet", &image]).success();
            ours.push(start.elapsed().as_secs_f64() * 1e3);
            dctl.dctl(&["rmi", &image]).success();
        }
    }
    let ours = median(&ours).context("nothing was measured")?;
    let port = image.split_once(':').map_or("", |(_, rest)| rest);
    let image = format!("{}:{port}", peers::HOST);
    for peer in [Peer::Podman, Peer::Docker] {
        let figures = peers::measure(
            options,
            peer,
            "pull",
            &[&image, &rounds.to_string()],
            peers::SHORT,
        )?;
        let theirs = median(&figures.of("pull")).context("nothing was measured")?;
        compare("pull of 500 MB", ours, peer.name(), theirs, "ms", 0.7);
    }
    Ok(())
}

//! What the benches of ports and of the way out have in common: the program `traffic`
//! in an image, and figures of roads that take turns.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tests::{
    Installation,
    images::{self, Layer},
    registry::Registry,
};

use crate::statistics::median;

/// How long one transfer is measured.
pub(crate) const TRANSFER: Duration = Duration::from_secs(4);

/// Where servers in containers listen.
pub(crate) const PORT: u16 = 7000;

/// A machine that runs, with an image of `traffic` alone.
pub(crate) struct Network {
    pub(crate) dctl: Installation,
    pub(crate) registry: Registry,
    pub(crate) image: String,
}

impl Network {
    pub(crate) fn start(traffic: &Path) -> Result<Self> {
        let program = fs::read(traffic)
            .with_context(|| format!("cannot read {} (--traffic)", traffic.display()))?;
        let mut layer = Layer::new();
        layer.file("traffic", 0o755, &program);
        let layout = tempfile::tempdir()?;
        let configuration = json!({"Entrypoint": ["/traffic"]});
        images::write_layout(layout.path(), &[layer.finish()], &configuration);
        let registry = Registry::start();
        registry.push(layout.path(), "traffic");
        let dctl = Installation::new();
        let image = registry.name("traffic");
        dctl.dctl(&["machine", "start"]).success();
        dctl.dctl(&["pull", "--quiet", &image]).success();
        Ok(Self {
            dctl,
            registry,
            image,
        })
    }

    /// Starts the server in a container with these options; its address in the guest.
    pub(crate) fn serve(&self, name: &str, options: &[&str]) -> String {
        let port = PORT.to_string();
        let first = ["run", "--detach", "--name", name];
        let last = [self.image.as_str(), "serve", &port];
        self.dctl
            .dctl(&[&first[..], options, &last].concat())
            .success();
        let template = "{{.NetworkSettings.IPAddress}}";
        format!("{}:{PORT}", self.dctl.inspect(name, template))
    }

    /// What a client in a container with these options prints.
    pub(crate) fn client(&self, options: &[&str], words: &[&str]) -> String {
        let first = ["run", "--rm"];
        let image = [self.image.as_str()];
        self.dctl
            .dctl(&[&first[..], options, &image, words].concat())
            .success()
            .text()
    }

    /// The address that a port is published at.
    pub(crate) fn published(&self, name: &str, port: u16) -> String {
        let port = format!("{port}/tcp");
        self.dctl.dctl(&["port", name, &port]).success().text()
    }
}

/// Bytes a second of one road, both ways.
#[derive(Default)]
pub(crate) struct Rates {
    down: Vec<f64>,
    up: Vec<f64>,
}

impl Rates {
    /// Adds what `server` gives and takes.
    pub(crate) fn measure(&mut self, server: &str) -> Result<()> {
        let failed = || format!("no traffic with {server}");
        self.down
            .push(traffic::download(server, TRANSFER).with_context(failed)?);
        self.up
            .push(traffic::upload(server, TRANSFER).with_context(failed)?);
        Ok(())
    }

    /// Adds one figure each, as the program `traffic` prints them.
    pub(crate) fn add(&mut self, down: &str, up: &str) -> Result<()> {
        let number = |text: &str| {
            text.trim()
                .parse::<f64>()
                .with_context(|| format!("{text:?} is no figure"))
        };
        self.down.push(number(down)?);
        self.up.push(number(up)?);
        Ok(())
    }

    /// Prints both ways beside the same of a peer.
    pub(crate) fn compare(&self, what: &str, peer: &str, theirs: &Self, bound: f64) -> Result<()> {
        for (way, ours, theirs) in [
            ("down", &self.down, &theirs.down),
            ("up", &self.up, &theirs.up),
        ] {
            let (Some(ours), Some(theirs)) = (median(ours), median(theirs)) else {
                bail!("{what} was not measured");
            };
            let mebi = f64::from(1 << 20);
            crate::statistics::compare_rates(
                &format!("{what}, {way}"),
                ours / mebi,
                peer,
                theirs / mebi,
                "MiB/s",
                bound,
            );
        }
        Ok(())
    }
}

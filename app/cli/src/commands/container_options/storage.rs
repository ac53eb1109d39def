//! The file system that a container sees.

use bollard_stubs::models::HostConfig;
use clap::Args;

use crate::options::resources;

/// File systems of a new container.
#[derive(Debug, Args)]
pub(super) struct StorageOptions {
    /// Mount the container's root file system as read-only
    #[arg(long)]
    read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = resources::bytes)]
    shm_size: Option<i64>,
    /// Options of the storage driver
    #[arg(long, value_name = "NAME=VALUE", value_parser = resources::pair)]
    storage_opt: Vec<(String, String)>,
    /// Mount a tmpfs directory
    #[arg(long, value_name = "PATH[:OPTIONS]", value_parser = resources::tmpfs)]
    tmpfs: Vec<(String, String)>,
    /// Volume driver for the container
    #[arg(long, value_name = "DRIVER")]
    volume_driver: Option<String>,
}

impl StorageOptions {
    /// Puts them into what is asked of the host.
    pub(super) fn put(&self, host: &mut HostConfig) {
        let map = |pairs: &[(String, String)]| {
            (!pairs.is_empty()).then(|| pairs.iter().cloned().collect())
        };
        host.readonly_rootfs = Some(self.read_only);
        host.shm_size = self.shm_size;
        host.storage_opt = map(&self.storage_opt);
        host.tmpfs = map(&self.tmpfs);
        host.volume_driver.clone_from(&self.volume_driver);
    }
}

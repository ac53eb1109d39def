//! The engine's socket in the machine: what containers mount that asked for it. Each
//! connection is carried to the engine on the host, which answers it or hangs up.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use guest_protocol::API_PORT;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

use crate::error::{Context, Result};

/// The socket's name, beside the shared file system's root.
pub(super) const NAME: &str = "docker.sock";

/// As Docker's: for root and its group.
const MODE: u32 = 0o660;

/// Connections at once; further ones wait.
const MOST: usize = 256;

/// Listens at `path`, for as long as the machine runs.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn listen(path: &Path) -> Result<()> {
    let made = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        Ok::<_, std::io::Error>(listener)
    };
    let listener = made().context("cannot make the engine's socket for containers")?;
    tokio::spawn(accept(listener));
    Ok(())
}

async fn accept(listener: UnixListener) {
    let slots = Arc::new(Semaphore::new(MOST));
    loop {
        // Never closed, so this cannot fail.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(async move {
                    let _slot = slot;
                    if let Err(error) = carry(client).await {
                        tracing::debug!("a container's request to the engine broke off: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("a container does not reach the engine: {error}");
                // Out of files, most likely: it passes when calls end.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn carry(mut client: UnixStream) -> std::io::Result<()> {
    let address = VsockAddr::new(VMADDR_CID_HOST, API_PORT);
    let mut engine = VsockStream::connect(address).await?;
    copy_bidirectional(&mut client, &mut engine).await?;
    Ok(())
}

//! Changes that the host makes to shared files, repeated here, so that containers that
//! watch them (inotify) are told: [`guest_protocol::replay`] says how.
//!
//! The monitor connects for as long as the machine runs and sends one frame for each
//! change. What is repeated changes nothing on the host, and what cannot be repeated
//! is left: watchers are told too little then, never something else.

mod repeat;

use std::sync::mpsc;

use guest_protocol::{
    frame::{self, FrameError},
    replay::Change,
};

use super::Shares;
use crate::server::Listener;

/// Changes that wait to be repeated; more of them wait in the connection, and then on
/// the host, which counts them no more one by one.
const MOST_WAITING: usize = 256;

/// Repeats what the host tells, for as long as the machine runs.
pub(crate) async fn listen(shares: Shares, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok(mut connection) => {
                if let Err(error) = follow(&shares, &mut connection).await {
                    tracing::warn!("changes of shared files are not told any more: {error}");
                }
            }
            Err(error) => tracing::warn!("changes of shared files are not told: {error}"),
        }
    }
}

async fn follow(
    shares: &Shares,
    connection: &mut (impl tokio::io::AsyncRead + Unpin),
) -> Result<(), FrameError> {
    // A thread: its file system user is another for each change.
    let (sender, receiver) = mpsc::sync_channel::<Change>(MOST_WAITING);
    let its_shares = shares.clone();
    std::thread::Builder::new()
        .name("shares-changes".to_owned())
        .spawn(move || {
            for change in receiver {
                if its_shares.is_mounted()
                    && let Err(error) = repeat::repeat(its_shares.root(), &change)
                {
                    tracing::debug!("{change:?} was not repeated: {error}");
                }
            }
        })?;
    loop {
        let change = match frame::read(connection).await {
            Ok(change) => change,
            Err(FrameError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        let sender = sender.clone();
        let sent = tokio::task::spawn_blocking(move || sender.send(change)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Ok(());
        }
    }
}

//! Runs what blocks, such as file operations, away from the threads that serve.

use crate::{Error, Result};

/// Runs what blocks where it may.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Monitor(format!("a task was given up: {error}"))),
    }
}

//! Ids of containers, execs and anonymous volumes.

use crate::error::{Context, Result};

/// Random bytes from the kernel.
///
/// # Errors
/// When it has none.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
                .context("no random numbers")?;
    }
    Ok(bytes)
}

/// A new id: 64 hex digits.
///
/// # Errors
/// When the kernel has no random numbers.
pub(crate) fn new_id() -> Result<String> {
    Ok(hex::encode(random_bytes::<32>()?))
}

//! What the C library's allocator keeps of freed memory. Called once, by whoever starts
//! threads; nothing else here knows of the allocator.

/// Arenas of memory, for all threads together. By default there are eight for each processor,
/// and what was freed in one of them serves no other: the agent, whose threads come and go
/// with its calls, had some twenty of a megabyte each after a thousand calls.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Has threads share arenas, before there are any.
#[cfg(target_env = "gnu")]
pub(crate) fn share_arenas() {
    // SAFETY: it stores a number that the allocator reads when it makes an arena; no thread
    // but this one runs.
    if unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) } == 0 {
        tracing::warn!("the allocator keeps as many arenas as it likes");
    }
}

/// Other C libraries' allocators have no arenas to share.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn share_arenas() {}

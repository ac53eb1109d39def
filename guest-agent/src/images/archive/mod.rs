//! Archives of whole images, as `docker save` writes and `docker load` reads them.
//!
//! [`mod@save`] writes one that is `docker save`'s and an OCI image layout at the same
//! time. [`mod@load`] takes both, in their old and new ways: the archive's members are
//! put on the disk first ([`spool`]), for what tells which of them matter may come
//! last; then [`contents`] finds the images, and the store unpacks their layers.
//! Everything in an archive comes from a stranger.

mod contents;
pub(super) mod load;
mod save;
mod spool;

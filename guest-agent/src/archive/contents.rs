//! What [`super::tree`] writes of a tree: chosen by whoever wants the archive.

/// What of a tree goes into the archive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    /// All extended attributes, rather than those that other engines carry.
    pub(super) all_xattrs: bool,
    /// Holes as holes.
    pub(super) sparse: bool,
    /// Times to the nanosecond.
    pub(super) nanoseconds: bool,
    /// The tree is the upper one of an OverlayFS: its marks become whiteouts.
    pub(super) upper: bool,
    /// Paths in it at which something is mounted: what the runtime made there to
    /// mount on is left out.
    pub(super) mount_points: Vec<Vec<u8>>,
    /// What the archive's user and group 0 are in the tree; the others follow.
    pub(super) first_id: u32,
}

impl Contents {
    /// As other engines copy files, of a tree in which ids begin with `first_id`.
    pub(crate) fn portable(first_id: u32) -> Self {
        Self {
            first_id,
            ..Self::default()
        }
    }

    /// All that there is.
    pub(crate) fn backup() -> Self {
        Self {
            all_xattrs: true,
            sparse: true,
            nanoseconds: true,
            ..Self::default()
        }
    }

    /// A layer made of an upper directory, without the empty files and folders at
    /// `mount_points`.
    pub(crate) fn layer(mount_points: Vec<Vec<u8>>) -> Self {
        Self {
            all_xattrs: true,
            sparse: true,
            upper: true,
            mount_points,
            ..Self::default()
        }
    }

    /// The archive's id for one in the tree: the kernel's for nobody, if it has none.
    pub(super) fn id(&self, id: u32) -> u32 {
        id.checked_sub(self.first_id).unwrap_or(65_534)
    }
}

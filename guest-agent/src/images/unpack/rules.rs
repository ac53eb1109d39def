//! What differs between unpacking a layer and unpacking files.

use rustix::fs::ResolveFlags;

/// How an archive is unpacked.
#[derive(Debug)]
pub(crate) struct Rules {
    /// It is a layer: whiteouts are OCI's and become `OverlayFS`'s, whose own
    /// attributes mean nothing to it.
    pub(super) layer: bool,
    /// The directory below the root that entries' names begin in; it must exist.
    pub(super) base: Vec<u8>,
    /// How paths are resolved from the root on, beside magic links never being
    /// followed.
    pub(super) resolve: ResolveFlags,
    /// Directories replace only directories, and are replaced by nothing else.
    pub(super) keeps_kinds: bool,
    /// The directory itself stays as it is, whatever its entry says.
    pub(super) keeps_root: bool,
    /// The archive must say where it ends: what comes of one that was cut off between
    /// two entries is not taken for all.
    pub(super) needs_end: bool,
    /// Who owns everything, instead of who the archive says: user and group.
    pub(super) owner: Option<(u32, u32)>,
    /// What the archive's user and group 0 are in the directory; the others follow.
    pub(super) first_id: u32,
}

impl Rules {
    /// A layer into an empty directory.
    pub(super) fn layer() -> Self {
        Self {
            layer: true,
            needs_end: false,
            ..Self::files()
        }
    }

    /// Files into a directory of their own, which becomes what its entry says.
    pub(crate) fn files() -> Self {
        Self {
            layer: false,
            base: Vec::new(),
            resolve: ResolveFlags::BENEATH.union(ResolveFlags::NO_XDEV),
            keeps_kinds: false,
            keeps_root: false,
            needs_end: true,
            owner: None,
            first_id: 0,
        }
    }

    /// Files into the directory `base` of a container whose root is unpacked into.
    /// Links lead where they lead inside, mounts included. Ids are the container's,
    /// which begin with `first_id` in the root.
    pub(crate) fn container(
        base: &[u8],
        keeps_kinds: bool,
        owner: Option<(u32, u32)>,
        first_id: u32,
    ) -> Self {
        let start = base.iter().position(|byte| *byte != b'/');
        let base = start
            .and_then(|start| base.get(start..))
            .unwrap_or_default();
        Self {
            base: base.to_vec(),
            resolve: ResolveFlags::IN_ROOT,
            keeps_kinds,
            keeps_root: true,
            needs_end: false,
            owner,
            first_id,
            ..Self::files()
        }
    }
}

//! Owners and modes as containers see them.
//!
//! Everything on the host belongs to the user who runs the server, and stays so. What a
//! container makes of it (chown, set-user-ID bits, a mode that would lock the user out) is
//! kept in an extended attribute of the file. It counts for files of this user only, and
//! its mode only as long as the host's mode is the one that it was written for: a chmod on
//! the host is seen inside.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Statx, XattrFlags};
use rustix::io::Errno;

use crate::exports::Owner;
use crate::host;

/// The attribute's name. Containers can neither see nor change it.
pub(crate) const ATTRIBUTE: &str = "user.dctl.ownership";

/// Who owns what belongs to another user of the host: the kernel's overflow user.
const NOBODY: u32 = 65_534;

/// All bits of a mode beside the type.
pub(crate) const MODE: u32 = 0o7777;

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o010;

/// What containers have made of a file's owner and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Override {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// The mode that containers see, and the host's that it was written for.
    pub(crate) mode: Option<(u32, u32)>,
}

impl Override {
    /// Reads the attribute's text: `uid:gid:shown mode:real mode`, a dash for what is not
    /// changed, modes in octal.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut fields = text.split(':');
        let id = |field: &str| match field {
            "-" => Some(None),
            number => number.parse().ok().map(Some),
        };
        let uid = id(fields.next()?)?;
        let gid = id(fields.next()?)?;
        let mode = match (fields.next()?, fields.next()?) {
            ("-", "-") => None,
            (shown, real) => {
                let octal = |text| u32::from_str_radix(text, 8).ok();
                let modes = (octal(shown)?, octal(real)?);
                if modes.0 > MODE || modes.1 > MODE {
                    return None;
                }
                Some(modes)
            }
        };
        fields.next().is_none().then_some(Self { uid, gid, mode })
    }

    /// The attribute's text.
    pub(crate) fn text(&self) -> String {
        let id = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let mode = self.mode.map_or_else(
            || "-:-".to_owned(),
            |(shown, real)| format!("{shown:04o}:{real:04o}"),
        );
        format!("{}:{}:{mode}", id(self.uid), id(self.gid))
    }
}

/// What is known of a file's override, so that it is not read each time.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// What was stored when the file's change time was this.
    read: Option<((i64, u32), Override)>,
    /// An override that the host can't store: symbolic links and special files have no
    /// such attributes, nor have some file systems. Lost when the client forgets the file.
    unstored: Option<Override>,
    /// Whether it was last seen without bits that a write takes away.
    plain: bool,
}

impl Known {
    /// Whether a write may have to take set-user-ID or set-group-ID bits away.
    pub(crate) fn may_be_privileged(&self) -> bool {
        !self.plain
    }

    /// Notes the mode that containers see.
    pub(crate) fn note(&mut self, seen: Seen) {
        self.plain = !has_privileges(seen.mode);
    }
}

/// Owner and mode as a container sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) owner: Owner,
    /// Without the type.
    pub(crate) mode: u32,
}

/// The user who runs the server.
#[derive(Debug)]
pub(crate) struct HostUser {
    uid: u32,
    groups: Vec<u32>,
}

impl HostUser {
    pub(crate) fn current() -> Self {
        let mut groups = vec![rustix::process::getegid().as_raw()];
        // Without them fewer files show the group.
        let more = rustix::process::getgroups().unwrap_or_default();
        groups.extend(more.into_iter().map(rustix::process::Gid::as_raw));
        Self {
            uid: rustix::process::geteuid().as_raw(),
            groups,
        }
    }

    pub(crate) fn owns(&self, status: &Statx) -> bool {
        status.stx_uid == self.uid
    }

    /// The override of a file, which counts if the user owns it.
    pub(crate) fn read(&self, file: BorrowedFd<'_>, status: &Statx, known: &mut Known) -> Override {
        if !self.owns(status) {
            return Override::default();
        }
        if let Some(unstored) = known.unstored {
            return unstored;
        }
        if !stores(host::file_type(status)) {
            return Override::default();
        }
        let changed = (status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec);
        if let Some((when, stored)) = known.read
            && when == changed
        {
            return stored;
        }
        let mut text = [0; 64];
        let length = rustix::fs::getxattr(host::proc_path(file), ATTRIBUTE, &mut text);
        let stored = length
            .ok()
            .and_then(|length| Override::parse(text.get(..length)?))
            .unwrap_or_default();
        // A file that changed just now may change once more within the same tick.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let quiet = now.tv_sec.saturating_sub(changed.0) > 1;
        known.read = quiet.then_some((changed, stored));
        stored
    }

    /// Owner and mode of a file with an override.
    pub(crate) fn see(&self, status: &Statx, override_: &Override, default: Owner) -> Seen {
        let real = u32::from(status.stx_mode) & MODE;
        if self.owns(status) {
            return Seen {
                owner: Owner {
                    uid: override_.uid.unwrap_or(default.uid),
                    gid: override_.gid.unwrap_or(default.gid),
                },
                mode: match override_.mode {
                    Some((shown, written_for)) if written_for == real => shown,
                    _ => real,
                },
            };
        }
        let gid = if self.groups.contains(&status.stx_gid) {
            default.gid
        } else {
            NOBODY
        };
        Seen {
            owner: Owner { uid: NOBODY, gid },
            mode: real,
        }
    }
}

/// Whether files of this type have user attributes.
pub(crate) fn stores(kind: FileType) -> bool {
    matches!(kind, FileType::RegularFile | FileType::Directory)
}

/// The mode that the host gets for one that a container asked for: no set-user-ID,
/// set-group-ID and sticky bits, and the user is never locked out.
pub(crate) fn real_mode(shown: u32, kind: FileType) -> u32 {
    let access = match kind {
        FileType::Directory => 0o700,
        FileType::RegularFile => 0o600,
        _ => 0,
    };
    shown & 0o777 | access
}

/// A mode after somebody wrote to the file, or gave it away.
pub(crate) fn without_privileges(mode: u32) -> u32 {
    let kept = mode & !SET_UID;
    if mode & GROUP_EXECUTES == 0 {
        kept
    } else {
        kept & !SET_GID
    }
}

/// Whether a mode has bits that [`without_privileges`] takes away.
pub(crate) fn has_privileges(mode: u32) -> bool {
    without_privileges(mode) != mode
}

/// Owner and mode of what is made in a directory by somebody.
pub(crate) fn inherited(directory: Seen, caller: Owner, mode: u32, kind: FileType) -> Seen {
    if directory.mode & SET_GID == 0 {
        return Seen {
            owner: caller,
            mode,
        };
    }
    Seen {
        owner: Owner {
            gid: directory.owner.gid,
            ..caller
        },
        mode: if kind == FileType::Directory {
            mode | SET_GID
        } else {
            mode
        },
    }
}

/// What to store for a file of the user, so that it is seen as `seen` when the host's
/// mode is `real`.
pub(crate) fn override_for(seen: Seen, real: u32, default: Owner) -> Override {
    Override {
        uid: (seen.owner.uid != default.uid).then_some(seen.owner.uid),
        gid: (seen.owner.gid != default.gid).then_some(seen.owner.gid),
        mode: (seen.mode != real).then_some((seen.mode, real)),
    }
}

/// Stores an override, or removes what is stored when nothing is to be.
pub(crate) fn store(
    file: BorrowedFd<'_>,
    kind: FileType,
    override_: Override,
    known: &mut Known,
) -> Result<(), Errno> {
    known.read = None;
    let result = if !stores(kind) {
        Err(Errno::OPNOTSUPP)
    } else if override_ == Override::default() {
        match rustix::fs::removexattr(host::proc_path(file), ATTRIBUTE) {
            Err(Errno::NODATA) => Ok(()),
            result => result,
        }
    } else {
        let text = override_.text();
        let flags = XattrFlags::empty();
        rustix::fs::setxattr(host::proc_path(file), ATTRIBUTE, text.as_bytes(), flags)
    };
    match result {
        Err(Errno::OPNOTSUPP) => {
            known.unstored = Some(override_);
            Ok(())
        }
        result => {
            known.unstored = None;
            result
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_override_is_none() {
        for text in [
            "",
            "1",
            "1:2",
            "1:2:3",
            "1:2:-",
            "1:2:-:0644",
            "1:2:644:-",
            "1:2:10000:0644",
            "1:2:0644:0644:",
            "-1:0:-:-",
            "4294967296:0:-:-",
            "a:b:-:-",
            "1:2:9:9",
            " 1:2:-:-",
        ] {
            assert_eq!(Override::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Override::parse(b"-:-:-:-"), Some(Override::default()));
        assert_eq!(Override::parse(b"\xff:2:-:-"), None);
    }

    #[test]
    fn the_user_is_never_locked_out_and_nobody_is_let_in() {
        for mode in 0..=MODE {
            let file = real_mode(mode, FileType::RegularFile);
            let directory = real_mode(mode, FileType::Directory);
            assert_eq!((file & 0o600, directory & 0o700), (0o600, 0o700));
            for real in [file, directory] {
                assert_eq!(real & 0o077, mode & 0o077);
                assert_eq!(real & !0o777, 0);
            }
        }
    }

    #[test]
    fn writing_takes_what_may_be_misused() {
        for (before, after) in [
            (0o4755, 0o0755),
            (0o6755, 0o0755),
            (0o2745, 0o2745),
            (0o2755, 0o0755),
            (0o1777, 0o1777),
        ] {
            assert_eq!(without_privileges(before), after, "{before:o}");
            assert_eq!(has_privileges(before), before != after);
        }
    }

    proptest! {
        #[test]
        fn overrides_are_read_as_they_were_written(
            uid: Option<u32>,
            gid: Option<u32>,
            mode in prop::option::of((0..=MODE, 0..=MODE)),
        ) {
            let written = Override { uid, gid, mode };
            let text = written.text();
            // As much as is read at most.
            prop_assert!(text.len() <= 64);
            prop_assert_eq!(Override::parse(text.as_bytes()), Some(written));
        }

        #[test]
        fn any_text_is_read(text: Vec<u8>) {
            let _ = Override::parse(&text);
        }
    }
}

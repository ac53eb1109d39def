//! Containers in a user namespace: their root is nobody in the machine.
//!
//! Ids of such a container, from 0 on, are the machine's from [`FIRST`] on. What it
//! has on the data disk keeps the ids that they have inside, so image layers and
//! volumes are shared with containers of every kind: it sees them through idmapped
//! mounts, which stand under its overlay and behind its bind mounts.
//!
//! Source: `Documentation/filesystems/idmappings.rst`, `overlayfs.rst`;
//! `mount_setattr(2)`, `user_namespaces(7)`.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
};

use caps::CapSet;
use guest_protocol::docker::HostConfig;
use rustix::{
    fs::CWD,
    mount::{
        MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree,
    },
};
use serde_json::{Value, json};

use crate::images::overlay;

/// The machine's id of a container's root, and how many ids a container has; as
/// distributions give them to Docker's `userns-remap`.
const FIRST: u32 = 100_000;
const COUNT: u32 = 65_536;

/// `MOUNT_ATTR_IDMAP` (include/uapi/linux/mount.h).
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// The namespace whose mapping idmapped mounts have; made when it is first needed.
static NAMESPACE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Whether the container is to have a user namespace of its own.
pub(crate) fn is_wanted(host: &HostConfig) -> bool {
    host.userns_mode.as_deref() == Some("private")
}

/// The machine's id for an id of the container's.
pub(crate) fn machine_id(host: &HostConfig, id: u32) -> u32 {
    if is_wanted(host) {
        FIRST.saturating_add(id)
    } else {
        id
    }
}

/// The mapping of a specification.
pub(crate) fn mapping() -> Value {
    json!([{"containerID": 0, "hostID": FIRST, "size": COUNT}])
}

/// Mounts a container's root file system as [`overlay::mount`] does, of folders on
/// the data disk `data`, for a container in a user namespace. `place` is a name for
/// the meantime.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn mount_root(
    data: &Path,
    layers: &[PathBuf],
    folder: &Path,
    target: &Path,
    place: &Path,
) -> io::Result<()> {
    fs::create_dir_all(place)?;
    mount_mapped(data, place)?;
    let mapped = |path: &Path| match path.strip_prefix(data) {
        Ok(inside) => place.join(inside),
        Err(_) => path.to_owned(),
    };
    let lower: Vec<PathBuf> = layers.iter().map(|layer| mapped(layer)).collect();
    let (upper, work) = (mapped(&folder.join("upper")), mapped(&folder.join("work")));
    // OverlayFS makes files of its own as whoever mounted it, who has to be mapped.
    let mounted = as_first(|| overlay::mount(&lower, &upper, &work, target));
    // The overlay has mounts of its own now.
    overlay::unmount(place)?;
    fs::remove_dir(place)?;
    mounted
}

/// Replaces the bind mounts of what is on the data disk in a specification by
/// idmapped ones, which are mounted in `folder`.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn map_mounts(spec: &mut Value, data: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mounts = spec["mounts"].as_array_mut().into_iter().flatten();
    for (number, mount) in mounts.enumerate() {
        let Some(source) = mount["source"].as_str().map(PathBuf::from) else {
            continue;
        };
        if mount["type"] != "bind" || !source.starts_with(data) {
            continue;
        }
        let target = folder.join(number.to_string());
        if source.is_dir() {
            fs::create_dir(&target)?;
        } else {
            File::create(&target)?;
        }
        mount_mapped(&source, &target)?;
        mount["source"] = json!(target);
    }
    Ok(())
}

/// Unmounts what [`map_mounts`] mounted in `folder`.
///
/// # Errors
/// When something stays mounted: `folder` must not be deleted then.
pub(super) fn unmap_mounts(folder: &Path) -> io::Result<()> {
    let items = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        items => items?,
    };
    for item in items {
        overlay::unmount(&item?.path())?;
    }
    Ok(())
}

/// Mounts `source` at `target`, idmapped.
fn mount_mapped(source: &Path, target: &Path) -> io::Result<()> {
    let tree = open_tree(
        CWD,
        source,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    let mut namespace = NAMESPACE.lock().unwrap_or_else(PoisonError::into_inner);
    let namespace = match &mut *namespace {
        Some(namespace) => namespace,
        empty => empty.insert(make_namespace()?),
    };
    set_mapping(&tree, namespace)?;
    move_mount(
        &tree,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(mount_change(target, MountPropagationFlags::PRIVATE)?)
}

/// `struct mount_attr`.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn set_mapping(tree: &OwnedFd, namespace: &OwnedFd) -> io::Result<()> {
    let attributes = Attributes {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        user_namespace: namespace.as_raw_fd() as u64,
    };
    // SAFETY: the kernel reads an empty path and the attributes, which live across
    // the call, and takes its own references to both files.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes a user namespace that has the mapping. A process has to be in it at first;
/// afterwards the file keeps it.
fn make_namespace() -> io::Result<OwnedFd> {
    // SAFETY: as fork(2); the child calls nothing but pause(2) before it is killed.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::CLONE_NEWUSER | libc::SIGCHLD,
            0_usize,
            0_usize,
            0_usize,
            0_usize,
        )
    };
    match child {
        -1 => return Err(io::Error::last_os_error()),
        0 => loop {
            // SAFETY: it has no memory effects.
            unsafe { libc::pause() };
        },
        _ => {}
    }
    let process = PathBuf::from(format!("/proc/{child}"));
    let map = format!("0 {FIRST} {COUNT}");
    let namespace = fs::write(process.join("gid_map"), &map)
        .and_then(|()| fs::write(process.join("uid_map"), &map))
        .and_then(|()| File::open(process.join("ns/user")));
    // SAFETY: it has no memory effects. The child is there: only now can it end, and
    // the reaper collects it.
    unsafe { libc::kill(child as libc::pid_t, libc::SIGKILL) };
    Ok(namespace?.into())
}

/// Makes the calling thread the machine's user that containers' root is, as far as
/// files go, with all of the agent's capabilities. There is no way back.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn act_as_first() -> io::Result<()> {
    // SAFETY: both concern the calling thread alone.
    unsafe {
        libc::setfsgid(FIRST);
        libc::setfsuid(FIRST);
    }
    // Those about files went with the user.
    caps::read(None, CapSet::Permitted)
        .and_then(|all| caps::set(None, CapSet::Effective, &all))
        .map_err(io::Error::other)
}

/// Does `action` as the machine's user that containers' root is, with all of the
/// agent's capabilities.
fn as_first<T: Send>(action: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let as_other = || {
        act_as_first()?;
        action()
    };
    thread::scope(|scope| scope.spawn(as_other).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread that mounts panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_where_it_is_wanted() {
        let private = HostConfig {
            userns_mode: Some("private".into()),
            ..HostConfig::default()
        };
        assert_eq!(machine_id(&private, 33), 100_033);
        assert_eq!(machine_id(&HostConfig::default(), 33), 33);
    }

    #[test]
    fn a_namespace_has_the_mapping() {
        let namespace = make_namespace().unwrap();
        // NS_GET_OWNER_UID needs a namespace: the file is one.
        let link = fs::read_link(format!("/proc/self/fd/{}", namespace.as_raw_fd())).unwrap();
        assert!(link.to_string_lossy().starts_with("user:["), "{link:?}");
    }

    #[test]
    fn another_user_with_every_capability() {
        let file = tempfile::tempdir().unwrap();
        let closed = file.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let made = closed.join("made");
        as_first(|| fs::write(&made, "")).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&made).unwrap());
        assert_eq!(owner, FIRST);
    }
}

//! Looking into a container's files from outside: copying in and out, and export.
//!
//! Of a container that runs, the root is that of its first process, with all that is
//! mounted there. One that does not run is mounted, volumes included, in a mount
//! namespace that only one thread of ours has; it goes with the thread, and nothing
//! is left over.
//!
//! Contents are a stranger's: every path is resolved by the kernel inside the root
//! (`RESOLVE_IN_ROOT`).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use guest_protocol::{AgentError, ErrorKind, volume::PathStat};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount},
    thread::{UnshareFlags, unshare_unsafe},
};

use super::{
    Containers, Entry,
    cleanup::unmounted,
    records::Record,
    spec::{rootfs::Rootfs, user},
    user_namespace,
};
use crate::{
    archive::{
        stream::{Sink, Source},
        tree::{self, Contents},
    },
    error::{Context, Result},
    images::{
        overlay,
        unpack::{Rules, unpack_files},
    },
    volumes::Mounted,
};

/// How many links a path may go through; the kernel's limit.
const MOST_LINKS: usize = 40;

/// How much of a container is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// What it sees: volumes and what else is mounted, too.
    All,
    /// Its own root file system.
    OwnFiles,
}

/// How an archive is to be unpacked into a container.
#[derive(Debug, Clone)]
pub(crate) struct Unpacking {
    pub(crate) path: String,
    pub(crate) keep_folders: bool,
    pub(crate) chown: bool,
}

impl Containers {
    /// What `path` in a container is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) async fn path_stat(&self, reference: &str, path: &str) -> Result<PathStat> {
        let entry = self.find(reference)?;
        let (path, reference) = (path.to_owned(), reference.to_owned());
        self.with_root(&entry, Extent::All, move |root, _| {
            Ok(locate(&root, &path, &reference)?.stat)
        })
        .await
    }

    /// Writes `path` in a container as an archive. `told` hears what it is before.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or why something cannot be read.
    pub(crate) async fn pack(
        &self,
        reference: &str,
        path: &str,
        told: impl FnOnce(PathStat) -> Sink + Send + 'static,
    ) -> Result<()> {
        let entry = self.find(reference)?;
        let (path, reference) = (path.to_owned(), reference.to_owned());
        self.with_root(&entry, Extent::All, move |root, first_id| {
            let found = locate(&root, &path, &reference)?;
            let output = told(found.stat.clone());
            Ok(found.write(output, &Contents::portable(first_id))?)
        })
        .await?;
        self.tell(&entry, "archive-path", &[]);
        Ok(())
    }

    /// Unpacks an archive into a folder of a container.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such folder; why it cannot be
    /// unpacked, and then part of it may be.
    pub(crate) async fn unpack(
        &self,
        reference: &str,
        how: Unpacking,
        archive: impl FnOnce() -> Source + Send + 'static,
    ) -> Result<()> {
        let entry = self.find(reference)?;
        let user = entry.record().container.config.user.clone();
        let reference = reference.to_owned();
        self.with_root(&entry, Extent::All, move |root, first_id| {
            check_target(&root, &how.path, &reference)?;
            let owner = match user.filter(|user| how.chown && !user.is_empty()) {
                Some(user) => {
                    let rootfs = Rootfs::of(root.try_clone().context("cannot open the root")?);
                    let user = user::resolve(&rootfs, &user, &[])?;
                    Some((user.uid, user.gid))
                }
                None => None,
            };
            let rules = Rules::container(how.path.as_bytes(), how.keep_folders, owner, first_id);
            let mut archive = archive();
            unpack_files(&mut archive, root, &rules)?;
            archive.finish()
        })
        .await?;
        self.tell(&entry, "extract-to-dir", &[]);
        Ok(())
    }

    /// Writes a container's root file system as an archive.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or why something cannot be read.
    pub(crate) async fn export(
        &self,
        reference: &str,
        output: impl FnOnce() -> Sink + Send + 'static,
    ) -> Result<()> {
        let entry = self.find(reference)?;
        self.with_root(&entry, Extent::OwnFiles, move |root, first_id| {
            Ok(tree::write_tree(
                output(),
                &root,
                b"",
                &Contents::portable(first_id),
            )?)
        })
        .await?;
        self.tell(&entry, "export", &[]);
        Ok(())
    }

    /// Whether somebody waits for what is done with the files of a container that does not
    /// run.
    pub(crate) fn is_held_up(&self, reference: &str) -> bool {
        self.find(reference)
            .is_ok_and(|entry| entry.lifecycle.is_held_up())
    }

    /// Has `access` do something with the container's root on a thread that may
    /// block. It is given the id there of the container's user 0, too.
    async fn with_root<T: Send + 'static>(
        &self,
        entry: &Arc<Entry>,
        extent: Extent,
        access: impl FnOnce(OwnedFd, u32) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let first_id = user_namespace::machine_id(&entry.record().container.host_config, 0);
        if let Some(root) = self.running_root(entry, extent)? {
            return on_thread(move || access_mapped(root, first_id, access)).await;
        }
        // Neither started nor removed meanwhile.
        let _lifecycle = entry.lifecycle.lock_to_carry().await;
        if let Some(root) = self.running_root(entry, extent)? {
            return on_thread(move || access_mapped(root, first_id, access)).await;
        }
        if entry.history.borrow().removed {
            return Err(AgentError::no_such_container(&entry.id));
        }
        unmounted(entry).await;
        let record = entry.record().clone();
        // Here and not on the thread: what a volume mounts is for all to see.
        let volumes = match extent {
            Extent::All => tokio::task::block_in_place(|| self.mount_volumes(&record.container))?,
            Extent::OwnFiles => Vec::new(),
        };
        let containers = self.clone();
        on_thread(move || {
            let mut volumes = volumes;
            let root = containers.mount_apart(&record, extent, &mut volumes)?;
            // Mounted here, it is not mapped.
            access(root, 0)
        })
        .await
    }

    /// The root of a container that runs.
    fn running_root(&self, entry: &Entry, extent: Extent) -> Result<Option<OwnedFd>> {
        let process = entry.live().process.clone();
        let pid = entry.record().container.state.pid;
        let (Some(process), true) = (process, pid != 0) else {
            return Ok(None);
        };
        let open = |path: &std::path::Path| {
            rustix::fs::open(
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let root = match extent {
            Extent::All => open(format!("/proc/{pid}/root").as_ref()),
            Extent::OwnFiles => open(&self.shared.paths.rootfs(&entry.id)),
        };
        // A process that still runs did so when the root was opened: its number was
        // nobody else's.
        let mut events = [PollFd::new(&*process, PollFlags::IN)];
        let ended =
            poll(&mut events, Some(&Timespec::default())).context("cannot ask a process")?;
        if ended > 0 {
            return Ok(None);
        }
        root.map(Some).context("cannot open the container's root")
    }

    /// Mounts a container that does not run, for this thread alone.
    fn mount_apart(
        &self,
        record: &Record,
        extent: Extent,
        volumes: &mut [Mounted],
    ) -> Result<OwnedFd> {
        let container = &record.container;
        // SAFETY: only the mount namespace and the working directory are left, which
        // no memory safety hangs on.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("cannot make a mount namespace")?;
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .context("cannot make mounts private")?;
        let paths = &self.shared.paths;
        let (folder, root) = (paths.container(&container.id), paths.rootfs(&container.id));
        std::fs::create_dir_all(&folder).context("cannot make the container's folder")?;
        let layers = self.shared.images.layers(&container.image_id)?;
        overlay::mount(&layers, &folder.join("upper"), &folder.join("work"), &root)
            .context("cannot mount the container's root file system")?;
        let rootfs = Rootfs::at(&root).context("cannot open the container's root")?;
        let parts = self.fill_volumes(record, &rootfs, volumes)?;
        let mut mounts: Vec<_> = container
            .mounts
            .iter()
            .filter(|point| point.name.is_some())
            .zip(volumes.iter())
            .collect();
        if extent == Extent::OwnFiles {
            mounts.clear();
        }
        // What lies deeper is mounted later, so that nothing is hidden.
        mounts.sort_by_key(|(point, _)| point.destination.as_ref().map_or(0, String::len));
        for (point, mounted) in mounts {
            let destination = point.destination.as_deref().unwrap_or_default();
            let source = parts
                .get(destination)
                .cloned()
                .unwrap_or_else(|| mounted.source());
            bind(&rootfs, &source, destination, point.rw != Some(false))
                .context(format_args!("cannot mount the volume at {destination}"))?;
        }
        if container.host_config.readonly_rootfs == Some(true) {
            mount_remount(&root, MountFlags::BIND | MountFlags::RDONLY, "")
                .context("cannot make the container's root read-only")?;
        }
        rustix::fs::open(
            &root,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .context("cannot open the container's root")
    }
}

/// Mounts `source` on a folder of `rootfs`.
fn bind(
    rootfs: &Rootfs,
    source: &std::path::Path,
    destination: &str,
    writable: bool,
) -> io::Result<()> {
    let through = |folder: &OwnedFd| format!("/proc/self/fd/{}", folder.as_raw_fd());
    let folder = rootfs.folder(destination.as_ref())?;
    mount_bind(source, through(&folder))?;
    if !writable {
        // The one that was just mounted.
        let mounted = rootfs.folder(destination.as_ref())?;
        mount_remount(through(&mounted), MountFlags::BIND | MountFlags::RDONLY, "")?;
    }
    Ok(())
}

/// Has `access` do something with the root of a container whose ids begin with
/// `first_id` there. The calling thread ends with this.
fn access_mapped<T>(
    root: OwnedFd,
    first_id: u32,
    access: impl FnOnce(OwnedFd, u32) -> Result<T>,
) -> Result<T> {
    if first_id != 0 {
        // What it makes belongs to the container's user 0 before it is given away.
        user_namespace::act_as_first().context("cannot act as the container's root")?;
    }
    access(root, first_id)
}

/// Runs `work` on a thread of its own, which keeps whatever namespace it makes.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("container-files".into())
        .spawn(move || {
            // Nobody waits any more only when the agent ends.
            let _ = sender.send(work());
        })
        .context("cannot start a thread")?;
    receiver
        .await
        .context("a container's files cannot be reached")?
}

/// Something in a container.
struct Found {
    /// The directory it is in, or itself.
    directory: OwnedFd,
    /// Its name there; `None` for the directory itself.
    name: Option<Vec<u8>>,
    stat: PathStat,
}

/// Finds `path`, the way Docker does: links lead on but in its last component, unless
/// a slash or a dot follows.
fn locate(root: &OwnedFd, path: &str, container: &str) -> Result<Found> {
    let (parent, last) = split(path);
    let directory = match open_folder(root, &parent) {
        Ok(directory) => directory,
        Err(error) => return Err(no_file(error, path, container)),
    };
    let name = (!last.is_empty()).then(|| last.clone().into_bytes());
    let stat = match &name {
        Some(name) => rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW),
        None => rustix::fs::statat(&directory, "", AtFlags::EMPTY_PATH),
    };
    let stat = match stat {
        Ok(stat) => stat,
        Err(error) => return Err(no_file(error, path, container)),
    };
    let link_target = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        follow(root, &format!("{}/{last}", parent.trim_end_matches('/')))
    } else {
        String::new()
    };
    Ok(Found {
        directory,
        stat: path_stat(base_name(path), &stat, link_target),
        name,
    })
}

impl Found {
    fn write(
        &self,
        output: Sink,
        contents: &Contents,
    ) -> std::result::Result<(), tree::WriteError> {
        let as_name = self.stat.name.as_bytes();
        let kind = FileType::from_raw_mode(self.stat.mode);
        match &self.name {
            Some(name) if kind != FileType::Directory => {
                tree::write_one(output, &self.directory, name, as_name, contents)
            }
            name => {
                let name = name.as_deref().unwrap_or(b".");
                let flags = OFlags::RDONLY
                    | OFlags::DIRECTORY
                    | OFlags::NOFOLLOW
                    | OFlags::NOCTTY
                    | OFlags::CLOEXEC;
                let folder = rustix::fs::openat(&self.directory, name, flags, Mode::empty())
                    .map_err(|source| tree::WriteError::Tree {
                        path: self.stat.name.clone(),
                        source,
                    })?;
                tree::write_tree(output, &folder, as_name, contents)
            }
        }
    }
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the fields' types differ by architecture"
)]
fn path_stat(name: String, stat: &Stat, link_target: String) -> PathStat {
    PathStat {
        name,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        modified: (stat.st_mtime as i64)
            .saturating_mul(1_000_000_000)
            .saturating_add(stat.st_mtime_nsec as i64),
        link_target,
    }
}

fn could_not_find(path: &str, container: &str) -> AgentError {
    AgentError::new(
        ErrorKind::NotFound,
        format!("Could not find the file {path} in container {container}"),
    )
}

/// Why `path` leads to nothing: to blame is mostly the path.
fn no_file(error: Errno, path: &str, container: &str) -> AgentError {
    match error {
        Errno::NOENT | Errno::NOTDIR => could_not_find(path, container),
        Errno::INVAL | Errno::NAMETOOLONG | Errno::LOOP => {
            AgentError::invalid(format!("no file can be at {path:?}: {error}"))
        }
        error => AgentError::system(format!("cannot look at {path}: {error}")),
    }
}

/// Refuses what is no folder to unpack into.
fn check_target(root: &OwnedFd, path: &str, container: &str) -> Result<()> {
    match open_folder(root, path) {
        Ok(_) => Ok(()),
        Err(Errno::NOTDIR) => Err(AgentError::invalid("extraction point is not a directory")),
        Err(error) => Err(no_file(error, path, container)),
    }
}

fn open_folder(root: &OwnedFd, path: &str) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        root,
        if path.is_empty() { "." } else { path },
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// The components of a path, `.` and `..` worked out.
fn components(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

/// Directory and name in it; no name when `path` says that it is a directory.
fn split(path: &str) -> (String, String) {
    let parts = components(path);
    let is_directory = path.ends_with('/') || path.ends_with("/.") || path == ".";
    match parts.split_last() {
        Some((last, parent)) if !is_directory => {
            (format!("/{}", parent.join("/")), (*last).to_owned())
        }
        _ => (format!("/{}", parts.join("/")), String::new()),
    }
}

/// The name that an archive of `path` has for it, as Go's `filepath.Base`.
fn base_name(path: &str) -> String {
    if path.ends_with("/.") || path == "." {
        return ".".to_owned();
    }
    components(path)
        .last()
        .map_or_else(|| "/".to_owned(), |&last| last.to_owned())
}

/// Where a link leads in the end. What does not exist is taken as it is written.
fn follow(root: &OwnedFd, path: &str) -> String {
    let mut rest: Vec<String> = components(path)
        .into_iter()
        .rev()
        .map(str::to_owned)
        .collect();
    let mut done: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        let parent = open_folder(root, &format!("/{}", done.join("/")));
        let target = parent
            .ok()
            .and_then(|parent| rustix::fs::readlinkat(&parent, &part, Vec::new()).ok());
        let Some(target) = target.filter(|_| links < MOST_LINKS) else {
            done.push(part);
            continue;
        };
        links += 1;
        let target = target.to_string_lossy().into_owned();
        if target.starts_with('/') {
            done.clear();
        }
        rest.extend(
            target
                .split('/')
                .filter(|part| !matches!(*part, "" | "."))
                .rev()
                .map(str::to_owned),
        );
    }
    format!("/{}", done.join("/"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_are_split_as_docker_does() {
        let split = |path| {
            let (parent, name) = super::split(path);
            (parent, name, base_name(path))
        };
        let own = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(split("/etc/passwd"), own("/etc", "passwd", "passwd"));
        assert_eq!(split("etc"), own("/", "etc", "etc"));
        assert_eq!(split("/etc/"), own("/etc", "", "etc"));
        assert_eq!(split("/etc/."), own("/etc", "", "."));
        assert_eq!(split("/"), own("/", "", "/"));
        assert_eq!(split("/a/../../b"), own("/", "b", "b"));
    }

    #[test]
    fn links_lead_where_they_lead_inside() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("data/deep")).unwrap();
        symlink("/data", root.join("absolute")).unwrap();
        symlink("absolute/deep", root.join("chain")).unwrap();
        symlink("../../../secret", root.join("out")).unwrap();
        symlink("round", root.join("round")).unwrap();
        let fd: OwnedFd = std::fs::File::open(&root).unwrap().into();
        assert_eq!(follow(&fd, "/chain"), "/data/deep");
        assert_eq!(follow(&fd, "/out"), "/secret");
        assert_eq!(follow(&fd, "/round"), "/round");
        let found = locate(&fd, "/absolute", "c").unwrap();
        assert_eq!(found.stat.link_target, "/data");
        assert_eq!(found.stat.name, "absolute");
        let found = locate(&fd, "/absolute/", "c").unwrap();
        assert_eq!(
            FileType::from_raw_mode(found.stat.mode),
            FileType::Directory
        );
        let Err(error) = locate(&fd, "/nothing", "c") else {
            panic!("it is not there")
        };
        assert_eq!(
            error.message,
            "Could not find the file /nothing in container c"
        );
    }
}

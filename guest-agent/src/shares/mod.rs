//! Files of the host that containers mount: one file system whose root has an entry
//! for each path that the host shares ([`guest_protocol::share::export_name`]).
//!
//! The engine's socket, which containers mount like a file of the host, is [`engine`]'s.
//!
//! It is mounted once, when the first container wants something of it, and stays. Which
//! paths there are, is the host's decision: the agent cannot ask for any. Containers'
//! starts call [`Shares::places`]; changes that the host reports are handled by
//! [`changes`].

pub(crate) mod changes;
mod connection;
pub(crate) mod engine;
mod mounting;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use guest_protocol::{
    AgentError,
    container::Container,
    docker::{MountPoint, MountPointTypeEnum},
    share::{ENGINE_SOCKET, export_name},
};

pub(crate) use self::mounting::FLAGS;
use crate::error::{Context, Result};

/// The shared file system. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    root: PathBuf,
    /// Where containers find the engine's socket.
    engine: PathBuf,
    /// Whether it was mounted; nothing to mount outside of a machine.
    mounted: Arc<Mutex<bool>>,
}

impl Shares {
    /// The file system of this machine, which will be mounted at `root`.
    pub(crate) fn of_machine(root: PathBuf) -> Self {
        Self {
            engine: root.with_file_name(engine::NAME),
            root,
            mounted: Arc::default(),
        }
    }

    /// Outside of a machine: the folder `root` is the file system.
    pub(crate) fn in_folder(root: PathBuf) -> Self {
        Self {
            engine: root.with_file_name(engine::NAME),
            root,
            mounted: Arc::new(Mutex::new(true)),
        }
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the engine's socket is.
    pub(crate) fn engine(&self) -> &Path {
        &self.engine
    }

    /// Where the files of the host are that a container mounts, by destination, as `user`
    /// and `group` see them: what the host's user owns is theirs.
    ///
    /// # Errors
    /// When the host does not share one of them, or what was shared has gone.
    pub(crate) fn places(
        &self,
        container: &Container,
        user: u32,
        group: u32,
    ) -> Result<BTreeMap<String, PathBuf>> {
        let mut places = BTreeMap::new();
        for (point, name) in exports(container) {
            let source = point.source.as_deref().unwrap_or_default();
            let place = if source == ENGINE_SOCKET {
                self.engine.clone()
            } else {
                self.mount()?;
                match (user, group) {
                    (0, 0) => self.root.join(name),
                    _ => self.root.join(format!("{name}@{user}:{group}")),
                }
            };
            match place.symlink_metadata() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(AgentError::invalid(format!(
                        "cannot mount {source}: it does not exist on the host, or the machine may \
                         not see it (create the container again on this host to share it)"
                    )));
                }
                error => {
                    error.context(format_args!("cannot mount {source} of the host"))?;
                }
            }
            places.insert(point.destination.clone().unwrap_or_default(), place);
        }
        Ok(places)
    }

    fn mount(&self) -> Result<()> {
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if !*mounted {
            let state = Arc::clone(&self.mounted);
            let lost = move || *state.lock().unwrap_or_else(PoisonError::into_inner) = false;
            mounting::mount(&self.root, lost).context("cannot mount the host's shared files")?;
            *mounted = true;
        }
        Ok(())
    }

    /// Whether something of it may be in use.
    pub(crate) fn is_mounted(&self) -> bool {
        *self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a container's mounts is shared by the host, and the names of the exports.
fn exports(container: &Container) -> impl Iterator<Item = (&MountPoint, String)> {
    container
        .mounts
        .iter()
        .filter(|point| point.typ == Some(MountPointTypeEnum::BIND))
        .map(|point| {
            let source = point.source.as_deref().unwrap_or_default();
            (point, export_name(source, point.rw == Some(false)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_found_and_what_is_not_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let shares = Shares::in_folder(folder.path().to_owned());
        let container = Container {
            mounts: vec![MountPoint {
                typ: Some(MountPointTypeEnum::BIND),
                source: Some("/src".into()),
                destination: Some("/x".into()),
                rw: Some(false),
                ..MountPoint::default()
            }],
            ..Container::default()
        };
        let error = shares.places(&container, 0, 0).unwrap_err();
        assert!(error.message.contains("cannot mount /src"), "{error}");
        let place = folder.path().join(export_name("/src", true));
        std::fs::create_dir(&place).unwrap();
        assert_eq!(shares.places(&container, 0, 0).unwrap()["/x"], place);
        let other = folder.path().join(export_name("/src", true) + "@33:34");
        shares.places(&container, 33, 34).unwrap_err();
        std::fs::create_dir(&other).unwrap();
        assert_eq!(shares.places(&container, 33, 34).unwrap()["/x"], other);
        let socket = Container {
            mounts: vec![MountPoint {
                typ: Some(MountPointTypeEnum::BIND),
                source: Some(ENGINE_SOCKET.into()),
                destination: Some("/run/docker.sock".into()),
                ..MountPoint::default()
            }],
            ..Container::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let shares = Shares::in_folder(folder.path().join("shares"));
        shares.places(&socket, 33, 34).unwrap_err();
        let _socket = std::os::unix::net::UnixListener::bind(shares.engine()).unwrap();
        let places = shares.places(&socket, 33, 34).unwrap();
        assert_eq!(places["/run/docker.sock"], shares.engine());
        let nothing = shares.places(&Container::default(), 0, 0).unwrap();
        assert!(nothing.is_empty());
    }
}

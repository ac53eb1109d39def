//! The paths on this host that a container asks to mount, and what Docker does about
//! those that are missing.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt},
    path::Path,
};

use guest_protocol::{
    docker::{HostConfig, MountTypeEnum},
    share::{ENGINE_SOCKET, clean_path},
};

/// Why a path cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// There is nothing there, and nothing is to be made.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {0}")]
    Missing(String),
    /// It was to be made.
    #[error("error while creating mount source path '{path}': mkdir {path}: {source}")]
    Create {
        /// Where.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be looked at.
    #[error("cannot mount {path}: {source}")]
    Unreadable {
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is no file.
    #[error(
        "cannot mount {path}: it is {kind} of this host, which a machine cannot use; directories \
         and regular files can be mounted"
    )]
    Kind {
        /// The path.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// It was not looked at.
    #[error("mounts could not be prepared: {0}")]
    Broken(String),
}

impl SourceError {
    /// Whether it is the host that fails, rather than what was asked for.
    pub(crate) fn is_internal(&self) -> bool {
        !matches!(self, Self::Missing(_) | Self::Kind { .. })
    }
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// In its simplest form.
    pub(super) path: String,
    pub(super) read_only: bool,
    /// A directory is made where there is nothing.
    create: bool,
}

/// Those of a container. What makes no sense is left for the agent to refuse.
pub(super) fn of(host: &HostConfig) -> Vec<Source> {
    let mut sources = Vec::new();
    for text in host.binds.iter().flatten() {
        let mut fields = text.split(':');
        let (Some(source), Some(_)) = (fields.next(), fields.next()) else {
            continue;
        };
        let options = fields.next().unwrap_or_default();
        if source.starts_with('/') {
            sources.push(Source {
                path: clean_path(source),
                read_only: options.split(',').any(|option| option == "ro"),
                create: true,
            });
        }
    }
    for mount in host.mounts.iter().flatten() {
        let source = mount.source.as_deref().unwrap_or_default();
        if mount.typ == Some(MountTypeEnum::BIND) && source.starts_with('/') {
            let options = mount.bind_options.as_ref();
            sources.push(Source {
                path: clean_path(source),
                read_only: mount.read_only == Some(true),
                create: options.is_some_and(|options| options.create_mountpoint == Some(true)),
            });
        }
    }
    sources
}

/// Puts another path in the place of those for which `name` has one.
pub(super) fn rename(host: &mut HostConfig, name: impl Fn(&str) -> Option<&'static str>) {
    let other = |path: &str| {
        let path = path.starts_with('/').then(|| clean_path(path))?;
        name(&path)
    };
    for bind in host.binds.iter_mut().flatten() {
        if let Some((path, rest)) = bind.split_once(':')
            && let Some(path) = other(path)
        {
            *bind = format!("{path}:{rest}");
        }
    }
    for mount in host.mounts.iter_mut().flatten() {
        if mount.typ == Some(MountTypeEnum::BIND)
            && let Some(path) = mount.source.as_deref().and_then(other)
        {
            mount.source = Some(path.to_owned());
        }
    }
}

impl Source {
    /// Sees to it that there is something to mount.
    pub(super) fn prepare(&self) -> Result<(), SourceError> {
        let path = self.path.clone();
        if path == ENGINE_SOCKET {
            return Ok(());
        }
        let kind = match fs::metadata(Path::new(&path)) {
            Ok(found) => found.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !self.create {
                    return Err(SourceError::Missing(path));
                }
                return fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(&path)
                    .map_err(|source| SourceError::Create { path, source });
            }
            Err(source) => return Err(SourceError::Unreadable { path, source }),
        };
        let kind = if kind.is_dir() || kind.is_file() {
            return Ok(());
        } else if kind.is_socket() {
            "a socket"
        } else if kind.is_fifo() {
            "a FIFO"
        } else {
            "a device"
        };
        Err(SourceError::Kind { path, kind })
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::Mount;

    use super::*;

    #[test]
    fn paths_are_found_among_volumes() {
        let host = HostConfig {
            binds: Some(
                ["/a/../b:/x:ro,z", "volume:/y", "/c/:/z", "/only"]
                    .map(str::to_owned)
                    .into(),
            ),
            mounts: Some(vec![
                Mount {
                    typ: Some(MountTypeEnum::BIND),
                    source: Some("/m".into()),
                    target: Some("/t".into()),
                    read_only: Some(true),
                    ..Mount::default()
                },
                Mount {
                    typ: Some(MountTypeEnum::VOLUME),
                    source: Some("/v".into()),
                    ..Mount::default()
                },
            ]),
            ..HostConfig::default()
        };
        let found: Vec<_> = of(&host)
            .into_iter()
            .map(|source| (source.path, source.read_only, source.create))
            .collect();
        assert_eq!(
            found,
            [
                ("/b".to_owned(), true, true),
                ("/c".to_owned(), false, true),
                ("/m".to_owned(), true, false),
            ]
        );
    }

    #[test]
    fn paths_are_renamed_wherever_they_are_mounted() {
        let mut host = HostConfig {
            binds: Some(
                ["/a/./s:/x:ro", "/a/s2:/y", "a:/z"]
                    .map(str::to_owned)
                    .into(),
            ),
            mounts: Some(vec![Mount {
                typ: Some(MountTypeEnum::BIND),
                source: Some("/a/s".into()),
                ..Mount::default()
            }]),
            ..HostConfig::default()
        };
        rename(&mut host, |path| (path == "/a/s").then_some(ENGINE_SOCKET));
        let binds = host.binds.clone().unwrap();
        assert_eq!(binds, ["/var/run/docker.sock:/x:ro", "/a/s2:/y", "a:/z"]);
        let sources = of(&host);
        assert_eq!(sources[2].path, ENGINE_SOCKET);
        sources[2].prepare().unwrap();
    }

    #[test]
    fn what_is_missing_is_made_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b").to_str().unwrap().to_owned();
        let mut source = Source {
            path: path.clone(),
            read_only: false,
            create: false,
        };
        let error = source.prepare().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {path}"
            )
        );
        source.create = true;
        source.prepare().unwrap();
        assert!(Path::new(&path).is_dir());
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        source.path = socket.to_str().unwrap().to_owned();
        let error = source.prepare().unwrap_err();
        assert!(
            error.to_string().contains("a socket of this host"),
            "{error}"
        );
    }
}

//! What of the host's files a machine sees: a list beside its settings, which only
//! this host's user adds to.
//!
//! The monitor exports what is on the list from its start, so that containers which
//! start with the machine find their files, whatever process is there; while it runs,
//! changes of the list are passed on. Names are the caller's affair.

use std::{fs, io, path::PathBuf, sync::Arc};

use dctl_vmm::config::ExportConfig;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Machine, Result,
    blocking::blocking,
    file,
    monitor::control::Control,
    paths::{MachineFiles, create_private},
    state::Inner,
};

/// More exports than this are refused: each takes a line of what the monitor answers.
pub const MAX_EXPORTS: usize = 512;

/// A file or directory of the host that a machine sees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The entry's name in the shared file system's root: letters, digits, `-`.
    pub name: String,
    /// What it is: an absolute path.
    pub path: PathBuf,
    /// Changes are refused.
    pub read_only: bool,
}

impl From<Export> for ExportConfig {
    fn from(export: Export) -> Self {
        Self {
            name: export.name,
            path: export.path,
            read_only: export.read_only,
        }
    }
}

/// How requests for files reach the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareTransport {
    /// A virtio-fs device.
    #[default]
    Virtiofs,
    /// FUSE over vsock.
    Vsock,
}

impl std::str::FromStr for ShareTransport {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "virtiofs" => Ok(Self::Virtiofs),
            "vsock" => Ok(Self::Vsock),
            _ => Err(format!(
                "'{name}' is not a transport for shares: use virtiofs or vsock"
            )),
        }
    }
}

/// The list of a machine.
pub(crate) fn load(files: &MachineFiles) -> Result<Vec<Export>> {
    let path = files.exports();
    let failed = |error| Error::io("read", &path, error);
    match fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

fn save(files: &MachineFiles, exports: &[Export]) -> Result<()> {
    let path = files.exports();
    if exports.is_empty() {
        return file::remove(&path);
    }
    create_private(files.directory())?;
    let json = serde_json::to_vec_pretty(exports)
        .map_err(|error| Error::io("write", &path, io::Error::from(error)))?;
    file::replace(&path, &json)
}

impl Machine {
    /// What the machine sees, or will when it runs.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn exports(&self) -> Result<Vec<Export>> {
        let inner = Arc::clone(&self.inner);
        blocking(move || load(&inner.files)).await
    }

    /// Lets the machine see this, too: at once if it runs, and after each boot. What it
    /// sees already is tried again if it could not be opened before.
    ///
    /// One caller at a time changes what is exported.
    ///
    /// # Errors
    /// [`Error::Monitor`] when it cannot be opened, [`Error::Unacceptable`] when there
    /// are too many; it is not on the list then, unless it was before.
    pub async fn add_export(&self, export: Export) -> Result<()> {
        let new = self
            .edit({
                let export = export.clone();
                move |exports| {
                    if exports.iter().any(|other| other.name == export.name) {
                        return Ok(false);
                    }
                    if exports.len() >= MAX_EXPORTS {
                        return Err(Error::Unacceptable(format!(
                            "a machine shares at most {MAX_EXPORTS} files and folders of the host"
                        )));
                    }
                    exports.push(export);
                    Ok(true)
                }
            })
            .await?;
        let Some(mut control) = self.control().await? else {
            return Ok(());
        };
        let name = export.name.clone();
        let added = control.add_export(export.into()).await;
        if added.is_err() && new {
            self.edit(move |exports| {
                exports.retain(|other| other.name != name);
                Ok(())
            })
            .await?;
        }
        added
    }

    /// Takes all from the machine's sight but what `is_wanted`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Monitor`].
    pub async fn keep_exports(
        &self,
        is_wanted: impl Fn(&Export) -> bool + Send + 'static,
    ) -> Result<()> {
        let kept: Vec<String> = self
            .edit(move |exports| {
                exports.retain(is_wanted);
                Ok(exports.iter().map(|export| export.name.clone()).collect())
            })
            .await?;
        let Some(mut control) = self.control().await? else {
            return Ok(());
        };
        for name in control.exports().await? {
            if !kept.contains(&name) {
                control.remove_export(name).await?;
            }
        }
        Ok(())
    }

    /// Has the monitor, if it runs, try everything again that it could not open.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn retry_exports(&self) -> Result<()> {
        let exports = self.exports().await?;
        if exports.is_empty() {
            return Ok(());
        }
        let Some(mut control) = self.control().await? else {
            return Ok(());
        };
        for export in exports {
            let path = export.path.clone();
            if let Err(error) = control.add_export(export.into()).await {
                tracing::debug!(%error, path = %path.display(), "not shared");
            }
        }
        Ok(())
    }

    /// Whether the machine's engine answers requests that come from the machine.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn engine_access(&self) -> Result<bool> {
        let path = self.inner.files.engine_access();
        blocking(move || match path.try_exists() {
            Ok(exists) => Ok(exists),
            Err(error) => Err(Error::io("look for", &path, error)),
        })
        .await
    }

    /// Changes that, for as long as the machine exists.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn set_engine_access(&self, access: bool) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let path = inner.files.engine_access();
            if access {
                create_private(inner.files.directory())?;
                file::replace(&path, b"")
            } else {
                file::remove(&path)
            }
        })
        .await
    }

    async fn control(&self) -> Result<Option<Control>> {
        Control::connect(&self.inner.files.control_socket()).await
    }

    /// Changes the list; it is written if that made a difference.
    async fn edit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Vec<Export>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner: Arc<Inner> = Arc::clone(&self.inner);
        blocking(move || {
            let mut exports = load(&inner.files)?;
            let before = exports.clone();
            let result = change(&mut exports)?;
            if exports != before {
                save(&inner.files, &exports)?;
            }
            Ok(result)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DEFAULT_MACHINE, Paths};

    fn export(name: &str) -> Export {
        Export {
            name: name.to_owned(),
            path: format!("/{name}").into(),
            read_only: false,
        }
    }

    #[tokio::test]
    async fn the_list_is_kept_and_has_a_limit() {
        let home = tempfile::tempdir().unwrap();
        let machine = Machine::open(&Paths::under(home.path()), DEFAULT_MACHINE).unwrap();
        assert!(machine.exports().await.unwrap().is_empty());
        for name in ["a", "b", "a"] {
            machine.add_export(export(name)).await.unwrap();
        }
        assert_eq!(machine.exports().await.unwrap(), [export("a"), export("b")]);
        machine
            .keep_exports(|export| export.name == "b")
            .await
            .unwrap();
        assert_eq!(machine.exports().await.unwrap(), [export("b")]);
        let many: Vec<_> = (0..MAX_EXPORTS).map(|i| export(&i.to_string())).collect();
        save(machine.files(), &many).unwrap();
        assert!(machine.add_export(export("more")).await.is_err());
        machine.keep_exports(|_| false).await.unwrap();
        assert!(!machine.files().exports().exists());
    }

    #[tokio::test]
    async fn access_to_the_engine_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let open = || Machine::open(&Paths::under(home.path()), DEFAULT_MACHINE).unwrap();
        assert!(!open().engine_access().await.unwrap());
        open().set_engine_access(true).await.unwrap();
        assert!(open().engine_access().await.unwrap());
        for _ in 0..2 {
            open().set_engine_access(false).await.unwrap();
            assert!(!open().engine_access().await.unwrap());
        }
    }
}

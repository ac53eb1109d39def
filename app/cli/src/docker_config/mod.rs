//! Docker's configuration directory: `~/.docker`, or where `DOCKER_CONFIG` says.
//!
//! [`Configuration`] is its `config.json`, [`credentials`] are those for registries,
//! [`proxies`] are those that containers are told of, [`contexts`] tell Docker's client
//! and Compose where an engine listens. What dctl does not know in these files stays as
//! it is; they are replaced as a whole, readable by their owner alone.

pub(crate) mod contexts;
pub(crate) mod credentials;
mod proxies;

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::failure::Failure;

/// The name of the context that is used when there is no other; Docker's own.
const DEFAULT_CONTEXT: &str = "default";

/// The configuration file.
#[derive(Debug)]
pub(crate) struct Configuration {
    path: PathBuf,
    values: Map<String, Value>,
}

/// The user's directory.
///
/// # Errors
/// When neither `DOCKER_CONFIG` nor a home directory is known.
pub(crate) fn directory() -> Result<PathBuf, Failure> {
    match env::var_os("DOCKER_CONFIG") {
        Some(directory) if !directory.is_empty() => Ok(directory.into()),
        _ => Ok(env::home_dir()
            .ok_or_else(|| {
                Failure::new("dctl: there is no home directory for Docker's configuration")
            })?
            .join(".docker")),
    }
}

impl Configuration {
    /// Reads the user's.
    pub(crate) fn open() -> Result<Self, Failure> {
        Self::read(directory()?.join("config.json"))
    }

    fn read(path: PathBuf) -> Result<Self, Failure> {
        let values = match fs::read(&path) {
            Ok(text) if text.iter().all(u8::is_ascii_whitespace) => Map::new(),
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(Failure::new(format!("{}: {error}", path.display()))),
        };
        Ok(Self { path, values })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The context that Docker's client uses; `None` for its default.
    pub(crate) fn current_context(&self) -> Option<&str> {
        self.values
            .get("currentContext")?
            .as_str()
            .filter(|name| !name.is_empty() && *name != DEFAULT_CONTEXT)
    }

    /// Has Docker's client use a context from now on; `None` for its default.
    pub(crate) fn set_current_context(&mut self, name: Option<&str>) -> Result<(), Failure> {
        match name {
            Some(name) => self.values.insert("currentContext".into(), name.into()),
            None => self.values.remove("currentContext"),
        };
        self.write()
    }

    /// Replaces the file.
    fn write(&self) -> Result<(), Failure> {
        let text = crate::output::json::pretty(&self.values).map_err(Failure::engine)?;
        // Through a link, so that it is the file itself that is replaced.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        replace(&path, text.as_bytes()).map_err(|error| self.unusable(&error))
    }

    fn unusable(&self, reason: &dyn std::fmt::Display) -> Failure {
        Failure::new(format!("cannot save {}: {reason}", self.path.display()))
    }
}

/// Writes a file so that there is the old one or the new one, whatever happens.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!("{name}.{}", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // What is left of the attempt is of no use to anybody.
        let _ = fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, "{").unwrap();
        assert!(Configuration::read(path).is_err());
    }

    #[test]
    fn the_default_context_has_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, r#"{"currentContext":"default","psFormat":"x"}"#).unwrap();
        let mut configuration = Configuration::read(path.clone()).unwrap();
        assert_eq!(configuration.current_context(), None);
        configuration.set_current_context(Some("mine")).unwrap();
        let mut again = Configuration::read(path.clone()).unwrap();
        assert_eq!(again.current_context(), Some("mine"));
        again.set_current_context(None).unwrap();
        let text: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(text, serde_json::json!({"psFormat": "x"}));
    }
}

//! The contexts of Docker's client: names for engines, each a file of metadata.
//!
//! `dctl context` makes one for each machine, which Docker's client, Compose and
//! whoever reads contexts then find. Other people's contexts are never touched.
//!
//! Source: `docker context export`, and Docker's documentation "Docker contexts".

use std::{fmt::Write as _, fs, io, path::PathBuf};

use dctl_machine::DEFAULT_MACHINE;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{directory, replace};
use crate::failure::Failure;

/// The context of the default machine, and what those of others begin with.
const NAME: &str = "dctl";

/// Marks the contexts that dctl made: others of that name are somebody else's.
const MARK: &str = "dctl";

/// A context of dctl's.
#[derive(Debug)]
pub(crate) struct Context {
    name: String,
    folder: PathBuf,
}

impl Context {
    /// That of a machine, whether it exists or not.
    pub(crate) fn of_machine(machine: &str) -> Result<Self, Failure> {
        let name = if machine == DEFAULT_MACHINE {
            NAME.to_owned()
        } else {
            format!("{NAME}-{machine}")
        };
        let mut folder = String::new();
        for byte in Sha256::digest(name.as_bytes()) {
            // Writing to a string does not fail.
            let _ = write!(folder, "{byte:02x}");
        }
        let folder = directory()?.join("contexts/meta").join(folder);
        Ok(Self { name, folder })
    }

    /// What Docker's client calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was made by dctl; `None` when there is none.
    pub(crate) fn is_ours(&self) -> Result<Option<bool>, Failure> {
        let text = match fs::read(self.folder.join("meta.json")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", &error)),
        };
        let values: Value =
            serde_json::from_slice(&text).map_err(|error| self.failed("read", &error))?;
        Ok(Some(values["Metadata"]["MadeBy"] == MARK))
    }

    /// Makes it, or has it lead to `host` from now on.
    ///
    /// # Errors
    /// When somebody else made a context of this name.
    pub(crate) fn register(&self, machine: &str, host: &str) -> Result<(), Failure> {
        if self.is_ours()? == Some(false) {
            return Err(Failure::new(format!(
                "dctl: there is a Docker context \"{0}\" that dctl did not make: remove it with `docker context rm {0}`, or use DOCKER_HOST as `dctl env` prints it",
                self.name
            )));
        }
        let values = json!({
            "Name": self.name,
            "Metadata": {"Description": format!("dctl, machine {machine}"), "MadeBy": MARK},
            "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": false}},
        });
        replace(
            &self.folder.join("meta.json"),
            values.to_string().as_bytes(),
        )
        .map_err(|error| self.failed("save", &error))
    }

    /// Removes it, if there is one and dctl made it. Tells whether it did.
    pub(crate) fn remove(&self) -> Result<bool, Failure> {
        if self.is_ours()? != Some(true) {
            return Ok(false);
        }
        fs::remove_dir_all(&self.folder).map_err(|error| self.failed("remove", &error))?;
        Ok(true)
    }

    fn failed(&self, action: &str, reason: &dyn std::fmt::Display) -> Failure {
        Failure::new(format!(
            "cannot {action} the Docker context \"{}\" in {}: {reason}",
            self.name,
            self.folder.display()
        ))
    }
}

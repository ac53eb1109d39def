//! What a container's log options say: whether its output is kept, how much of it, and
//! what is noted beside it. Source: Docker's `json-file` and `local` drivers.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use guest_protocol::{AgentError, container::Container};
use tokio::sync::watch;

use super::Containers;
use crate::{
    error::Result,
    stdio::{
        Stdio,
        json_log::{Limits, LogWriter, Progress},
        log_files::LogFiles,
    },
};

/// A container's log, for whoever reads it.
#[derive(Debug)]
pub(crate) struct LogSource {
    path: PathBuf,
    limits: Limits,
    /// Of the run that is logged, or the next one.
    stdio: Arc<Stdio>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) tty: bool,
}

impl LogSource {
    /// Its files as they are.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub(crate) fn open(&self) -> io::Result<LogFiles> {
        self.stdio.look_at_log(|writer| self.open_beside(writer))
    }

    /// As [`open`](Self::open), while `writer` stands still; nobody writes when there is
    /// none.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub(crate) fn open_beside(&self, writer: Option<&LogWriter>) -> io::Result<LogFiles> {
        LogFiles::open(&self.path, self.limits, writer)
    }
}

impl Containers {
    /// Where a container's log is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](guest_protocol::ErrorKind::NotFound); when its driver keeps
    /// none.
    pub(crate) fn log(&self, reference: &str) -> Result<LogSource> {
        let entry = self.find(reference)?;
        let container = entry.container();
        if !keeps_log(&container) {
            return Err(AgentError::invalid(
                "configured logging driver does not support reading",
            ));
        }
        Ok(LogSource {
            path: self.shared.paths.log(&entry.id),
            limits: log_limits(&container).unwrap_or_default(),
            stdio: entry.stdio(),
            progress: entry.log_progress.subscribe(),
            tty: container.config.tty == Some(true),
        })
    }
}

fn log_driver(container: &Container) -> &str {
    container
        .host_config
        .log_config
        .as_ref()
        .and_then(|log| log.typ.as_deref())
        .unwrap_or_default()
}

/// Whether the container's output is kept: by every driver but `none`.
pub(super) fn keeps_log(container: &Container) -> bool {
    log_driver(container) != "none"
}

/// An option of its log driver.
fn log_option<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let log = container.host_config.log_config.as_ref()?;
    log.config.as_ref()?.get(name).map(String::as_str)
}

pub(super) fn log_limits(container: &Container) -> std::result::Result<Limits, String> {
    // The driver `local` is a json-file with other limits.
    let (size, files) = match log_driver(container) {
        "local" => (Some("20m"), Some("5")),
        _ => (None, None),
    };
    Limits::parse(
        log_option(container, "max-size").or(size),
        log_option(container, "max-file").or(files),
    )
}

/// The labels and variables that are logged with its output: those that the options
/// `labels` and `env` name.
pub(super) fn log_attributes(container: &Container) -> BTreeMap<String, String> {
    let named = |option: &str| {
        let list = log_option(container, option).unwrap_or_default();
        list.split(',').filter(|name| !name.is_empty())
    };
    let labels = container.config.labels.as_ref();
    let labels = named("labels").filter_map(|name| {
        let value = labels?.get(name)?;
        Some((name.to_owned(), value.clone()))
    });
    let variables = named("env").filter_map(|name| {
        let variables = container.config.env.iter().flatten();
        let mut variables = variables.filter_map(|variable| variable.split_once('='));
        let (_, value) = variables.find(|(known, _)| *known == name)?;
        Some((name.to_owned(), value.to_owned()))
    });
    labels.chain(variables).collect()
}

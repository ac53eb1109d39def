//! What a container's log options say: whether its output is kept, how much of it, and
//! what is noted beside it. Source: Docker's `json-file` and `local` drivers.

use std::{collections::BTreeMap, path::PathBuf};

use guest_protocol::container::Container;
use tokio::sync::watch;

use crate::stdio::json_log::{Limits, Progress};

/// A container's log, for whoever reads it.
#[derive(Debug)]
pub(crate) struct LogSource {
    pub(crate) path: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) tty: bool,
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

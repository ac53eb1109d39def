//! Options of the volume driver `local`: a tmpfs instead of a folder on the disk.

use std::collections::BTreeMap;

use guest_protocol::{AgentError, ErrorKind};

use crate::error::Result;

/// Refuses drivers that do not exist.
///
/// # Errors
/// In Docker's words.
pub(super) fn check_driver(driver: &str) -> Result<()> {
    if matches!(driver, "" | "local") {
        return Ok(());
    }
    Err(AgentError::new(
        ErrorKind::NotFound,
        format!("error looking up volume plugin {driver}: plugin \"{driver}\" not found"),
    ))
}

/// Refuses names that are no folder's.
///
/// # Errors
/// In Docker's words.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let valid = (2..=255).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|next| next.is_ascii_alphanumeric() || "_.-".contains(next));
    if valid {
        return Ok(());
    }
    if name.len() == 1 {
        return Err(AgentError::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    Err(AgentError::invalid(format!(
        "{name:?} includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
    )))
}

/// Refuses options that this driver cannot follow.
///
/// # Errors
/// Names the option.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<()> {
    for option in options.keys() {
        if !matches!(option.as_str(), "type" | "device" | "o") {
            return Err(AgentError::invalid(format!("invalid option: {option:?}")));
        }
    }
    if options.is_empty() {
        return Ok(());
    }
    match options.get("type").map(String::as_str) {
        Some("tmpfs") => Ok(()),
        None | Some("") => Err(AgentError::invalid("missing required option: \"type\"")),
        Some(kind) => Err(AgentError::invalid(format!(
            "volumes of type {kind:?} are not supported: the driver local makes folders on the \
             machine's disk, and tmpfs with type=tmpfs"
        ))),
    }
}

/// The mount options of a volume that is a tmpfs: flags by name, and the rest as
/// the file system takes it.
pub(super) fn tmpfs(options: &BTreeMap<String, String>) -> Option<Vec<&str>> {
    (options.get("type").map(String::as_str) == Some("tmpfs")).then(|| {
        options
            .get("o")
            .map_or("", String::as_str)
            .split(',')
            .filter(|option| !option.is_empty())
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn a_tmpfs_is_all_that_options_can_ask_for() {
        assert!(check(&options(&[])).is_ok());
        let tmpfs_options = options(&[
            ("type", "tmpfs"),
            ("device", "tmpfs"),
            ("o", "size=1m,uid=5"),
        ]);
        assert!(check(&tmpfs_options).is_ok());
        assert_eq!(tmpfs(&tmpfs_options).unwrap(), ["size=1m", "uid=5"]);
        assert_eq!(tmpfs(&options(&[])), None);
        for refused in [
            &[("type", "nfs"), ("device", ":/x"), ("o", "addr=1.2.3.4")][..],
            &[("type", "none"), ("o", "bind"), ("device", "/x")],
            &[("size", "1m")],
            &[("o", "size=1m")],
        ] {
            assert!(check(&options(refused)).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn names_are_folders() {
        for name in ["ab", "a_b.c-d", "9z"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "a", "..", ".a", "a/b", "a b", "ä1", &"x".repeat(256)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}

//! Files of this host in `--volume` and `--mount`: paths made absolute, as Docker's
//! command line does, and the options of bind mounts.

use std::{
    io,
    path::{Component, Path, PathBuf, absolute},
};

use bollard_stubs::models::{MountBindOptions, MountBindOptionsPropagationEnum};

/// The source of a bind mount: one that begins with a dot is relative to the current
/// directory. A tilde is the shell's affair.
pub(super) fn source(path: &str) -> Result<String, String> {
    if !path.starts_with('.') {
        return Ok(path.to_owned());
    }
    let failed = |error: io::Error| format!("cannot make {path} absolute: {error}");
    let path = absolute(path).map_err(failed)?;
    clean(&path)
        .into_os_string()
        .into_string()
        .map_err(|path| format!("the path {} is not UTF-8", path.display()))
}

/// `--volume`, with its source made absolute.
pub(super) fn volume(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((path, rest)) => Ok(format!("{}:{rest}", source(path)?)),
        None => Ok(text.to_owned()),
    }
}

/// Without `.` and `..`, whatever is there.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// Sets an option of `--mount` whose key begins with `bind-`. False for one that there
/// is not.
pub(super) fn set(options: &mut MountBindOptions, key: &str, value: &str) -> Result<bool, String> {
    let invalid = || format!("invalid value for {key}: {value}");
    match key {
        "bind-propagation" => {
            let propagation: MountBindOptionsPropagationEnum =
                value.to_ascii_lowercase().parse().map_err(|_| invalid())?;
            options.propagation = Some(propagation);
        }
        "bind-nonrecursive" => {
            options.non_recursive = Some(value.parse().map_err(|_| invalid())?);
        }
        "bind-recursive" => match value {
            "enabled" => options.non_recursive = Some(false),
            "disabled" => options.non_recursive = Some(true),
            "writable" => options.read_only_non_recursive = Some(true),
            "readonly" => options.read_only_force_recursive = Some(true),
            _ => return Err(invalid()),
        },
        _ => return Ok(false),
    }
    Ok(true)
}

/// Refuses what the options say of a read-only mount when it is none, as Docker's
/// command line does.
pub(super) fn check(options: &MountBindOptions, read_only: bool) -> Result<(), String> {
    let needs = |word: &str, what: &str| {
        Err(format!(
            "option 'bind-recursive={word}' requires '{what}' to be specified in conjunction"
        ))
    };
    if options.read_only_non_recursive == Some(true) && !read_only {
        return needs("writable", "readonly");
    }
    if options.read_only_force_recursive == Some(true) {
        if !read_only {
            return needs("readonly", "readonly");
        }
        if options.propagation != Some(MountBindOptionsPropagationEnum::RPRIVATE) {
            return needs("readonly", "bind-propagation=rprivate");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recursive_of_a_read_only_mount_needs_one() {
        let mut options = MountBindOptions::default();
        set(&mut options, "bind-recursive", "readonly").unwrap();
        check(&options, false).unwrap_err();
        check(&options, true).unwrap_err();
        set(&mut options, "bind-propagation", "rprivate").unwrap();
        assert_eq!(check(&options, true), Ok(()));
        let mut options = MountBindOptions::default();
        set(&mut options, "bind-recursive", "writable").unwrap();
        check(&options, false).unwrap_err();
        assert_eq!(check(&options, true), Ok(()));
        set(&mut options, "bind-recursive", "what").unwrap_err();
    }

    #[test]
    fn relative_paths_begin_with_a_dot() {
        let here = std::env::current_dir().unwrap();
        let here = here.to_str().unwrap();
        assert_eq!(source("."), Ok(here.to_owned()));
        assert_eq!(source("./a/../b"), Ok(format!("{here}/b")));
        assert_eq!(volume("./a:/x:ro"), Ok(format!("{here}/a:/x:ro")));
        for text in ["/abs/../x:/y", "name:/y", "~/x:/y", "/only"] {
            assert_eq!(volume(text).as_deref(), Ok(text));
        }
    }
}

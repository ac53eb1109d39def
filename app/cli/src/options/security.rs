//! `--security-opt`, `--sysctl` and what else is said about privileges.

use std::{fs, path::Path};

/// The largest seccomp profile that is read, in bytes.
const LONGEST_PROFILE: u64 = 4 * 1024 * 1024;

/// What `--security-opt` asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SecurityOptions {
    /// For the API: a seccomp profile as its JSON rather than its file's name.
    pub(crate) options: Vec<String>,
    /// `systempaths=unconfined`: nothing in `/proc` and `/sys` is hidden.
    pub(crate) all_system_paths: bool,
}

/// Reads what was given with `--security-opt`, and the profile that it names.
pub(crate) fn security_options(given: &[String]) -> Result<SecurityOptions, String> {
    let mut result = SecurityOptions::default();
    for option in given {
        let (name, value) = match option.split_once(['=', ':']) {
            Some(pair) => pair,
            None if option == "no-new-privileges" => {
                result.options.push(option.clone());
                continue;
            }
            None => return Err(format!("invalid --security-opt: \"{option}\"")),
        };
        match (name, value) {
            ("systempaths", "unconfined") => result.all_system_paths = true,
            ("seccomp", "unconfined" | "builtin") => result.options.push(option.clone()),
            ("seccomp", path) => result
                .options
                .push(format!("seccomp={}", profile(Path::new(path))?)),
            _ => result.options.push(option.clone()),
        }
    }
    Ok(result)
}

/// A seccomp profile's file, as JSON without blanks.
fn profile(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let opening = |error: &dyn std::fmt::Display| {
        format!("opening seccomp profile ({shown}) failed: {error}")
    };
    let size = fs::metadata(path).map_err(|error| opening(&error))?.len();
    if size > LONGEST_PROFILE {
        return Err(opening(&format!("its {size} bytes are too many")));
    }
    let text = fs::read(path).map_err(|error| opening(&error))?;
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|error| {
        format!("compacting json for seccomp profile ({shown}) failed: {error}")
    })?;
    Ok(json.to_string())
}

/// `name=value` of a kernel parameter that each namespace has for itself.
pub(crate) fn sysctl(text: &str) -> Result<(String, String), String> {
    const OF_IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let refused = || format!("sysctl '{text}' is not allowed");
    let (name, value) = text.split_once('=').ok_or_else(refused)?;
    let allowed =
        OF_IPC.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.");
    if allowed {
        return Ok((name.to_owned(), value.to_owned()));
    }
    Err(refused())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn parse(given: &[&str]) -> Result<SecurityOptions, String> {
        security_options(
            &given
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_profile_travels_as_json() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{{ \"defaultAction\":\n  \"SCMP_ACT_ALLOW\" }}").unwrap();
        let option = format!("seccomp={}", file.path().display());
        assert_eq!(
            parse(&[&option]).unwrap().options,
            [r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#]
        );
        writeln!(file, "}}").unwrap();
        assert!(
            parse(&[&option])
                .unwrap_err()
                .starts_with("compacting json")
        );
        assert!(
            parse(&["seccomp=/nonexistent"])
                .unwrap_err()
                .starts_with("opening seccomp profile (/nonexistent) failed: ")
        );
    }

    #[test]
    fn other_options_pass_as_they_are() {
        let given = [
            "no-new-privileges",
            "no-new-privileges:false",
            "seccomp=unconfined",
            "apparmor=unconfined",
            "label=disable",
        ];
        assert_eq!(parse(&given).unwrap().options, given);
        let paths = parse(&["systempaths=unconfined"]).unwrap();
        assert!(paths.all_system_paths && paths.options.is_empty());
        assert_eq!(
            parse(&["foo"]).unwrap_err(),
            "invalid --security-opt: \"foo\""
        );
    }

    #[test]
    fn only_sysctls_of_namespaces() {
        assert_eq!(
            sysctl("net.core.somaxconn=1024").unwrap(),
            ("net.core.somaxconn".into(), "1024".into())
        );
        assert!(sysctl("kernel.sem=1 2 3 4").is_ok());
        assert_eq!(
            sysctl("vm.swappiness=1").unwrap_err(),
            "sysctl 'vm.swappiness=1' is not allowed"
        );
        assert!(sysctl("net.x").is_err());
    }
}

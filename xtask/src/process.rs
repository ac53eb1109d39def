//! Programs that xtask runs, and errors that say which one failed and how.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, bail};

/// Runs `command` to its end; a status other than success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = describe(command);
    let status = command
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    Ok(())
}

/// Runs `command` and returns what it printed, trimmed at the end.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", output.status);
    }
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("{name} printed something that is not UTF-8"))?;
    Ok(text.trim_end().to_owned())
}

/// Replaces this process by `program`; returns only if that fails.
pub(crate) fn replace(program: &Path, arguments: &[String]) -> Error {
    let error = Command::new(program).args(arguments).exec();
    Error::from(error).context(format!("cannot run {}", program.display()))
}

/// Where `program` is, looked for in `$PATH` and in the directories of system
/// programs, which an unprivileged user's `$PATH` leaves out.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Where `program` is, or an error that says how to get it.
pub(crate) fn need(program: &str) -> Result<PathBuf> {
    find(program).with_context(|| format!("{program} is not installed; run `cargo xtask setup`"))
}

fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    let line = words.join(" ");
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("`{} ...`", &line[..end]),
        None => format!("`{line}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command() {
        let error = run(Command::new("false").arg("why")).unwrap_err();
        assert!(
            error.to_string().starts_with("`false why` failed"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_is_an_error_that_helps() {
        let error = need("no-such-program-of-xtask").unwrap_err();
        assert!(error.to_string().contains("cargo xtask setup"), "{error}");
    }
}

//! Other people's clients of the Docker Engine API, for the end-to-end tests: what
//! `PyPI` has at the versions that `tests/tests/clients/requirements.txt` pins, and
//! Debian's docker-compose 1. They are put into the cache, and none is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cache::{Key, Places};
use crate::{package, process};

/// Names the directory of the clients' commands to the tests.
pub(crate) const VARIABLE: &str = "DCTL_TEST_CLIENTS";

const REQUIREMENTS: &str = "tests/tests/clients/requirements.txt";

/// Debian's Python, which its packages are for. The pinned wheels are, too.
const PYTHON: &str = "/usr/bin/python3";

/// docker-compose 1 and those of its dependencies that come not with Python.
const COMPOSE_1: [&str; 20] = [
    "docker-compose=1.29.2-3",
    "python3-attr",
    "python3-certifi",
    "python3-chardet",
    "python3-charset-normalizer",
    "python3-distro",
    "python3-docker=5.0.3-1",
    "python3-dockerpty",
    "python3-docopt",
    "python3-dotenv",
    "python3-idna",
    "python3-jsonschema",
    "python3-pkg-resources",
    "python3-pyrsistent",
    "python3-requests",
    "python3-six",
    "python3-texttable",
    "python3-urllib3",
    "python3-websocket",
    "python3-yaml",
];

/// Commands, by name: shell scripts that find what they call beside themselves.
const COMMANDS: [(&str, &str); 3] = [
    ("python", r#"exec "$here/python/bin/python" "$@""#),
    ("compose", r#"exec "$here/python/bin/docker-compose" "$@""#),
    (
        "compose-1",
        r#"PYTHONPATH="$here/compose-1/usr/lib/python3/dist-packages" \
    exec /usr/bin/python3 "$here/compose-1/usr/bin/docker-compose" "$@""#,
    ),
];

/// Fetches what the cache lacks. Answers with the directory of the commands.
pub(crate) fn fetch(places: &Places) -> Result<PathBuf> {
    let requirements = places.repository.join(REQUIREMENTS);
    let mut key = Key::new("1")
        .with_file("requirements", &requirements)?
        .with("packages", COMPOSE_1.join(" ").as_bytes());
    for (name, script) in COMMANDS {
        key = key.with(name, script.as_bytes());
    }
    let entry = places.entry("clients", &key, |work| {
        from_pypi(&requirements, &work.join("python"))?;
        let compose = work.join("compose-1");
        fs::create_dir(&compose)?;
        for package in COMPOSE_1 {
            package::unpack(package, &compose)?;
        }
        write_commands(&work.join("bin"))
    })?;
    Ok(entry.join("bin"))
}

fn from_pypi(requirements: &Path, environment: &Path) -> Result<()> {
    process::run(Command::new(PYTHON).args(["-m", "venv"]).arg(environment))?;
    // As a module: scripts name the directory, which is to be renamed.
    process::run(
        Command::new(environment.join("bin/python"))
            .args(["-m", "pip", "--quiet", "install", "--no-deps"])
            .args(["--require-hashes", "--only-binary=:all:", "--requirement"])
            .arg(requirements),
    )
}

fn write_commands(directory: &Path) -> Result<()> {
    fs::create_dir(directory)?;
    for (name, script) in COMMANDS {
        let path = directory.join(name);
        let script = format!("#!/bin/sh\nhere=$(dirname \"$(dirname \"$0\")\")\n{script}\n");
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_find_what_is_beside_them() {
        let directory = tempfile::tempdir().unwrap();
        let python = directory.path().join("python/bin/python");
        fs::create_dir_all(python.parent().unwrap()).unwrap();
        fs::write(&python, "#!/bin/sh\necho \"ran with $*\"\n").unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        let commands = directory.path().join("bin");
        write_commands(&commands).unwrap();
        let said = process::output(Command::new(commands.join("python")).args(["a", "b c"]));
        assert_eq!(said.unwrap(), "ran with a b c");
    }
}

//! Other people's clients of the Docker Engine API, led to an installation's engine.

use std::{path::PathBuf, process::Command};

use crate::Installation;

/// Names the directory of the clients' commands.
const DIRECTORY_VARIABLE: &str = "DCTL_TEST_CLIENTS";

/// A program that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Docker's command line.
    Docker,
    /// Compose as it is today.
    Compose,
    /// docker-compose 1, as Debian has it.
    Compose1,
    /// Python, with docker-py, testcontainers and clients of databases.
    Python,
}

impl Client {
    /// The client, to be started with arguments; it finds the engine of
    /// `installation` and has its home.
    ///
    /// # Panics
    /// If the clients have not been fetched.
    pub fn command(self, installation: &Installation) -> Command {
        let mut command = match self {
            Self::Docker => Command::new("docker"),
            Self::Compose => Command::new(directory().join("compose")),
            Self::Compose1 => Command::new(directory().join("compose-1")),
            Self::Python => Command::new(directory().join("python")),
        };
        if self == Self::Compose1 {
            // It takes the newest version and reads what that has not any more.
            command.env("COMPOSE_API_VERSION", "1.44");
        }
        for variable in ["DOCKER_CONTEXT", "DOCKER_CONFIG", "DCTL_HOST"] {
            command.env_remove(variable);
        }
        let host = format!("unix://{}", installation.socket().display());
        command
            .env("DOCKER_HOST", host)
            .env("HOME", installation.home())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir("/");
        command
    }
}

fn directory() -> PathBuf {
    match std::env::var_os(DIRECTORY_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => panic!("set {DIRECTORY_VARIABLE} to what `cargo xtask clients` prints"),
    }
}

//! What was recorded: a file for each group of requests.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Engine, directory,
    http::{Request, exchange},
    requests::{self, Group},
    session::{Exchange, Session},
};

/// What an engine answered to a group of requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Recording {
    /// The engine's version.
    pub(super) engine: String,
    pub(super) exchanges: Vec<Exchange>,
}

impl Recording {
    /// Sends a group's requests.
    pub(super) fn of(group: &Group, engine: &Engine) -> Vec<Exchange> {
        let mut session = Session::new(engine);
        (group.requests)(&mut session);
        session.into_exchanges()
    }

    /// Reads what was recorded of a group.
    pub(super) fn read(group: &Group) -> io::Result<Self> {
        let path = path(group, &directory());
        let text = fs::read(&path)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }

    fn write(&self, group: &Group, directory: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        text.push('\n');
        fs::write(path(group, directory), text)
    }
}

fn path(group: &Group, directory: &Path) -> PathBuf {
    directory.join(format!("{}.json", group.name))
}

/// Records what an engine answers in `directory`; `groups` are those to record, all when
/// none is named.
///
/// # Errors
/// If there is no such group, it cannot be reached, or the recording not be written.
pub fn record(engine: &Engine, directory: &Path, groups: &[&str]) -> io::Result<()> {
    let groups = requests::groups(groups)?;
    let version = version(engine)?;
    for group in groups {
        let recording = Recording {
            engine: version.clone(),
            exchanges: Recording::of(group, engine),
        };
        recording.write(group, directory)?;
        eprintln!("recorded: {}", group.name);
    }
    Ok(())
}

/// Has an engine pull the image that the requests are about.
///
/// # Errors
/// If that fails.
pub fn pull_image(engine: &Engine) -> io::Result<()> {
    let path = format!(
        "/images/create?fromImage={}/busybox&tag=latest",
        engine.registry
    );
    let answer = exchange(&engine.socket, &Request::new("POST", &path))?;
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status != 200 || text.contains("errorDetail") {
        return Err(io::Error::other(format!("the image is not pulled: {text}")));
    }
    Ok(())
}

fn version(engine: &Engine) -> io::Result<String> {
    let answer = exchange(&engine.socket, &Request::new("GET", "/version"))?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let version = answer.get("Version").and_then(serde_json::Value::as_str);
    Ok(version.unwrap_or_default().to_owned())
}

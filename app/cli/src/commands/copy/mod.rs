//! `cp`: files between a container and here, by Docker's rules of what a path means
//! on both sides: into a folder that is there, under the name of what is not, and
//! with `/.` at its end only what is in a source.

mod local;
mod packing;

use std::{io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use serde::Deserialize;

use super::{Environment, archives, container};
use crate::{
    client::{Call, Client, Error},
    failure::{self, Failure},
    output::human,
    session::terminal,
};

/// Go's bits for a folder and for a symbolic link.
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;

/// Arguments of `cp`.
#[derive(Debug, Args)]
pub(crate) struct CopyArguments {
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    archive: bool,
    /// Follow a symbolic link that is the source
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Suppress progress output during copy
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path here, or - for a tar archive from STDIN
    #[arg(value_name = "SRC_PATH", allow_hyphen_values = true)]
    source: String,
    /// CONTAINER:PATH, a path here, or - for a tar archive to STDOUT
    #[arg(value_name = "DEST_PATH", allow_hyphen_values = true)]
    destination: String,
}

/// What the engine says of a path in a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stat {
    name: String,
    mode: u32,
    link_target: String,
}

/// `dctl cp`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: CopyArguments,
) -> Result<(), Failure> {
    let (source, destination) = (split(&arguments.source), split(&arguments.destination));
    let copied = match (source, destination) {
        ((Some(_), _), (Some(_), _)) => {
            return Err(Failure::new("copying between containers is not supported"));
        }
        ((None, _), (None, _)) => {
            return Err(Failure::new("must specify at least one container source"));
        }
        ((_, ""), _) => return Err(Failure::new("source can not be empty")),
        (_, (_, "")) => return Err(Failure::new("destination can not be empty")),
        ((Some(container), path), (None, to)) => {
            let client = environment.machine().await?;
            copy_out(&client, container, path, to, arguments.follow_link).await?
        }
        ((None, from), (Some(container), path)) => {
            let client = environment.machine().await?;
            copy_in(&client, from, container, path, &arguments).await?
        }
    };
    if !arguments.quiet && arguments.destination != "-" && terminal::stderr_is_terminal() {
        failure::note(format_args!(
            "Successfully copied {} to {}",
            human::size(copied, 3),
            arguments.destination
        ));
    }
    Ok(())
}

/// Container and path, or a path here.
fn split(argument: &str) -> (Option<&str>, &str) {
    match argument.split_once(':') {
        Some((container, path)) if !argument.starts_with(['/', '.']) && !container.is_empty() => {
            (Some(container), path)
        }
        _ => (None, argument),
    }
}

/// The last component of a path.
fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or("")
}

/// What of a path is before its last component.
fn parent(path: &str) -> String {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((parent, _)) => parent.to_owned(),
        None => ".".to_owned(),
    }
}

async fn stat(client: &Client, container: &str, path: &str) -> Result<Stat, Error> {
    let call = Call::head(container::path(container, "archive")).query("path", path);
    client.response(&call).await.map(|response| read(&response))
}

/// What a reply says of its path; nothing if it is not understood.
fn read(response: &Response<Incoming>) -> Stat {
    response
        .headers()
        .get("X-Docker-Container-Path-Stat")
        .and_then(|value| STANDARD.decode(value).ok())
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default()
}

/// From a container; returns how many bytes came.
async fn copy_out(
    client: &Client,
    container: &str,
    path: &str,
    to: &str,
    follow: bool,
) -> Result<u64, Failure> {
    let mut source = path.to_owned();
    if follow {
        let found = stat(client, container, path).await?;
        if found.mode & SYMLINK != 0 {
            source = found.link_target;
        }
    }
    let call = Call::get(container::path(container, "archive")).query("path", &source);
    let response = client.response(&call).await?;
    let found = read(&response);
    let mut body = response.into_body();
    let mut copied = 0;
    if to == "-" {
        let mut output = archives::Output::for_archive(None)?;
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame.map_err(Error::from)?.data_ref() {
                output.write(data)?;
            }
        }
        output.finish()?;
        return Ok(0);
    }
    // A link that was followed keeps its name.
    let name = if source == path {
        found.name.as_str()
    } else {
        base(path)
    };
    let target = local::target(Path::new(to), to, name, found.mode & DIRECTORY != 0)?;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let extracting = tokio::task::spawn_blocking(move || {
        local::extract(local::Received::new(receiver), &found.name, &target)
    });
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Error::from)?.into_data() else {
            continue;
        };
        copied += data.len() as u64;
        if sender.send(data).await.is_err() {
            break;
        }
    }
    drop(sender);
    match extracting.await {
        Ok(extracted) => extracted
            .map(|()| copied)
            .map_err(|error| Failure::new(error.to_string())),
        Err(error) => Err(Failure::engine(error)),
    }
}

/// Into a container; returns how many bytes went.
async fn copy_in(
    client: &Client,
    from: &str,
    container: &str,
    path: &str,
    arguments: &CopyArguments,
) -> Result<u64, Failure> {
    let mut path = path.to_owned();
    let mut there = match stat(client, container, &path).await {
        Ok(stat) => Some(stat),
        Err(error) if error.is_not_found() => {
            // Either may be missing: the container's absence is its own error.
            container::inspect(client, container).await?;
            None
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(link) = there.as_ref().filter(|stat| stat.mode & SYMLINK != 0) {
        path.clone_from(&link.link_target);
        there = stat(client, container, &path).await.ok();
    }
    let is_folder = there.as_ref().map(|stat| stat.mode & DIRECTORY != 0);
    let call = |folder: &str| {
        Call::put(container::path(container, "archive"))
            .query("path", folder)
            .query("noOverwriteDirNonDir", "true")
            .flag("copyUIDGID", arguments.archive)
    };
    if from == "-" {
        if is_folder != Some(true) {
            return Err(Failure::new(format!(
                "destination \"{container}:{path}\" must be a directory"
            )));
        }
        let input = archives::input(None).await?;
        client.send_archive(&call(&path), input).await?;
        return Ok(0);
    }
    let is_source_folder = packing::is_folder(from, arguments.follow_link)?;
    let (folder, name) = place(&path, is_folder, from, is_source_folder)?;
    let archive = packing::Packed::start(from.to_owned(), name, arguments.follow_link)
        .map_err(|error: io::Error| Failure::new(error.to_string()))?;
    let count = archive.count();
    client.send_archive(&call(&folder), archive).await?;
    Ok(count.load(std::sync::atomic::Ordering::Relaxed))
}

/// The folder in the container that a source goes to, and the name that it has
/// there; `.` for only what is in it.
fn place(
    path: &str,
    is_folder: Option<bool>,
    source: &str,
    is_source_folder: bool,
) -> Result<(String, String), Failure> {
    let contents = source.ends_with("/.") || source == ".";
    match is_folder {
        Some(true) if contents => Ok((path.to_owned(), ".".to_owned())),
        Some(true) => Ok((path.to_owned(), packing::name(source))),
        Some(false) if is_source_folder => Err(Failure::new("cannot copy directory")),
        None if !is_source_folder && path.ends_with('/') => Err(Failure::new("no such directory")),
        _ => Ok((parent(path), base(path).to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_a_container_or_a_path_here() {
        assert_eq!(split("web:/etc"), (Some("web"), "/etc"));
        assert_eq!(split("web:"), (Some("web"), ""));
        for path in ["/a:b", "./a:b", "plain", "-", ":x"] {
            assert_eq!(split(path), (None, path));
        }
    }

    #[test]
    fn a_source_goes_where_docker_puts_it() {
        let placed = |path: &str, there, source: &str, folder| {
            place(path, there, source, folder).map_err(|error| error.message().unwrap().to_owned())
        };
        let own = |folder: &str, name: &str| Ok((folder.to_owned(), name.to_owned()));
        assert_eq!(placed("/d", Some(true), "a/f", false), own("/d", "f"));
        assert_eq!(placed("/d", Some(true), "a/.", true), own("/d", "."));
        assert_eq!(placed("/d/f", Some(false), "g", false), own("/d", "f"));
        assert_eq!(placed("/d/new", None, "dir", true), own("/d", "new"));
        assert_eq!(placed("/new/", None, "dir", true), own("/", "new"));
        assert_eq!(
            placed("/d/f", Some(false), "dir", true),
            Err("cannot copy directory".into())
        );
        assert_eq!(
            placed("/new/", None, "file", false),
            Err("no such directory".into())
        );
    }
}

//! `save` and `load`.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use http_body_util::BodyExt;
use tokio::io::AsyncRead;

use super::{Environment, pull};
use crate::{
    client::{Call, Client, Error},
    failure::{self, Failure},
    session::terminal,
};

/// Arguments of `save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArguments {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Save only this platform, such as linux/amd64
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// `dctl save`.
pub(crate) async fn save(
    environment: &Environment,
    arguments: SaveArguments,
) -> Result<(), Failure> {
    let output = Output::for_archive(arguments.output)?;
    let client = environment.machine().await?;
    let mut call = Call::get("/images/get").query_if("platform", arguments.platform);
    for image in &arguments.images {
        call = call.query("names", image);
    }
    write(&client, &call, output).await
}

/// Where an archive is written to: a file appears when it is whole.
pub(super) enum Output {
    Stdout(io::Stdout),
    File {
        file: std::fs::File,
        temporary: PathBuf,
        path: PathBuf,
        done: bool,
    },
}

/// Writes what a call replies with, an archive.
pub(super) async fn write(client: &Client, call: &Call, mut output: Output) -> Result<(), Failure> {
    let mut body = client.response(call).await?.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Error::from)?;
        if let Some(data) = frame.data_ref() {
            output.write(data)?;
        }
    }
    output.finish()
}

/// Where an archive is read from: a file, or standard input, which must not be a
/// terminal.
pub(super) async fn input(
    path: Option<&Path>,
) -> Result<Box<dyn AsyncRead + Send + Unpin>, Failure> {
    if let Some(path) = path.filter(|path| path.as_os_str() != "-") {
        let file = tokio::fs::File::open(path)
            .await
            .map_err(|error| Failure::new(failure::cannot_open(path, &error)))?;
        return Ok(Box::new(file));
    }
    if terminal::stdin_is_terminal() {
        return Err(Failure::new(
            "requested load from stdin, but stdin is empty",
        ));
    }
    let stdin = rustix::stdio::stdin()
        .try_clone_to_owned()
        .map_err(|error| Failure::new(format!("dctl: cannot read STDIN: {error}")))?;
    Ok(Box::new(tokio::fs::File::from_std(stdin.into())))
}

impl Output {
    /// For an archive: to `path`, or to standard output, which must not be a terminal.
    pub(super) fn for_archive(path: Option<PathBuf>) -> Result<Self, Failure> {
        let path = path.filter(|path| path.as_os_str() != "-");
        if path.is_none() && terminal::stdout_is_terminal() {
            return Err(Failure::new(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        // Before anything is asked for: the folder may not be there.
        Self::create(path)
    }

    fn create(path: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::Stdout(io::stdout()));
        };
        let unusable = |path: &Path, why: &dyn std::fmt::Display| {
            Failure::new(format!(
                "failed to save image: invalid output path: {:?}: {why}",
                path.display()
            ))
        };
        if path.is_dir() {
            return Err(unusable(&path, &"it is a directory"));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let file = std::fs::File::create(&temporary).map_err(|error| unusable(&path, &error))?;
        Ok(Self::File {
            file,
            temporary,
            path,
            done: false,
        })
    }

    /// Writes some of it.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout(stdout) => stdout
                .write_all(bytes)
                .map_err(|error| failure::output(&error)),
            Self::File { file, path, .. } => file.write_all(bytes).map_err(|error| {
                Failure::new(format!("dctl: cannot write {}: {error}", path.display()))
            }),
        }
    }

    /// It is whole.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        match &mut self {
            Self::Stdout(stdout) => stdout.flush().map_err(|error| failure::output(&error)),
            Self::File {
                file,
                temporary,
                path,
                done,
            } => {
                file.sync_all()
                    .and_then(|()| std::fs::rename(&*temporary, &*path))
                    .map_err(|error| {
                        Failure::new(format!("dctl: cannot write {}: {error}", path.display()))
                    })?;
                *done = true;
                Ok(())
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Self::File {
            temporary,
            done: false,
            ..
        } = self
        {
            // Nothing else can be done about a rest that cannot be removed.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Arguments of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArguments {
    /// Read from a tar archive file, instead of STDIN
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Load only this platform, such as linux/amd64
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

/// `dctl load`.
pub(crate) async fn load(
    environment: &Environment,
    arguments: LoadArguments,
) -> Result<(), Failure> {
    let input = input(arguments.input.as_deref()).await?;
    let client = environment.machine().await?;
    let quiet = arguments.quiet || !terminal::stdout_is_terminal();
    let call = Call::post("/images/load")
        .flag("quiet", quiet)
        .query_if("platform", arguments.platform);
    let messages = client.upload(&call, input).await?;
    pull::show(messages, pull::Output::Stdout).await
}

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
    client::{Call, Error},
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
    let output = arguments.output.filter(|path| path.as_os_str() != "-");
    if output.is_none() && terminal::stdout_is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    // Before anything is asked for: the folder may not be there.
    let mut output = Output::create(output)?;
    let client = environment.machine().await?;
    let mut call = Call::get("/images/get").query_if("platform", arguments.platform);
    for image in &arguments.images {
        call = call.query("names", image);
    }
    let mut body = client.response(&call).await?.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Error::from)?;
        if let Some(data) = frame.data_ref() {
            output.write(data)?;
        }
    }
    output.finish()
}

/// Where an archive is written to: a file appears when it is whole.
enum Output {
    Stdout(io::Stdout),
    File {
        file: std::fs::File,
        temporary: PathBuf,
        path: PathBuf,
        done: bool,
    },
}

impl Output {
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

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout(stdout) => stdout
                .write_all(bytes)
                .map_err(|error| failure::output(&error)),
            Self::File { file, path, .. } => file.write_all(bytes).map_err(|error| {
                Failure::new(format!("dctl: cannot write {}: {error}", path.display()))
            }),
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
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
    let input: Box<dyn AsyncRead + Send + Unpin> = match &arguments.input {
        Some(path) => {
            let file = tokio::fs::File::open(path)
                .await
                .map_err(|error| Failure::new(format!("open {}: {error}", path.display())))?;
            Box::new(file)
        }
        None if terminal::stdin_is_terminal() => {
            return Err(Failure::new(
                "requested load from stdin, but stdin is empty",
            ));
        }
        None => {
            let stdin = rustix::stdio::stdin()
                .try_clone_to_owned()
                .map_err(|error| Failure::new(format!("dctl: cannot read STDIN: {error}")))?;
            Box::new(tokio::fs::File::from_std(stdin.into()))
        }
    };
    let client = environment.machine().await?;
    let quiet = arguments.quiet || !terminal::stdout_is_terminal();
    let call = Call::post("/images/load")
        .flag("quiet", quiet)
        .query_if("platform", arguments.platform);
    let messages = client.upload(&call, input).await?;
    pull::show(messages, pull::Output::Stdout).await
}

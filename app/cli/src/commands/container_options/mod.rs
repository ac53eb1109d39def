//! The options that `run` and `create` share, and what they become.
//!
//! Those about one subject are in a module of their own, which also puts them into
//! the API's request; here are those about the process, and the whole.

mod bind;
mod health;
mod mounts;
mod network;
mod resources;
mod security;
mod storage;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use bollard_stubs::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, RestartPolicy, RestartPolicyNameEnum,
};
use clap::{Args, ValueEnum};

use self::{
    health::HealthOptions, mounts::MountOptions, network::NetworkOptions,
    resources::ResourceOptions, security::SecurityOptions, storage::StorageOptions,
};
use crate::{
    failure::Failure,
    options::{environment, resources as values},
    session::terminal,
};

/// When to pull an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Before every run.
    Always,
    /// When it is not there.
    Missing,
    /// Not even then.
    Never,
}

/// Options for a new container.
// In the order of the alphabet, whichever module they are from.
#[derive(Debug, Args)]
#[command(next_display_order = None)]
pub(crate) struct ContainerOptions {
    /// Add an annotation to the container, passed through to its runtime
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
    /// Write the container's ID to the file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Skip image verification: taken and ignored
    #[arg(long = "disable-content-trust", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    _disable_content_trust: Option<bool>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    #[command(flatten)]
    health: HealthOptions,
    /// Print this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Run an init that forwards signals and reaps processes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    init: Option<bool>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Set metadata on a container
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Read in a file of metadata, one a line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Logging driver for the container: json-file, local, none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Options of the logging driver
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::pair)]
    log_opt: Vec<(String, String)>,
    /// Assign a name to the container
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    network: NetworkOptions,
    /// Platform of the image, such as linux/amd64
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Pull the image before
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pub(crate) pull: PullPolicy,
    /// Suppress the pull's output
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    resources: ResourceOptions,
    /// Restart policy: no, on-failure[:max-retries], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = values::restart_policy)]
    restart: RestartPolicy,
    /// Remove the container when it exits
    #[arg(long = "rm")]
    pub(crate) remove: bool,
    #[command(flatten)]
    security: SecurityOptions,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds to wait for it to stop before it is killed
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    #[command(flatten)]
    storage: StorageOptions,
    #[command(flatten)]
    mounts: MountOptions,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// User name or id, and group: <name|uid>[:<group|gid>]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// The image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"], hide = true)]
    image_and_command: Vec<String>,
}

/// Which streams a container is attached to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attached {
    /// Standard input.
    pub(crate) stdin: bool,
    /// Standard output.
    pub(crate) stdout: bool,
    /// Standard error.
    pub(crate) stderr: bool,
}

impl Attached {
    /// Whether there is any.
    pub(crate) fn any(self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

impl ContainerOptions {
    /// The image.
    pub(crate) fn image(&self) -> &str {
        self.image_and_command.first().map_or("", String::as_str)
    }

    /// The variables that were named one by one: `NAME=value`, or `NAME`.
    pub(crate) fn variables(&self) -> &[String] {
        &self.env
    }

    /// Whether streams to attach were named.
    pub(crate) fn names_streams(&self) -> bool {
        !self.attach.is_empty()
    }

    /// Which streams to attach: those that were named, else output and, if it is
    /// kept open, input.
    pub(crate) fn attached(&self) -> Result<Attached, Failure> {
        let mut attached = Attached::default();
        if self.attach.is_empty() {
            return Ok(Attached {
                stdin: self.interactive,
                stdout: true,
                stderr: true,
            });
        }
        for name in &self.attach {
            match name.to_lowercase().as_str() {
                "stdin" => attached.stdin = true,
                "stdout" => attached.stdout = true,
                "stderr" => attached.stderr = true,
                _ => {
                    return Err(Failure::new(format!(
                        "invalid argument \"{name}\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR"
                    )));
                }
            }
        }
        Ok(attached)
    }

    /// What the API calls all this.
    pub(crate) fn body(&self, attached: Attached) -> Result<ContainerCreateBody, Failure> {
        if self.remove && self.restart.name != Some(RestartPolicyNameEnum::NO) {
            return Err(Failure::new(
                "conflicting options: cannot specify both --restart and --rm",
            ));
        }
        let command = self.image_and_command.get(1..).unwrap_or_default();
        let env =
            environment::variables(&self.env_file, &self.env, |name| std::env::var(name).ok())?;
        let labels = environment::label_entries(&self.label_file, &self.label)?;
        let mut host = self.host_config()?;
        let mut body = ContainerCreateBody {
            user: self.user.clone(),
            attach_stdin: Some(attached.stdin),
            attach_stdout: Some(attached.stdout),
            attach_stderr: Some(attached.stderr),
            tty: Some(self.tty),
            open_stdin: Some(self.interactive),
            stdin_once: Some(self.interactive && attached.stdin),
            env: Some(env),
            cmd: (!command.is_empty()).then(|| command.to_vec()),
            healthcheck: self.health.check()?,
            image: Some(self.image().to_owned()),
            working_dir: self.workdir.clone(),
            // An empty one resets the image's.
            entrypoint: self.entrypoint.clone().map(|entrypoint| vec![entrypoint]),
            labels: Some(environment::labels(&labels)?),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            ..ContainerCreateBody::default()
        };
        self.network.put(&mut body, &mut host)?;
        self.mounts.put_anonymous(&mut body);
        body.host_config = Some(host);
        Ok(body)
    }

    fn host_config(&self) -> Result<HostConfig, Failure> {
        let size = terminal::size().filter(|_| self.tty);
        let mut host = HostConfig {
            annotations: (!self.annotation.is_empty())
                .then(|| environment::labels(&self.annotation))
                .transpose()?,
            auto_remove: Some(self.remove),
            console_size: size.map(|(rows, columns)| vec![rows.into(), columns.into()]),
            container_id_file: self
                .cidfile
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned()),
            init: self.init,
            log_config: self.log_config()?,
            restart_policy: Some(self.restart.clone()),
            ..HostConfig::default()
        };
        self.resources.put(&mut host);
        self.security.put(&mut host)?;
        self.storage.put(&mut host);
        self.mounts.put(&mut host);
        Ok(host)
    }

    fn log_config(&self) -> Result<Option<HostConfigLogConfig>, Failure> {
        if self.log_driver.is_none() && self.log_opt.is_empty() {
            return Ok(None);
        }
        if self.log_driver.as_deref() == Some("none") && !self.log_opt.is_empty() {
            return Err(Failure::new("invalid logging opts for driver none"));
        }
        Ok(Some(HostConfigLogConfig {
            typ: Some(self.log_driver.clone().unwrap_or_default()),
            config: Some(self.log_opt.iter().cloned().collect()),
        }))
    }
}

/// What was given, if anything was.
fn list<T: Clone>(given: &[T]) -> Option<Vec<T>> {
    (!given.is_empty()).then(|| given.to_vec())
}

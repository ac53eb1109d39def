//! The options that `run` and `create` share, and what they become.

use std::path::PathBuf;

use bollard_stubs::models::{
    ContainerCreateBody, HostConfig, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use clap::{Args, ValueEnum};

use crate::{
    failure::Failure,
    options::{environment, resources},
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
#[derive(Debug, Args)]
pub(crate) struct ContainerOptions {
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
    /// Add Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Write the container's ID to the file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER", value_parser = resources::nano_cpus)]
    cpus: Option<i64>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Print this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Container host name
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Run an init that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Set metadata on a container
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Memory limit
    #[arg(short, long, value_name = "BYTES", value_parser = resources::bytes)]
    memory: Option<i64>,
    /// Limit for memory and swap together, -1 for no limit on swap
    #[arg(long, value_name = "BYTES", value_parser = resources::bytes_or_unlimited, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Assign a name to the container
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Limit on processes, -1 for none
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Platform of the image, such as linux/amd64
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Give extended privileges to this container
    #[arg(long)]
    privileged: bool,
    /// Pull the image before
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pub(crate) pull: PullPolicy,
    /// Suppress the pull's output
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Mount the container's root file system as read-only
    #[arg(long)]
    read_only: bool,
    /// Restart policy: no, on-failure[:max-retries], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = resources::restart_policy)]
    restart: RestartPolicy,
    /// Remove the container when it exits
    #[arg(long = "rm")]
    pub(crate) remove: bool,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds to wait for it to stop before it is killed
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Mount a tmpfs directory
    #[arg(long, value_name = "PATH[:OPTIONS]", value_parser = resources::tmpfs)]
    tmpfs: Vec<(String, String)>,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Resource limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = resources::ulimit)]
    ulimit: Vec<ResourcesUlimits>,
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
        Ok(ContainerCreateBody {
            hostname: self.hostname.clone(),
            user: self.user.clone(),
            attach_stdin: Some(attached.stdin),
            attach_stdout: Some(attached.stdout),
            attach_stderr: Some(attached.stderr),
            tty: Some(self.tty),
            open_stdin: Some(self.interactive),
            stdin_once: Some(self.interactive && attached.stdin),
            env: Some(env),
            cmd: (!command.is_empty()).then(|| command.to_vec()),
            image: Some(self.image().to_owned()),
            working_dir: self.workdir.clone(),
            // An empty one resets the image's.
            entrypoint: self.entrypoint.clone().map(|entrypoint| vec![entrypoint]),
            labels: Some(environment::labels(&self.label)?),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            host_config: Some(self.host_config()),
            ..ContainerCreateBody::default()
        })
    }

    fn host_config(&self) -> HostConfig {
        let list = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let size = terminal::size().filter(|_| self.tty);
        HostConfig {
            auto_remove: Some(self.remove),
            cap_add: list(&self.cap_add),
            cap_drop: list(&self.cap_drop),
            console_size: size.map(|(rows, columns)| vec![rows.into(), columns.into()]),
            init: self.init.then_some(true),
            memory: self.memory,
            memory_swap: self.memory_swap,
            nano_cpus: self.cpus,
            pids_limit: self.pids_limit,
            privileged: Some(self.privileged),
            readonly_rootfs: Some(self.read_only),
            restart_policy: Some(self.restart.clone()),
            tmpfs: (!self.tmpfs.is_empty()).then(|| self.tmpfs.iter().cloned().collect()),
            ulimits: (!self.ulimit.is_empty()).then(|| self.ulimit.clone()),
            ..HostConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        options: ContainerOptions,
    }

    fn parse(line: &[&str]) -> Result<ContainerOptions, clap::Error> {
        Line::try_parse_from([&["run"], line].concat()).map(|line| line.options)
    }

    fn body(line: &[&str]) -> ContainerCreateBody {
        let options = parse(line).unwrap();
        options.body(options.attached().unwrap()).unwrap()
    }

    #[test]
    fn options_end_at_the_image() {
        let body = body(&["-it", "busybox", "sh", "-c", "echo -i", "--rm", "--", "x"]);
        assert_eq!(body.tty, Some(true));
        assert_eq!(
            body.cmd.unwrap(),
            ["sh", "-c", "echo -i", "--rm", "--", "x"]
        );
        assert_eq!(body.host_config.unwrap().auto_remove, Some(false));
    }

    #[test]
    fn all_options_arrive() {
        let body = body(&[
            "-i",
            "--rm",
            "--name=web",
            "-e",
            "A=1",
            "-eB=2",
            "-l",
            "x=y",
            "-w",
            "/w",
            "-u",
            "1:2",
            "--entrypoint",
            "",
            "-h",
            "host",
            "-m",
            "1g",
            "--memory-swap",
            "-1",
            "--cpus",
            "1.5",
            "--pids-limit",
            "-1",
            "--ulimit",
            "nofile=1:2",
            "--tmpfs",
            "/t:size=1m",
            "--cap-add",
            "SYS_ADMIN",
            "--cap-drop",
            "ALL",
            "--read-only",
            "--init",
            "--privileged",
            "--stop-signal",
            "SIGINT",
            "--stop-timeout",
            "3",
            "busybox",
        ]);
        assert_eq!(body.env.unwrap(), ["A=1", "B=2"]);
        assert_eq!(body.entrypoint.unwrap(), [""]);
        assert_eq!(body.hostname.as_deref(), Some("host"));
        assert_eq!(body.user.as_deref(), Some("1:2"));
        assert_eq!(body.working_dir.as_deref(), Some("/w"));
        assert_eq!(body.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(body.stop_timeout, Some(3));
        assert_eq!(body.stdin_once, Some(true));
        assert_eq!(body.cmd, None);
        assert_eq!(body.labels.unwrap()["x"], "y");
        let host = body.host_config.unwrap();
        assert_eq!(host.auto_remove, Some(true));
        assert_eq!(host.memory, Some(1 << 30));
        assert_eq!(host.memory_swap, Some(-1));
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert_eq!(host.pids_limit, Some(-1));
        assert_eq!(host.tmpfs.unwrap()["/t"], "size=1m");
        assert_eq!(host.cap_add.unwrap(), ["SYS_ADMIN"]);
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.init, Some(true));
        assert_eq!(host.privileged, Some(true));
    }

    #[test]
    fn streams_are_attached_as_docker_does() {
        let attached = |line: &[&str]| parse(line).unwrap().attached();
        assert!(!attached(&["x"]).unwrap().stdin);
        assert!(attached(&["-i", "x"]).unwrap().stdin);
        let only = attached(&["-a", "STDERR", "-i", "x"]).unwrap();
        assert!(only.stderr && !only.stdout && !only.stdin);
        assert!(attached(&["-a", "foo", "x"]).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            &["--nope", "x"][..],
            &[],
            &["-m", "1q", "x"],
            &["--pull", "foo", "x"],
            &["--restart", "foo", "x"],
            &["--ulimit", "foo", "x"],
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
        let both = parse(&["--rm", "--restart", "always", "x"]).unwrap();
        assert!(both.body(Attached::default()).is_err());
    }
}

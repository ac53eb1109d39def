//! The commands: one module for each, or for a few that belong together. This one
//! parses the command line and calls them.

mod archives;
mod booleans;
mod changes;
mod container;
mod container_options;
mod container_prune;
mod context;
mod copy;
mod disk_usage;
mod exec;
mod help;
mod history;
mod host;
mod images;
mod inspect;
mod lifecycle;
mod list;
mod login;
mod logs;
mod machine;
mod network;
mod prune;
mod pull;
mod push;
mod registry;
mod run;
mod stats;
mod system;
mod transfer;
mod update;
mod volumes;

use std::{ffi::OsString, process::ExitCode};

use clap::{FromArgMatches, Parser, Subcommand, error::ErrorKind};
use dctl_machine::DEFAULT_MACHINE;
use tracing_subscriber::EnvFilter;

use crate::{
    client::Client,
    failure::{ENGINE_FAILED, Failure},
    launcher::{self, Target},
    session::terminal,
};

/// Containers in a micro-VM of your own
#[derive(Debug, Parser)]
#[command(
    name = "dctl",
    version,
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Arguments {
    /// Say what dctl does on standard error
    #[arg(short = 'D', long, global = true)]
    debug: bool,
    /// The machine to use, instead of the one that `DCTL_MACHINE` names
    #[arg(
        id = "machine-name",
        long = "machine",
        value_name = "NAME",
        global = true
    )]
    machine: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create and run a new container from an image
    #[command(
        disable_help_flag = true,
        override_usage = "dctl run [OPTIONS] IMAGE [COMMAND] [ARG...]"
    )]
    Run(Box<run::RunArguments>),
    /// Execute a command in a running container
    #[command(override_usage = "dctl exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
    Exec(exec::ExecArguments),
    /// List containers
    Ps(list::ListArguments),
    /// Download an image from a registry
    Pull(pull::PullArguments),
    /// Upload an image to a registry
    Push(push::PushArguments),
    /// List images
    Images(images::ImagesArguments),
    /// Authenticate to a registry
    Login(login::LoginArguments),
    /// Log out from a registry
    Logout(login::LogoutArguments),
    /// Search a registry for images
    Search(registry::SearchArguments),
    /// Show the versions of all parts
    Version(system::FormatArguments),
    /// Display system-wide information
    Info(system::FormatArguments),

    /// Manage containers
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Manage how docker, Compose and other tools find dctl
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Manage images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Manage Docker image manifests and manifest lists
    #[command(subcommand)]
    Manifest(registry::ManifestCommand),
    /// Manage the machines that containers run in
    #[command(subcommand)]
    Machine(machine::MachineCommand),
    /// Manage networks
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Manage dctl
    #[command(subcommand)]
    System(SystemCommand),
    /// Manage volumes
    #[command(subcommand)]
    Volume(volumes::VolumeCommand),

    /// Attach local standard input, output, and error streams to a running container
    Attach(lifecycle::AttachArguments),
    /// Create a new image from a container's changes
    Commit(transfer::CommitArguments),
    /// Generate completions for a shell
    Completion(host::CompletionArguments),
    /// Copy files/folders between a container and the local filesystem
    #[command(
        override_usage = "dctl cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       dctl cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"
    )]
    Cp(copy::CopyArguments),
    /// Create a new container
    #[command(
        disable_help_flag = true,
        override_usage = "dctl create [OPTIONS] IMAGE [COMMAND] [ARG...]"
    )]
    Create(Box<run::CreateArguments>),
    /// Show what a container changed in its file system
    Diff(changes::DiffArguments),
    /// Tell whether machines can run here, and what to do if not
    Doctor(host::DoctorArguments),
    /// Print the command that has docker and other tools use dctl in this shell
    Env(context::EnvArguments),
    /// Get real time events from the engine
    Events(system::EventsArguments),
    /// Export a container's filesystem as a tar archive
    Export(transfer::ExportArguments),
    /// Show the history of an image
    History(history::HistoryArguments),
    /// Import the contents from a tarball to create a filesystem image
    Import(transfer::ImportArguments),
    /// Return low-level information on containers, images, networks and volumes
    Inspect(inspect::InspectArguments),
    /// Kill one or more running containers
    Kill(lifecycle::KillArguments),
    /// Load an image from a tar archive or STDIN
    Load(archives::LoadArguments),
    /// Fetch the logs of a container
    Logs(logs::LogsArguments),
    /// Pause all processes within one or more containers
    Pause(lifecycle::Containers),
    /// List port mappings of a container
    Port(changes::PortArguments),
    /// Rename a container
    Rename(lifecycle::RenameArguments),
    /// Restart one or more containers
    Restart(lifecycle::StopArguments),
    /// Remove one or more containers
    Rm(lifecycle::RemoveArguments),
    /// Remove one or more images
    Rmi(images::RemoveArguments),
    /// Save one or more images to a tar archive (streamed to STDOUT by default)
    Save(archives::SaveArguments),
    /// Start one or more stopped containers
    Start(lifecycle::StartArguments),
    /// Display what containers use, live
    Stats(stats::StatsArguments),
    /// Stop one or more running containers
    Stop(lifecycle::StopArguments),
    /// Give an image one more name
    Tag(images::TagArguments),
    /// Display the running processes of a container
    Top(lifecycle::TopArguments),
    /// Unpause all processes within one or more containers
    Unpause(lifecycle::Containers),
    /// Change limits and restart policy of one or more containers
    Update(Box<update::UpdateArguments>),
    /// Block until one or more containers stop, then print their exit codes
    Wait(lifecycle::Containers),
    /// Remove all stopped containers
    #[command(skip)]
    ContainerPrune(container_prune::PruneArguments),

    /// Remove unused images: `image prune`
    #[command(skip)]
    ImagePrune(prune::ImagePruneArguments),
    /// Show disk usage: `system df`
    #[command(skip)]
    SystemDf(disk_usage::DiskUsageArguments),
    /// Remove unused data: `system prune`
    #[command(skip)]
    SystemPrune(prune::SystemPruneArguments),

    /// Serve the API
    #[command(hide = true)]
    Engine(host::EngineArguments),
}

#[derive(Debug, Subcommand)]
enum ContainerCommand {
    /// Attach local standard input, output, and error streams to a running container
    Attach(lifecycle::AttachArguments),
    /// Create a new image from a container's changes
    Commit(transfer::CommitArguments),
    /// Copy files/folders between a container and the local filesystem
    #[command(
        override_usage = "dctl cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       dctl cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"
    )]
    Cp(copy::CopyArguments),
    /// Create a new container
    #[command(
        disable_help_flag = true,
        override_usage = "dctl container create [OPTIONS] IMAGE [COMMAND] [ARG...]"
    )]
    Create(Box<run::CreateArguments>),
    /// Show what a container changed in its file system
    Diff(changes::DiffArguments),
    /// Execute a command in a running container
    #[command(override_usage = "dctl container exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
    Exec(exec::ExecArguments),
    /// Export a container's filesystem as a tar archive
    Export(transfer::ExportArguments),
    /// Display detailed information on one or more containers
    Inspect(inspect::InspectArguments),
    /// Kill one or more running containers
    Kill(lifecycle::KillArguments),
    /// Fetch the logs of a container
    Logs(logs::LogsArguments),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(list::ListArguments),
    /// Pause all processes within one or more containers
    Pause(lifecycle::Containers),
    /// List port mappings of a container
    Port(changes::PortArguments),
    /// Remove all stopped containers
    Prune(container_prune::PruneArguments),
    /// Rename a container
    Rename(lifecycle::RenameArguments),
    /// Restart one or more containers
    Restart(lifecycle::StopArguments),
    /// Remove one or more containers
    #[command(visible_alias = "remove")]
    Rm(lifecycle::RemoveArguments),
    /// Create and run a new container from an image
    #[command(
        disable_help_flag = true,
        override_usage = "dctl container run [OPTIONS] IMAGE [COMMAND] [ARG...]"
    )]
    Run(Box<run::RunArguments>),
    /// Start one or more stopped containers
    Start(lifecycle::StartArguments),
    /// Display what containers use, live
    Stats(stats::StatsArguments),
    /// Stop one or more running containers
    Stop(lifecycle::StopArguments),
    /// Display the running processes of a container
    Top(lifecycle::TopArguments),
    /// Unpause all processes within one or more containers
    Unpause(lifecycle::Containers),
    /// Change limits and restart policy of one or more containers
    Update(Box<update::UpdateArguments>),
    /// Block until one or more containers stop, then print their exit codes
    Wait(lifecycle::Containers),
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Show the history of an image
    History(history::HistoryArguments),
    /// Import the contents from a tarball to create a filesystem image
    Import(transfer::ImportArguments),
    /// Display detailed information on one or more images
    Inspect(inspect::InspectArguments),
    /// Load an image from a tar archive or STDIN
    Load(archives::LoadArguments),
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::ImagesArguments),
    /// Remove unused images
    Prune(prune::ImagePruneArguments),
    /// Upload an image to a registry
    Push(push::PushArguments),
    /// Save one or more images to a tar archive (streamed to STDOUT by default)
    Save(archives::SaveArguments),
    /// Download an image from a registry
    Pull(pull::PullArguments),
    /// Remove one or more images
    #[command(visible_alias = "remove")]
    Rm(images::RemoveArguments),
    /// Give an image one more name
    Tag(images::TagArguments),
}

#[derive(Debug, Subcommand)]
enum SystemCommand {
    /// Show disk usage
    Df(disk_usage::DiskUsageArguments),
    /// Remove unused data
    Prune(prune::SystemPruneArguments),
    /// Get real time events from the engine
    Events(system::EventsArguments),
    /// Display system-wide information
    Info(system::FormatArguments),
}

impl From<ContainerCommand> for Command {
    fn from(command: ContainerCommand) -> Self {
        match command {
            ContainerCommand::Attach(arguments) => Self::Attach(arguments),
            ContainerCommand::Commit(arguments) => Self::Commit(arguments),
            ContainerCommand::Cp(arguments) => Self::Cp(arguments),
            ContainerCommand::Create(arguments) => Self::Create(arguments),
            ContainerCommand::Export(arguments) => Self::Export(arguments),
            ContainerCommand::Diff(arguments) => Self::Diff(arguments),
            ContainerCommand::Exec(arguments) => Self::Exec(arguments),
            ContainerCommand::Inspect(arguments) => {
                Self::Inspect(arguments.only(inspect::Kind::Container))
            }
            ContainerCommand::Kill(arguments) => Self::Kill(arguments),
            ContainerCommand::Logs(arguments) => Self::Logs(arguments),
            ContainerCommand::Ls(arguments) => Self::Ps(arguments),
            ContainerCommand::Pause(arguments) => Self::Pause(arguments),
            ContainerCommand::Port(arguments) => Self::Port(arguments),
            ContainerCommand::Prune(arguments) => Self::ContainerPrune(arguments),
            ContainerCommand::Rename(arguments) => Self::Rename(arguments),
            ContainerCommand::Restart(arguments) => Self::Restart(arguments),
            ContainerCommand::Rm(arguments) => Self::Rm(arguments),
            ContainerCommand::Run(arguments) => Self::Run(arguments),
            ContainerCommand::Start(arguments) => Self::Start(arguments),
            ContainerCommand::Stats(arguments) => Self::Stats(arguments),
            ContainerCommand::Stop(arguments) => Self::Stop(arguments),
            ContainerCommand::Top(arguments) => Self::Top(arguments),
            ContainerCommand::Unpause(arguments) => Self::Unpause(arguments),
            ContainerCommand::Update(arguments) => Self::Update(arguments),
            ContainerCommand::Wait(arguments) => Self::Wait(arguments),
        }
    }
}

impl From<ImageCommand> for Command {
    fn from(command: ImageCommand) -> Self {
        match command {
            ImageCommand::Import(arguments) => Self::Import(arguments),
            ImageCommand::Inspect(arguments) => Self::Inspect(arguments.only(inspect::Kind::Image)),
            ImageCommand::Ls(arguments) => Self::Images(arguments),
            ImageCommand::Pull(arguments) => Self::Pull(arguments),
            ImageCommand::History(arguments) => Self::History(arguments),
            ImageCommand::Load(arguments) => Self::Load(arguments),
            ImageCommand::Prune(arguments) => Self::ImagePrune(arguments),
            ImageCommand::Push(arguments) => Self::Push(arguments),
            ImageCommand::Save(arguments) => Self::Save(arguments),
            ImageCommand::Rm(arguments) => Self::Rmi(arguments),
            ImageCommand::Tag(arguments) => Self::Tag(arguments),
        }
    }
}

impl From<SystemCommand> for Command {
    fn from(command: SystemCommand) -> Self {
        match command {
            SystemCommand::Events(arguments) => Self::Events(arguments),
            SystemCommand::Info(arguments) => Self::Info(arguments),
            SystemCommand::Df(arguments) => Self::SystemDf(arguments),
            SystemCommand::Prune(arguments) => Self::SystemPrune(arguments),
        }
    }
}

/// How commands reach the engine.
#[derive(Debug)]
struct Environment {
    /// The machine that an option or an argument names.
    machine: Option<String>,
}

impl Environment {
    /// The engine, started if need be.
    async fn engine(&self) -> Result<Client, Failure> {
        launcher::connect(&Target::choose(self.machine.as_deref())?).await
    }

    /// The same, for the machine `name` if there is one.
    fn with_machine(&self, name: Option<&str>) -> Self {
        Self {
            machine: name.map(str::to_owned).or_else(|| self.machine.clone()),
        }
    }

    /// The name of the machine that commands are about.
    fn machine_name(&self) -> Result<String, Failure> {
        match Target::choose(self.machine.as_deref())? {
            Target::Machine(name) => Ok(name),
            // Somebody else's engine knows only the one that it serves.
            Target::Socket(_) => Ok(DEFAULT_MACHINE.to_owned()),
        }
    }

    /// The engine, with a machine that runs.
    async fn machine(&self) -> Result<Client, Failure> {
        let client = self.engine().await?;
        machine::ensure_running(&client, None).await?;
        Ok(client)
    }
}

/// Parses the command line and does what it says.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> Result<ExitCode, Failure> {
    let arguments: Vec<OsString> = arguments.collect();
    let arguments = match parse(&arguments) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    match arguments.command {
        Command::Engine(engine) => host::engine(&engine, arguments.machine),
        Command::Completion(completion) => {
            host::completion(&completion).map(|()| ExitCode::SUCCESS)
        }
        command => {
            log(arguments.debug);
            let environment = Environment {
                machine: arguments.machine,
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::engine(format_args!("cannot start: {error}")))?;
            let result = runtime.block_on(dispatch(&environment, command));
            // What still reads or writes has nothing to do with the result.
            runtime.shutdown_background();
            result.map(|()| ExitCode::SUCCESS)
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<Arguments, clap::Error> {
    let parsed = help::command().try_get_matches_from(arguments);
    let matches = match parsed {
        Err(error) if booleans::may_be_the_reason(&error) => {
            match booleans::command(help::command()).try_get_matches_from(arguments) {
                Err(of_values) if of_values.kind() != ErrorKind::ValueValidation => Err(error),
                parsed => parsed,
            }
        }
        parsed => parsed,
    };
    Arguments::from_arg_matches(&matches?)
}

async fn dispatch(environment: &Environment, command: Command) -> Result<(), Failure> {
    match command {
        Command::Attach(arguments) => lifecycle::attach(environment, arguments).await,
        Command::Container(command) => Box::pin(dispatch(environment, command.into())).await,
        Command::ContainerPrune(arguments) => container_prune::run(environment, arguments).await,
        Command::Context(command) => context::run(environment, &command),
        Command::Commit(arguments) => transfer::commit(environment, arguments).await,
        Command::Cp(arguments) => copy::run(environment, arguments).await,
        Command::Create(arguments) => run::create(environment, *arguments).await,
        Command::Export(arguments) => transfer::export(environment, arguments).await,
        Command::Diff(arguments) => changes::diff(environment, arguments).await,
        Command::Doctor(arguments) => host::doctor(arguments).await,
        Command::Env(arguments) => context::env(environment, &arguments),
        Command::Events(arguments) => system::events(environment, arguments).await,
        Command::Exec(arguments) => exec::run(environment, arguments).await,
        Command::Image(command) => Box::pin(dispatch(environment, command.into())).await,
        Command::Images(arguments) => images::list(environment, arguments).await,
        Command::Import(arguments) => transfer::import(environment, arguments).await,
        Command::Info(arguments) => system::info(environment, arguments).await,
        Command::Inspect(arguments) => inspect::run(environment, arguments).await,
        Command::Kill(arguments) => lifecycle::kill(environment, arguments).await,
        Command::Logs(arguments) => logs::run(environment, arguments).await,
        Command::Machine(command) => machine::run(environment, command).await,
        Command::Network(command) => network::run(environment, command).await,
        Command::Pause(arguments) => lifecycle::each(environment, "pause", arguments).await,
        Command::Port(arguments) => changes::port(environment, arguments).await,
        Command::Ps(arguments) => list::run(environment, arguments).await,
        Command::Pull(arguments) => pull::run(environment, arguments).await,
        Command::Push(arguments) => push::run(environment, arguments).await,
        Command::History(arguments) => history::run(environment, arguments).await,
        Command::ImagePrune(arguments) => prune::images(environment, arguments).await,
        Command::Load(arguments) => archives::load(environment, arguments).await,
        Command::Login(arguments) => login::login(environment, arguments).await,
        Command::Logout(arguments) => login::logout(arguments).await,
        Command::Manifest(command) => registry::manifest(environment, command).await,
        Command::Save(arguments) => archives::save(environment, arguments).await,
        Command::Search(arguments) => registry::search(environment, arguments).await,
        Command::SystemDf(arguments) => disk_usage::run(environment, arguments).await,
        Command::SystemPrune(arguments) => prune::system(environment, arguments).await,
        Command::Rename(arguments) => lifecycle::rename(environment, arguments).await,
        Command::Restart(arguments) => {
            lifecycle::stop_or_restart(environment, "restart", arguments).await
        }
        Command::Rm(arguments) => lifecycle::remove(environment, arguments).await,
        Command::Rmi(arguments) => images::remove(environment, arguments).await,
        Command::Run(arguments) => run::run(environment, *arguments).await,
        Command::Start(arguments) => lifecycle::start(environment, arguments).await,
        Command::Stats(arguments) => stats::run(environment, arguments).await,
        Command::Stop(arguments) => {
            lifecycle::stop_or_restart(environment, "stop", arguments).await
        }
        Command::System(command) => Box::pin(dispatch(environment, command.into())).await,
        Command::Tag(arguments) => images::tag(environment, arguments).await,
        Command::Top(arguments) => lifecycle::top(environment, arguments).await,
        Command::Unpause(arguments) => lifecycle::each(environment, "unpause", arguments).await,
        Command::Update(arguments) => update::run(environment, *arguments).await,
        Command::Version(arguments) => system::version(environment, arguments).await,
        Command::Volume(command) => volumes::run(environment, command).await,
        Command::Wait(arguments) => lifecycle::wait(environment, arguments).await,
        Command::Completion(_) | Command::Engine(_) => Ok(()),
    }
}

/// Help and version are answers, all else is a mistake: 1 when something is
/// missing or no command at all, 125 otherwise, as Docker's client has it.
fn usage(error: &clap::Error) -> Result<ExitCode, Failure> {
    let code = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::TooFewValues
        | ErrorKind::TooManyValues
        | ErrorKind::MissingSubcommand
        | ErrorKind::InvalidSubcommand => 1,
        _ => ENGINE_FAILED,
    };
    if code == 0 {
        let text = error.render();
        crate::failure::print(if terminal::stdout_is_terminal() {
            text.ansi().to_string()
        } else {
            text.to_string()
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    crate::failure::note(error.render().to_string().trim_end());
    Err(Failure::silent(code))
}

/// What `--debug` or `DCTL_LOG` ask for, on standard error.
fn log(debug: bool) {
    let filter = match std::env::var("DCTL_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::new(filter),
        _ if debug => EnvFilter::new("debug"),
        _ => return,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

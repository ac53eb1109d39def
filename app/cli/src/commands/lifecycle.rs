//! What is done to containers that exist: start, stop, kill, remove and so on.

use clap::Args;
use serde::Deserialize;

use super::{
    Environment,
    container::{self, ExitStatus},
    container_options::Attached,
};
use crate::{
    client::{Call, Client, Error},
    failure::{self, Failure},
    options::detach_keys::DetachKeys,
    output::table,
    session::{Plan, terminal},
};

/// Arguments of `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArguments {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS", value_parser = DetachKeys::parse)]
    detach_keys: Option<DetachKeys>,
    /// Attach the container's STDIN
    #[arg(short, long)]
    interactive: bool,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `dctl start`.
pub(crate) async fn start(
    environment: &Environment,
    arguments: StartArguments,
) -> Result<(), Failure> {
    if arguments.attach || arguments.interactive {
        let [name] = arguments.containers.as_slice() else {
            return Err(Failure::new(
                "you cannot start and attach multiple containers at once",
            ));
        };
        let client = environment.machine().await?;
        return start_attached(&client, name, &arguments).await;
    }
    let client = environment.machine().await?;
    let mut failed = Vec::new();
    for name in &arguments.containers {
        match client
            .done(&Call::post(container::path(name, "start")))
            .await
        {
            Ok(()) => failure::print_line(name)?,
            Err(error @ Error::Refused { .. }) => {
                failure::note(error);
                failed.push(name.as_str());
            }
            Err(error) => return Err(error.into()),
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "failed to start containers: {}",
            failed.join(", ")
        )))
    }
}

async fn start_attached(
    client: &Client,
    name: &str,
    arguments: &StartArguments,
) -> Result<(), Failure> {
    let container = container::inspect(client, name).await?;
    let id = container.id.as_str();
    let attached = Attached {
        stdin: arguments.interactive && container.config.open_stdin,
        stdout: true,
        stderr: true,
    };
    let tty = container.config.tty;
    if attached.stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let signals = container::signals(client, id, true, tty)?;
    let hijacked = container::attach(client, id, attached, arguments.detach_keys.as_ref()).await?;
    let condition = if container.host_config.auto_remove {
        "removed"
    } else {
        "next-exit"
    };
    let waiting = container::begin_wait(client, id, condition).await?;
    container::start(client, id).await?;
    if let Some(signals) = &signals {
        signals.started();
    }
    let plan = Plan {
        tty,
        stdin: attached.stdin,
        detach_keys: arguments.detach_keys.clone().unwrap_or_default(),
        resize_path: container::path(id, "resize"),
    };
    container::carry_to_exit(client, hijacked, &plan, signals.as_ref(), waiting).await
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArguments {
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS", value_parser = DetachKeys::parse)]
    detach_keys: Option<DetachKeys>,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Proxy received signals to the process
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// `dctl attach`.
pub(crate) async fn attach(
    environment: &Environment,
    arguments: AttachArguments,
) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let container = container::inspect(&client, &arguments.container).await?;
    let problem = match &container.state {
        state if state.paused => Some("cannot attach to a paused container, unpause it first"),
        state if state.restarting => {
            Some("cannot attach to a restarting container, wait until it is running")
        }
        state if !state.running => Some("cannot attach to a stopped container, start it first"),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(Failure::new(problem));
    }
    let id = container.id.as_str();
    let tty = container.config.tty;
    let attached = Attached {
        stdin: !arguments.no_stdin && container.config.open_stdin,
        stdout: true,
        stderr: true,
    };
    if attached.stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let signals = container::signals(&client, id, arguments.sig_proxy, tty)?;
    if let Some(signals) = &signals {
        signals.started();
    }
    let waiting = container::begin_wait(&client, id, "not-running").await?;
    let hijacked = container::attach(&client, id, attached, arguments.detach_keys.as_ref()).await?;
    let plan = Plan {
        tty,
        stdin: attached.stdin,
        detach_keys: arguments.detach_keys.clone().unwrap_or_default(),
        resize_path: container::path(id, "resize"),
    };
    container::carry_to_exit(&client, hijacked, &plan, signals.as_ref(), waiting).await
}

/// Arguments of `stop` and `restart`.
#[derive(Debug, Args)]
pub(crate) struct StopArguments {
    /// Signal to send to the container
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(
        short,
        long,
        alias = "time",
        value_name = "SECONDS",
        allow_hyphen_values = true
    )]
    timeout: Option<i64>,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `dctl stop` and `dctl restart`.
pub(crate) async fn stop_or_restart(
    environment: &Environment,
    what: &str,
    arguments: StopArguments,
) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let timeout = arguments.timeout.map(|seconds| seconds.to_string());
    container::for_each(
        &arguments.containers,
        async |name| {
            let call = Call::post(container::path(name, what))
                .query_if("signal", arguments.signal.as_ref())
                .query_if("t", timeout.as_ref());
            client.done(&call).await
        },
        |_| false,
    )
    .await
}

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArguments {
    /// Signal to send to the container
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `dctl kill`.
pub(crate) async fn kill(
    environment: &Environment,
    arguments: KillArguments,
) -> Result<(), Failure> {
    let client = environment.machine().await?;
    container::for_each(
        &arguments.containers,
        async |name| {
            let call = Call::post(container::path(name, "kill"))
                .query_if("signal", arguments.signal.as_ref());
            client.done(&call).await
        },
        |_| false,
    )
    .await
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    force: bool,
    /// Remove the specified link
    #[arg(short, long)]
    link: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    volumes: bool,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `dctl rm`.
pub(crate) async fn remove(
    environment: &Environment,
    arguments: RemoveArguments,
) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let names: Vec<_> = arguments
        .containers
        .iter()
        .map(|name| name.trim_matches('/').to_owned())
        .collect();
    if names.iter().any(String::is_empty) {
        return Err(Failure::new("container name cannot be empty"));
    }
    // What is not there is as good as removed to who forces it.
    let tolerated: fn(&Error) -> bool = if arguments.force {
        Error::is_not_found
    } else {
        |_| false
    };
    let remove = async |name: &str| {
        let call = Call::delete(format!("/containers/{}", Call::segment(name)))
            .flag("force", arguments.force)
            .flag("link", arguments.link)
            .flag("v", arguments.volumes);
        client.done(&call).await
    };
    container::for_each(&names, remove, tolerated).await
}

/// Arguments of commands that take only containers.
#[derive(Debug, Args)]
pub(crate) struct Containers {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `dctl pause` and `dctl unpause`.
pub(crate) async fn each(
    environment: &Environment,
    what: &str,
    arguments: Containers,
) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let act = async |name: &str| client.done(&Call::post(container::path(name, what))).await;
    container::for_each(&arguments.containers, act, |_| false).await
}

/// `dctl wait`.
pub(crate) async fn wait(environment: &Environment, arguments: Containers) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let mut failed = false;
    for name in &arguments.containers {
        let call = Call::post(container::path(name, "wait"));
        match client.json::<ExitStatus>(&call).await {
            Ok(status) => match status.error {
                Some(error) => {
                    failure::note(error.message);
                    failed = true;
                }
                None => failure::print_line(status.status_code)?,
            },
            Err(error @ Error::Refused { .. }) => {
                failure::note(error);
                failed = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if failed {
        Err(Failure::silent(1))
    } else {
        Ok(())
    }
}

/// Arguments of `rename`.
#[derive(Debug, Args)]
pub(crate) struct RenameArguments {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Its new name
    #[arg(value_name = "NEW_NAME")]
    name: String,
}

/// `dctl rename`.
pub(crate) async fn rename(
    environment: &Environment,
    arguments: RenameArguments,
) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let call =
        Call::post(container::path(&arguments.container, "rename")).query("name", arguments.name);
    Ok(client.done(&call).await?)
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Options for ps
    #[arg(
        value_name = "PS_OPTION",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    options: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Processes {
    titles: Vec<String>,
    #[serde(default)]
    processes: Vec<Vec<String>>,
}

/// `dctl top`.
pub(crate) async fn top(environment: &Environment, arguments: TopArguments) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let options = arguments.options.join(" ");
    let call = Call::get(container::path(&arguments.container, "top"))
        .query_if("ps_args", (!options.is_empty()).then_some(options));
    let processes: Processes = client.json(&call).await?;
    let mut lines = vec![processes.titles];
    lines.extend(processes.processes);
    failure::print(table::align(&lines))
}

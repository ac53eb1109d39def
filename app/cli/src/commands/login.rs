//! `login` and `logout`.

use std::io::Read as _;

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::Environment;
use crate::{
    client::Call,
    docker_config::{
        Configuration,
        credentials::{self, Credentials, DOCKER_HUB, Stored},
    },
    failure::{self, Failure},
    session::{confirm, terminal},
};

/// The longest password, in bytes: tokens are some thousand.
const MAX_PASSWORD: u64 = 64 * 1024;

/// Arguments of `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArguments {
    /// Password or Personal Access Token (PAT)
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Username
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// The registry; Docker Hub when there is none
    server: Option<String>,
}

/// Arguments of `logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArguments {
    /// The registry; Docker Hub when there is none
    server: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    status: String,
    identity_token: String,
}

/// `dctl login`.
pub(crate) async fn login(
    environment: &Environment,
    arguments: LoginArguments,
) -> Result<(), Failure> {
    if arguments.password.is_some() {
        failure::note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        if arguments.password_stdin {
            return Err(Failure::new(
                "--password and --password-stdin are mutually exclusive",
            ));
        }
    }
    if arguments.password_stdin && arguments.username.is_none() {
        return Err(Failure::new(
            "Must provide --username with --password-stdin",
        ));
    }
    let server = arguments.server.as_deref().unwrap_or(DOCKER_HUB);
    let key = credentials::key(server);
    let mut configuration = Configuration::open()?;
    let client = environment.engine().await?;
    let check = async |credentials: &Credentials| -> Result<Answer, crate::client::Error> {
        let call = Call::post("/auth").with_json(&json!({
            "username": credentials.username,
            "password": credentials.secret,
            "serveraddress": key,
        }))?;
        client.json(&call).await
    };
    let asked_for_nothing = arguments.username.is_none() && arguments.password.is_none();
    if asked_for_nothing && let Some(known) = configuration.get(&key).await? {
        failure::print_line("Authenticating with existing credentials...")?;
        match check(&known).await {
            Ok(answer) => return failure::print_line(answer.status),
            Err(error) => failure::note(format_args!("Login did not succeed, error: {error}")),
        }
    }
    let credentials = ask(arguments)?;
    let answer = check(&credentials).await?;
    let kept = if answer.identity_token.is_empty() {
        credentials
    } else {
        Credentials {
            secret: answer.identity_token,
            ..credentials
        }
    };
    if configuration.store(&key, &kept).await? == Stored::File {
        failure::note(format_args!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            configuration.path().display()
        ));
    }
    failure::print_line(answer.status)
}

/// The name and the password, from wherever the user gives them.
fn ask(arguments: LoginArguments) -> Result<Credentials, Failure> {
    let interactive = || {
        if terminal::stdin_is_terminal() {
            Ok(())
        } else {
            Err(Failure::new(
                "Error: Cannot perform an interactive login from a non TTY device",
            ))
        }
    };
    let username = if let Some(name) = arguments.username {
        name
    } else {
        interactive()?;
        confirm::ask("Username: ")?
    };
    if username.is_empty() {
        return Err(Failure::new("Error: Non-null Username Required"));
    }
    let secret = match arguments.password {
        Some(password) => password,
        None if arguments.password_stdin => {
            let mut text = String::new();
            std::io::stdin()
                .lock()
                .take(MAX_PASSWORD)
                .read_to_string(&mut text)
                .map_err(|error| {
                    Failure::new(format!("dctl: cannot read the password: {error}"))
                })?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        None => {
            interactive()?;
            confirm::ask_secret("Password: ")?
        }
    };
    if secret.is_empty() {
        return Err(Failure::new("Error: Password Required"));
    }
    Ok(Credentials { username, secret })
}

/// `dctl logout`.
pub(crate) async fn logout(arguments: LogoutArguments) -> Result<(), Failure> {
    let server = arguments.server.as_deref().unwrap_or(DOCKER_HUB);
    let key = credentials::key(server);
    if Configuration::open()?.erase(&key).await? {
        failure::print_line(format_args!("Removing login credentials for {key}"))
    } else {
        failure::print_line(format_args!("Not logged in to {key}"))
    }
}

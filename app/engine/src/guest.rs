//! What the engine needs of a machine: that it runs, a connection to its agent,
//! and its life cycle. [`dctl_machine::Machine`] is the one that users have;
//! tests put an agent on a unix socket in its place.

use std::{collections::BTreeSet, time::Duration};

use dctl_machine::{Change, Changed, DriverKind, Error, Export, Machine, Stage, UserNamespace};
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::Value;
use tokio::net::UnixStream;

/// How long a guest may take to stop its containers and power off.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A machine, as the engine sees it.
pub(crate) trait Guest: Send + Sync + 'static {
    /// Makes its boots use this driver; an error when it runs on another.
    fn force_driver(&self, driver: DriverKind) -> BoxFuture<'_, Result<(), Error>>;
    /// Boots it if it does not run; callers at the same time share one boot.
    fn ensure_running(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Connects to a vsock port of the guest.
    fn connect(&self, port: u32) -> BoxFuture<'_, Result<UnixStream, Error>>;
    /// Whether its agent answers, as far as can be told without booting it.
    fn is_running(&self) -> BoxFuture<'_, bool>;
    /// Returns when its agent answers. Boots nothing.
    fn wait_until_running(&self) -> BoxFuture<'_, ()>;
    /// What it is and how it does, for `GET /dctl/machine`.
    fn status(&self) -> BoxFuture<'_, Result<Value, Error>>;
    /// The user namespace of containers that ask for none.
    fn user_namespace(&self) -> BoxFuture<'_, Result<UserNamespace, Error>>;
    /// What the guest wrote to its console last.
    fn console_log(&self) -> BoxFuture<'_, Result<Vec<u8>, Error>>;
    /// Powers it off; fine when it is off.
    fn stop(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Changes what it is given.
    fn change(&self, change: Change) -> BoxFuture<'_, Result<Changed, Error>>;
    /// Empties its disk. It must be off.
    fn reset(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Removes its disk and settings. It must be off.
    fn remove(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// What of this host's files it sees.
    fn exports(&self) -> BoxFuture<'_, Result<Vec<Export>, Error>>;
    /// Lets it see this, too.
    fn add_export(&self, export: Export) -> BoxFuture<'_, Result<(), Error>>;
    /// Lets it see no more than the exports of these names.
    fn keep_exports(&self, names: BTreeSet<String>) -> BoxFuture<'_, Result<(), Error>>;
    /// Tries again what could not be opened.
    fn retry_exports(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Whether its requests to this engine are answered.
    fn engine_access(&self) -> BoxFuture<'_, Result<bool, Error>>;
    /// Changes that, also for engines that come.
    fn set_engine_access(&self, access: bool) -> BoxFuture<'_, Result<(), Error>>;
}

impl Guest for Machine {
    fn force_driver(&self, driver: DriverKind) -> BoxFuture<'_, Result<(), Error>> {
        Machine::force_driver(self, driver).boxed()
    }

    fn ensure_running(&self) -> BoxFuture<'_, Result<(), Error>> {
        Machine::ensure_running(self).boxed()
    }

    fn connect(&self, port: u32) -> BoxFuture<'_, Result<UnixStream, Error>> {
        Machine::connect(self, port).boxed()
    }

    fn is_running(&self) -> BoxFuture<'_, bool> {
        async {
            if *self.stages().borrow() == Stage::Running {
                return true;
            }
            // An earlier engine may have booted it.
            let status = Machine::status(self).await;
            status.is_ok_and(|status| status.state == dctl_machine::RunState::Running)
        }
        .boxed()
    }

    fn wait_until_running(&self) -> BoxFuture<'_, ()> {
        async {
            let mut stages = self.stages();
            if Guest::is_running(self).await {
                return;
            }
            let running = stages.wait_for(|stage| *stage == Stage::Running);
            if running.await.map(drop).is_err() {
                // Nobody can start it any more.
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    }

    fn status(&self) -> BoxFuture<'_, Result<Value, Error>> {
        async {
            let status = Machine::status(self).await?;
            serde_json::to_value(status).map_err(|error| Error::Monitor(error.to_string()))
        }
        .boxed()
    }

    fn user_namespace(&self) -> BoxFuture<'_, Result<UserNamespace, Error>> {
        async {
            let settings = Machine::settings(self).await?;
            Ok(settings.userns.unwrap_or_default())
        }
        .boxed()
    }

    fn console_log(&self) -> BoxFuture<'_, Result<Vec<u8>, Error>> {
        Machine::console_log(self).boxed()
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), Error>> {
        Machine::stop(self, STOP_TIMEOUT).boxed()
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<Changed, Error>> {
        Machine::change(self, change).boxed()
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), Error>> {
        Machine::reset(self).boxed()
    }

    fn remove(&self) -> BoxFuture<'_, Result<(), Error>> {
        Machine::remove(self).boxed()
    }

    fn exports(&self) -> BoxFuture<'_, Result<Vec<Export>, Error>> {
        Machine::exports(self).boxed()
    }

    fn add_export(&self, export: Export) -> BoxFuture<'_, Result<(), Error>> {
        Machine::add_export(self, export).boxed()
    }

    fn keep_exports(&self, names: BTreeSet<String>) -> BoxFuture<'_, Result<(), Error>> {
        Machine::keep_exports(self, move |export| names.contains(&export.name)).boxed()
    }

    fn retry_exports(&self) -> BoxFuture<'_, Result<(), Error>> {
        Machine::retry_exports(self).boxed()
    }

    fn engine_access(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Machine::engine_access(self).boxed()
    }

    fn set_engine_access(&self, access: bool) -> BoxFuture<'_, Result<(), Error>> {
        Machine::set_engine_access(self, access).boxed()
    }
}

//! The agent as a whole: what the method handlers share.

use std::{
    fs,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use guest_protocol::{AgentError, ErrorKind};

use crate::{
    clock,
    containers::{Containers, Paths, Stores},
    database,
    emulation::Emulators,
    error::{Context, Result},
    exec::Execs,
    images::ImageStore,
    log::Log,
    networks::Networks,
    reaper::Reaper,
    runtime::Runtime,
    shares::Shares,
    shutdown::PowerButton,
    volumes::Volumes,
};

/// Stages of start-up, for `MachineInfo`.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    reached: Mutex<Vec<(String, u64)>>,
}

impl Stages {
    /// Notes that `stage` is reached now.
    pub(crate) fn reach(&self, stage: &str) {
        self.lock().push((stage.to_owned(), clock::uptime_ms()));
    }

    /// Those so far, with milliseconds since the kernel started.
    pub(crate) fn reached(&self) -> Vec<(String, u64)> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(String, u64)>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What needs the data disk.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    pub(crate) images: ImageStore,
    pub(crate) containers: Containers,
    pub(crate) emulators: Arc<Emulators>,
}

/// The agent. One for the process.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) log: Log,
    pub(crate) stages: Stages,
    pub(crate) execs: Execs,
    pub(crate) paths: Paths,
    pub(crate) power_button: PowerButton,
    pub(crate) shares: Shares,
    runtime: Arc<Runtime>,
    reaper: Reaper,
    storage: OnceLock<Result<Storage>>,
}

impl Agent {
    /// An agent without its data disk yet.
    ///
    /// # Errors
    /// When the runtime process cannot be started.
    pub(crate) fn new(log: Log, stages: Stages, paths: Paths, shares: Shares) -> Result<Self> {
        let reaper = Reaper::start()?;
        let runtime = Arc::new(Runtime::start()?);
        Ok(Self {
            log,
            stages,
            execs: Execs::new(Arc::clone(&runtime), reaper.clone()),
            paths,
            power_button: PowerButton::default(),
            shares,
            runtime,
            reaper,
            storage: OnceLock::new(),
        })
    }

    /// Opens what is on the data disk, or keeps why there is none: calls that need
    /// it fail with that.
    pub(crate) fn open_storage(&self, disk: Result<()>) {
        let storage = disk.and_then(|()| self.open_on_disk());
        if let Err(error) = &storage {
            tracing::error!("{error}");
        }
        // Called once.
        let _ = self.storage.set(storage);
    }

    fn open_on_disk(&self) -> Result<Storage> {
        let data = &self.paths.data;
        fs::create_dir_all(data).context("cannot use the data disk")?;
        let database = Arc::new(database::open(&data.join("state.redb"))?);
        self.stages.reach("database");
        // Containers may need them from the start.
        let emulators = Arc::new(Emulators::open(data));
        let images = ImageStore::open(data, Arc::clone(&database))?;
        let volumes = Volumes::open(data, Arc::clone(&database))?;
        self.stages.reach("stores");
        let networks = Networks::open(Arc::clone(&database))?;
        self.stages.reach("networks");
        let containers = Containers::open(
            self.paths.clone(),
            database,
            Stores {
                images: images.clone(),
                volumes,
                networks,
                shares: self.shares.clone(),
            },
            Arc::clone(&self.runtime),
            self.reaper.clone(),
            self.execs.clone(),
        )?;
        Ok(Storage {
            images,
            containers,
            emulators,
        })
    }

    /// What needs the data disk.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] with the reason why it is not usable.
    pub(crate) fn storage(&self) -> Result<&Storage> {
        match self.storage.get() {
            Some(Ok(storage)) => Ok(storage),
            Some(Err(error)) => Err(AgentError::new(
                ErrorKind::Unavailable,
                format!("the machine's data disk is not usable: {}", error.message),
            )),
            None => Err(AgentError::new(
                ErrorKind::Unavailable,
                "the machine is starting",
            )),
        }
    }
}

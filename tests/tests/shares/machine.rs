//! The two machines, and what tests need of them.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tests::{Finished, Installation, Running, images, programs, registry::Registry};

/// How requests for files reach this host; the name of the machine that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Transport {
    /// A device of the machine.
    Virtiofs,
    /// A stream over vsock.
    Vsock,
}

/// What containers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Image {
    /// A shell and its applets.
    Busybox,
    /// [`programs::POSTGRES`].
    Postgres,
    /// [`programs::DEVELOPMENT`].
    Development,
}

impl Image {
    /// What it is called in the registry, and what writes its layout.
    fn made(self) -> (&'static str, fn(&Path)) {
        match self {
            Self::Busybox => ("busybox:latest", images::write_busybox),
            Self::Postgres | Self::Development => ("skeleton:latest", images::write_skeleton),
        }
    }

    /// Options that mount what is not in the image itself.
    fn options(self) -> Vec<String> {
        let folder = match self {
            Self::Busybox => return Vec::new(),
            Self::Postgres => programs::POSTGRES.folder(),
            Self::Development => programs::DEVELOPMENT.folder(),
        };
        vec!["-v".to_owned(), format!("{}:/usr:ro", folder.display())]
    }
}

/// Where the machines are.
struct Home {
    installation: Installation,
    registry: Registry,
    /// Names of images that the registry has.
    pushed: Mutex<HashSet<&'static str>>,
}

fn home() -> &'static Home {
    static HOME: OnceLock<Home> = OnceLock::new();
    HOME.get_or_init(|| Home {
        installation: Installation::new(),
        registry: Registry::start(),
        pushed: Mutex::default(),
    })
}

/// A machine. It boots when something is first asked of it.
pub(crate) struct Machine {
    name: &'static str,
    pulled: Mutex<HashMap<&'static str, String>>,
}

impl Machine {
    /// The one with this transport.
    pub(crate) fn with(transport: Transport) -> &'static Self {
        static MACHINES: [OnceLock<Machine>; 2] = [OnceLock::new(), OnceLock::new()];
        let (machine, name) = match transport {
            Transport::Virtiofs => (&MACHINES[0], "virtiofs"),
            Transport::Vsock => (&MACHINES[1], "vsock"),
        };
        machine.get_or_init(|| {
            let create = ["machine", "create", name, "--share-transport", name];
            let size = ["--cpus", "2", "--memory", "2g", "--disk", "10g"];
            home()
                .installation
                .dctl(&[&create[..], &size].concat())
                .success();
            Self {
                name,
                pulled: Mutex::default(),
            }
        })
    }

    fn arguments<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--machine", self.name], arguments].concat()
    }

    /// Runs `dctl` on it.
    #[track_caller]
    pub(crate) fn dctl(&self, arguments: &[&str]) -> Finished {
        home().installation.dctl(&self.arguments(arguments))
    }

    /// Starts `dctl` on it.
    #[track_caller]
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        home().installation.start(&self.arguments(arguments))
    }

    /// The name of an image that it has.
    pub(crate) fn image(&self, image: Image) -> String {
        let (repository, write) = image.made();
        // A test that failed has broken nothing but itself.
        let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        let name = pulled.entry(repository).or_insert_with(|| {
            let name = pushed(repository, write);
            self.dctl(&["pull", "--quiet", &name]).success();
            name
        });
        name.clone()
    }

    /// What a script does in a new container with these options.
    #[track_caller]
    pub(crate) fn run(&self, image: Image, options: &[&str], script: &str) -> Finished {
        let mounts = image.options();
        let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
        let image = self.image(image);
        let tail = [image.as_str(), "sh", "-c", script];
        self.dctl(&[&["run", "--rm"], &mounts[..], options, &tail].concat())
    }

    /// A container of this image that runs `command`.
    #[track_caller]
    pub(crate) fn container(
        &'static self,
        image: Image,
        options: &[&str],
        command: &[&str],
    ) -> Container {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let container = Container {
            machine: self,
            name: format!("test-{number}"),
        };
        let mounts = image.options();
        let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
        let image = self.image(image);
        let head = ["run", "-d", "--name", &container.name];
        self.dctl(&[&head[..], &mounts, options, &[&image], command].concat())
            .success();
        container
    }
}

/// The name of an image that the registry has.
fn pushed(repository: &'static str, write: fn(&Path)) -> String {
    let home = home();
    let mut pushed = home.pushed.lock().unwrap_or_else(PoisonError::into_inner);
    if pushed.insert(repository) {
        let work = tempfile::tempdir().unwrap();
        write(work.path());
        home.registry.push(work.path(), repository);
    }
    home.registry.name(repository)
}

/// Where tests put what later ones use. It goes with the machines.
pub(crate) fn kept(name: &str) -> PathBuf {
    home().installation.home().join(name)
}

/// A container; it goes when this does.
pub(crate) struct Container {
    machine: &'static Machine,
    name: String,
}

impl Container {
    /// What `script` does in it.
    #[track_caller]
    pub(crate) fn exec(&self, script: &str) -> Finished {
        self.machine.dctl(&["exec", &self.name, "sh", "-c", script])
    }

    /// Starts `script` in it.
    #[track_caller]
    pub(crate) fn start(&self, script: &str) -> Running {
        self.machine
            .start(&["exec", &self.name, "sh", "-c", script])
    }

    /// A command of `dctl` about it, which is named last.
    #[track_caller]
    pub(crate) fn dctl(&self, command: &[&str]) -> Finished {
        self.machine.dctl(&[command, &[&self.name]].concat())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may never have come to be.
        let _ = self.dctl(&["rm", "--force"]);
    }
}

/// A folder of this host.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The folder mounted at `target`, as `--volume` has it.
    pub(crate) fn mounted(&self, target: &str) -> String {
        format!("{}:{target}", self.path().display())
    }

    /// Writes a file and the directories above it.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }
}

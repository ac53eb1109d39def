//! Where everything on the host lies.
//!
//! `$DCTL_HOME` overrides all (`data`, `run` and `cache` below it); otherwise the
//! XDG Base Directory Specification's variables decide. Called by everyone on the
//! host; knows names and permissions, nothing of what is in the files.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use crate::{Error, Result, lock::Lock};

/// The longest path in a `sockaddr_un`, which ends with a zero byte (unix(7)).
pub const MAX_SOCKET_PATH: usize = 107;

/// The machine that commands use when none is named.
pub const DEFAULT_MACHINE: &str = "default";

/// dctl's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    data: PathBuf,
    cache: PathBuf,
    runtime: PathBuf,
}

impl Paths {
    /// From the environment. Creates nothing; see [`Paths::create`].
    ///
    /// # Errors
    /// [`Error::NoHome`] when no variable gives a place.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| env::var_os(name), rustix::process::getuid().as_raw())
    }

    /// All below one directory, as `DCTL_HOME` does.
    pub fn under(home: &Path) -> Self {
        Self {
            data: home.join("data"),
            cache: home.join("cache"),
            runtime: home.join("run"),
        }
    }

    fn from_variables(get: impl Fn(&str) -> Option<OsString>, user: u32) -> Result<Self> {
        // The XDG specification: a relative path is invalid and is ignored.
        let absolute = |name: &str| get(name).map(PathBuf::from).filter(|p| p.is_absolute());
        if let Some(home) = absolute("DCTL_HOME") {
            return Ok(Self::under(&home));
        }
        if get("DCTL_HOME").is_some_and(|value| !value.is_empty()) {
            return Err(Error::Settings {
                origin: "DCTL_HOME".into(),
                problem: "it must be an absolute path".into(),
            });
        }
        let in_home = |suffix: &str| absolute("HOME").map(|home| home.join(suffix));
        Ok(Self {
            data: absolute("XDG_DATA_HOME")
                .or_else(|| in_home(".local/share"))
                .ok_or(Error::NoHome)?
                .join("dctl"),
            cache: absolute("XDG_CACHE_HOME")
                .or_else(|| in_home(".cache"))
                .ok_or(Error::NoHome)?
                .join("dctl"),
            runtime: absolute("XDG_RUNTIME_DIR").map_or_else(
                || PathBuf::from(format!("/tmp/dctl-{user}")),
                |dir| dir.join("dctl"),
            ),
        })
    }

    /// Makes the directories, each mode 0700, and checks that the runtime
    /// directory is the user's and nobody else's.
    ///
    /// # Errors
    /// [`Error::UnsafeDirectory`], or [`Error::Io`].
    pub fn create(&self) -> Result<()> {
        for directory in [&self.data, &self.cache, &self.runtime] {
            create_private(directory)?;
        }
        // Sockets lie there; a fallback in /tmp could have been made by anyone.
        check_private(&self.runtime)
    }

    /// Machines' disks and settings, and the engine's state.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What can be made again: unpacked assets, the probe's verdict.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Sockets, locks and logs of what runs.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The files of a machine's engine. The default machine's are where tools that
    /// know of no machines look.
    ///
    /// # Errors
    /// [`Error::InvalidName`].
    pub fn engine(&self, machine: &str) -> Result<EngineFiles> {
        check_name(machine)?;
        Ok(EngineFiles {
            shared: machine == DEFAULT_MACHINE,
            directory: if machine == DEFAULT_MACHINE {
                self.runtime.clone()
            } else {
                self.runtime.join("engines").join(machine)
            },
        })
    }

    /// The directory that machines are in.
    pub(crate) fn machines_directory(&self) -> PathBuf {
        self.data.join("machines")
    }

    /// Names of the machines that have a directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn machines(&self) -> Result<Vec<String>> {
        let directory = self.machines_directory();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", &directory, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| Error::io("list", &directory, error))?;
            if let Ok(name) = entry.file_name().into_string()
                && check_name(&name).is_ok()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The files of one machine.
    ///
    /// # Errors
    /// [`Error::InvalidName`], and [`Error::SocketPathTooLong`] when its sockets
    /// would have no valid address.
    pub fn machine(&self, name: &str) -> Result<MachineFiles> {
        check_name(name)?;
        let files = MachineFiles {
            directory: self.machines_directory().join(name),
            runtime: self.runtime.join("machines").join(name),
        };
        for socket in [
            self.engine(name)?.socket(),
            files.control_socket(),
            files.ready_socket(),
        ] {
            check_socket_path(&socket)?;
        }
        Ok(files)
    }
}

/// The files of the engine that serves one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFiles {
    directory: PathBuf,
    /// Other things are in the directory, too.
    shared: bool,
}

impl EngineFiles {
    /// Makes the directory, mode 0700.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(&self) -> Result<()> {
        create_private(&self.directory)
    }

    /// The Docker Engine API's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("docker.sock")
    }

    /// Locked by the engine for as long as it runs.
    pub fn lock(&self) -> PathBuf {
        self.directory.join("engine.lock")
    }

    /// Locked by whoever starts the engine.
    pub fn start_lock(&self) -> PathBuf {
        self.directory.join("engine.start.lock")
    }

    /// The engine's log.
    pub fn log(&self) -> PathBuf {
        self.directory.join("engine.log")
    }

    /// Deletes the directory of a machine that is gone, once its engine has ended:
    /// log, locks and socket. Blocks until then. The default machine's stays: others
    /// are in it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self) -> Result<()> {
        if self.shared || !self.directory.exists() {
            return Ok(());
        }
        let _starting = Lock::acquire(&self.start_lock())?;
        let _running = Lock::acquire(&self.lock())?;
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &self.directory, error))
            }
            _ => Ok(()),
        }
    }
}

/// The files of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFiles {
    directory: PathBuf,
    runtime: PathBuf,
}

impl MachineFiles {
    /// What is the machine: its disk and its settings.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What exists for as long as it runs, and its logs.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// `machine.toml`.
    pub fn settings(&self) -> PathBuf {
        self.directory.join("machine.toml")
    }

    /// The data disk, raw and sparse.
    pub fn disk(&self) -> PathBuf {
        self.directory.join("data.raw")
    }

    /// The host's end of vsock.
    pub fn vsock_socket(&self) -> PathBuf {
        self.runtime.join("vsock.sock")
    }

    /// Where the agent's ready connection arrives.
    pub fn ready_socket(&self) -> PathBuf {
        self.host_port_socket(guest_protocol::READY_PORT)
    }

    /// Where the guest's connections to one of the host's vsock ports arrive.
    pub(crate) fn host_port_socket(&self, port: u32) -> PathBuf {
        dctl_vmm::config::host_port_socket(&self.vsock_socket(), port)
    }

    /// What of the host's files the machine sees.
    pub fn exports(&self) -> PathBuf {
        self.directory.join("exports.json")
    }

    /// There while the machine may make requests to its engine.
    pub fn engine_access(&self) -> PathBuf {
        self.directory.join("engine-access")
    }

    /// The monitor's control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    /// Locked by the monitor for as long as it runs. Beside the disk, which it
    /// protects: another login session may have another runtime directory.
    pub fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    /// Locked by whoever starts or removes the machine.
    pub fn start_lock(&self) -> PathBuf {
        self.runtime.join("start.lock")
    }

    /// The guest's console.
    pub fn console_log(&self) -> PathBuf {
        self.runtime.join("console.log")
    }

    /// The monitor's output.
    pub fn monitor_log(&self) -> PathBuf {
        self.runtime.join("monitor.log")
    }

    /// What the monitor was told to run.
    pub fn config(&self) -> PathBuf {
        self.runtime.join("config.json")
    }

    /// Which driver runs it, and why that one.
    pub fn driver(&self) -> PathBuf {
        self.runtime.join("driver.json")
    }
}

/// Makes a directory and its parents, those that are missing with mode 0700.
pub(crate) fn create_private(directory: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| Error::io("create", directory, error))
}

fn check_private(directory: &Path) -> Result<()> {
    // Not followed: a link in /tmp is somebody else's idea of where sockets go.
    let metadata =
        fs::symlink_metadata(directory).map_err(|error| Error::io("look at", directory, error))?;
    let unsafe_directory = |problem: String| Error::UnsafeDirectory {
        path: directory.to_owned(),
        problem,
    };
    if !metadata.is_dir() {
        return Err(unsafe_directory("is not a directory".into()));
    }
    if metadata.uid() != rustix::process::getuid().as_raw() {
        return Err(unsafe_directory(format!(
            "belongs to user {}",
            metadata.uid()
        )));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(unsafe_directory(format!(
            "is open to others (mode {:o})",
            metadata.mode() & 0o7777
        )));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let valid = (1..=32).contains(&name.len())
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if valid {
        Ok(())
    } else {
        Err(Error::InvalidName(name.to_owned()))
    }
}

fn check_socket_path(path: &Path) -> Result<()> {
    let length = path.as_os_str().as_bytes().len();
    if length <= MAX_SOCKET_PATH {
        return Ok(());
    }
    Err(Error::SocketPathTooLong {
        path: path.to_owned(),
        length,
        limit: MAX_SOCKET_PATH,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn paths(variables: &[(&str, &str)]) -> Result<Paths> {
        Paths::from_variables(
            |name| {
                variables
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| OsString::from(value))
            },
            1000,
        )
    }

    #[test]
    fn dctl_home_overrides_all() {
        let paths = paths(&[("DCTL_HOME", "/d"), ("HOME", "/h"), ("XDG_DATA_HOME", "/x")]).unwrap();
        assert_eq!(paths, Paths::under(Path::new("/d")));
        let engine = |machine| paths.engine(machine).unwrap().socket();
        assert_eq!(engine(DEFAULT_MACHINE), Path::new("/d/run/docker.sock"));
        assert_eq!(engine("a"), Path::new("/d/run/engines/a/docker.sock"));
    }

    #[test]
    fn without_it_xdg_decides_and_relative_values_do_not_count() {
        let paths = paths(&[
            ("HOME", "/h"),
            ("XDG_CACHE_HOME", "relative"),
            ("XDG_DATA_HOME", "/x"),
        ])
        .unwrap();
        assert_eq!(paths.data(), Path::new("/x/dctl"));
        assert_eq!(paths.cache(), Path::new("/h/.cache/dctl"));
        assert_eq!(paths.runtime(), Path::new("/tmp/dctl-1000"));
    }

    #[test]
    fn no_home_and_a_relative_dctl_home_are_errors() {
        assert!(matches!(paths(&[]), Err(Error::NoHome)));
        let error = paths(&[("DCTL_HOME", "here"), ("HOME", "/h")]).unwrap_err();
        assert!(error.to_string().contains("absolute"), "{error}");
    }

    #[test]
    fn what_is_left_of_an_engine_goes_but_not_what_others_use() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::under(home.path());
        for (machine, stays) in [("a", false), (DEFAULT_MACHINE, true)] {
            paths.create().unwrap();
            let files = paths.engine(machine).unwrap();
            files.create().unwrap();
            fs::write(files.log(), "log").unwrap();
            files.remove().unwrap();
            assert_eq!(files.log().exists(), stays, "{machine}");
            files.remove().unwrap();
        }
    }

    #[test]
    fn directories_are_private_and_a_shared_runtime_directory_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::under(home.path());
        paths.create().unwrap();
        let mode = fs::metadata(paths.runtime()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);

        fs::set_permissions(paths.runtime(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = paths.create().unwrap_err();
        assert!(matches!(error, Error::UnsafeDirectory { .. }), "{error}");

        fs::remove_dir(paths.runtime()).unwrap();
        std::os::unix::fs::symlink("/", paths.runtime()).unwrap();
        let error = paths.create().unwrap_err();
        assert!(matches!(error, Error::UnsafeDirectory { .. }), "{error}");
    }

    #[test]
    fn socket_paths_that_do_not_fit_are_refused_with_advice() {
        let paths = Paths::under(Path::new(&format!("/{}", "d".repeat(90))));
        let error = paths.machine(DEFAULT_MACHINE).unwrap_err();
        assert!(matches!(error, Error::SocketPathTooLong { .. }), "{error}");
        assert!(error.to_string().contains("DCTL_HOME"), "{error}");
    }

    #[test]
    fn names_cannot_leave_their_directory() {
        let paths = Paths::under(Path::new("/d"));
        for name in ["", "..", "a/b", "-a", "A", "a.b", &"a".repeat(33)] {
            let result = paths.machine(name);
            assert!(matches!(result, Err(Error::InvalidName(_))), "{name}");
        }
        assert!(paths.machine("dev-2").is_ok());
    }
}

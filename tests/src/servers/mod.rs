//! Images of real servers, PostgreSQL and Redis, of Debian's packages: the programs,
//! the libraries that they load, and busybox for a shell. They are kept in the cache
//! of the project's tools.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    command::run,
    images::{
        Layer, busybox_layer,
        debian::{self, cache},
        write_layout,
    },
};

/// Changes when the images are made in another way.
const RECIPE: &str = "1";
/// What debootstrap fetches, with all that it needs.
const PACKAGES: &str = "--include=postgresql-15,redis-server,redis-tools";
/// Packages without which the programs run, and that are large.
const LEFT_OUT: [&str; 4] = ["libllvm14_", "libz3-4_", "perl", "libperl5"];
const POSTGRESQL: &str = "usr/lib/postgresql/15";
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
const LOADER: &str = "ld-linux-x86-64.so.2";
const WITHIN: Duration = Duration::from_mins(30);

/// The image of PostgreSQL 15: user, password and database are what the variables
/// `POSTGRES_USER`, `POSTGRES_PASSWORD` and `POSTGRES_DB` say.
///
/// # Panics
/// If it cannot be made.
pub fn postgres() -> PathBuf {
    layouts().join("postgres")
}

/// The image of Redis 7.
///
/// # Panics
/// If it cannot be made.
pub fn redis() -> PathBuf {
    layouts().join("redis")
}

/// The directory of all layouts.
fn layouts() -> PathBuf {
    let cache = cache("server-images");
    let layouts = cache.join(format!("{}-{RECIPE}", debian::RELEASE));
    if layouts.exists() {
        return layouts;
    }
    fs::create_dir_all(&cache).expect("the cache can be written");
    let work = tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(&cache)
        .expect("the cache can be written");
    let files = work.path().join("files");
    unpack_packages(&work.path().join("debootstrap"), &files);
    let made = work.path().join("layouts");
    write_postgres(&files, &made.join("postgres"));
    write_redis(&files, &made.join("redis"));
    // Another test process may have been faster; both made the same.
    if fs::rename(&made, &layouts).is_err() {
        assert!(layouts.exists(), "the images cannot be put into the cache");
    }
    layouts
}

/// Unpacks all packages to `files`; debootstrap works in `work`.
fn unpack_packages(work: &Path, files: &Path) {
    run(
        Command::new("debootstrap")
            .args(["--variant=minbase", "--download-only", PACKAGES])
            .arg(debian::RELEASE)
            .arg(work)
            .arg(debian::archive()),
        b"",
        WITHIN,
    )
    .success();
    fs::create_dir(files).expect("the cache can be written");
    let archives = fs::read_dir(work.join("var/cache/apt/archives"));
    for entry in archives.expect("debootstrap's packages").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_package = entry.path().extension().is_some_and(|it| it == "deb");
        if is_package && !LEFT_OUT.iter().any(|left| name.starts_with(left)) {
            let mut unpack = Command::new("dpkg");
            unpack.arg("-x").arg(entry.path()).arg(files);
            run(&mut unpack, b"", WITHIN).success();
        }
    }
}

fn write_postgres(files: &Path, layout: &Path) {
    let mut image = Image::new(files, "postgres");
    for program in ["postgres", "initdb", "psql", "pg_isready", "pg_ctl"] {
        image.program(&format!("{POSTGRESQL}/bin/{program}"));
    }
    // PL/pgSQL is in every database, the word stems are needed to make one.
    for module in ["plpgsql.so", "dict_snowball.so"] {
        image.program(&format!("{POSTGRESQL}/lib/{module}"));
    }
    image.tree("usr/share/postgresql/15");
    image.tree("usr/share/zoneinfo/Etc");
    image.tree("usr/lib/locale/C.utf8");
    image.directory("var/run/postgresql");
    image
        .layer
        .file("start", 0o755, include_bytes!("postgres.sh"));
    image.write(
        layout,
        &json!({
            "Entrypoint": ["/start"],
            "Cmd": ["postgres"],
            "Env": [
                format!("PATH=/{POSTGRESQL}/bin:/usr/bin:/bin"),
                "PGDATA=/var/lib/postgresql/data",
                "LANG=C.UTF-8",
            ],
            "ExposedPorts": {"5432/tcp": {}},
            "StopSignal": "SIGINT",
            "Volumes": {"/var/lib/postgresql/data": {}},
        }),
    );
}

fn write_redis(files: &Path, layout: &Path) {
    let mut image = Image::new(files, "redis");
    for program in ["redis-server", "redis-cli"] {
        image.program(&format!("usr/bin/{program}"));
    }
    image.directory("data");
    image.write(
        layout,
        &json!({
            "Cmd": ["redis-server", "--protected-mode", "no"],
            "Env": ["PATH=/usr/bin:/bin"],
            "ExposedPorts": {"6379/tcp": {}},
            "Volumes": {"/data": {}},
            "WorkingDir": "/data",
        }),
    );
}

/// An image being made: a layer above busybox's.
struct Image<'a> {
    files: &'a Path,
    layer: Layer,
    /// Paths of libraries that are in it.
    libraries: BTreeSet<String>,
}

impl<'a> Image<'a> {
    /// One with a user of the given name.
    fn new(files: &'a Path, user: &str) -> Self {
        let mut layer = Layer::new();
        for (path, mode) in [("lib64", 0o755), ("run", 0o755), ("var", 0o755)] {
            layer.directory(path, mode);
        }
        let passwd =
            format!("root:x:0:0:root:/root:/bin/sh\n{user}:x:999:999:{user}:/tmp:/bin/sh\n");
        layer.file("etc/passwd", 0o644, passwd.as_bytes());
        let group = format!("root:x:0:\n{user}:x:999:\n");
        layer.file("etc/group", 0o644, group.as_bytes());
        let loader = files.join(LIBRARIES[0]).join(LOADER);
        let loader = fs::read(loader).expect("the package libc6");
        layer.file(&format!("lib64/{LOADER}"), 0o755, &loader);
        Self {
            files,
            layer,
            libraries: BTreeSet::new(),
        }
    }

    /// Adds a program and the libraries that it loads.
    fn program(&mut self, path: &str) {
        let at = |path: &str| self.files.join(path);
        let program = fs::read(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let search = LIBRARIES.map(|path| at(path).display().to_string());
        let mut list = Command::new(at(LIBRARIES[0]).join(LOADER));
        list.args(["--library-path", &search.join(":"), "--list"]);
        let list = run(list.arg(at(path)), b"", WITHIN).success().text();
        self.layer.file(path, 0o755, &program);
        for library in list.lines().filter_map(|line| line.split("=> ").nth(1)) {
            let path = library.split(' ').next().unwrap_or_default();
            // The loader itself is there.
            let Ok(name) = Path::new(path).strip_prefix(self.files) else {
                continue;
            };
            let name = name.to_string_lossy().into_owned();
            let content = fs::read(path).expect("a library that was found");
            if self.libraries.insert(name.clone()) {
                self.layer.file(&name, 0o644, &content);
            }
        }
    }

    /// Adds a directory with all its files.
    fn tree(&mut self, path: &str) {
        let entries = fs::read_dir(self.files.join(path));
        let entries = entries.unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        self.layer.directory(path, 0o755);
        for entry in entries {
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            // Through links: what they lead to may not be in the image.
            match fs::metadata(entry.path()) {
                Ok(found) if found.is_dir() => self.tree(&path),
                Ok(found) if found.is_file() => {
                    let content = fs::read(entry.path()).expect("a file that was unpacked");
                    self.layer.file(&path, 0o644, &content);
                }
                // A link into what was not unpacked.
                _ => {}
            }
        }
    }

    /// Adds a directory that every user may write.
    fn directory(&mut self, path: &str) {
        self.layer.directory(path, 0o1777);
    }

    fn write(self, layout: &Path, configuration: &Value) {
        let layers = [busybox_layer(), self.layer.finish()];
        write_layout(layout, &layers, configuration);
    }
}

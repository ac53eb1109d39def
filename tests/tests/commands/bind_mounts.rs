//! Files of the host in containers: `-v` and `--mount type=bind`.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use tests::{Finished, Installation, command::LONG, images, installation::wait_until};

use crate::shared::{Name, dctl, shared};

/// A folder of the host, and its path.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it, as an argument.
    fn at(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }

    /// The folder, mounted at `/x` with these options.
    fn mounted(&self, options: &str) -> String {
        format!("{}:/x{options}", self.path().display())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }
}

/// What a script does in a busybox container with these options.
#[track_caller]
fn run(options: &[&str], script: &str) -> Finished {
    let tail = [shared().busybox.as_str(), "sh", "-c", script];
    dctl(&[&["run", "--rm"], options, &tail].concat())
}

/// Starts a container that waits, with these options.
#[track_caller]
fn start(name: &Name, options: &[&str]) {
    let first = ["run", "-d", "--name", name.as_str()];
    let tail = [shared().busybox.as_str(), "sleep", "1000"];
    dctl(&[&first[..], options, &tail].concat()).success();
}

#[track_caller]
fn exec(name: &Name, script: &str) -> Finished {
    dctl(&["exec", name.as_str(), "sh", "-c", script])
}

#[test]
fn files_go_both_ways_with_their_modes_and_belong_to_the_user() {
    let folder = Folder::new();
    fs::write(folder.path().join("from-host"), "host").unwrap();
    fs::set_permissions(
        folder.path().join("from-host"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let script = "cat /x/from-host; stat -c ' %u:%g %a' /x/from-host; umask 027
        echo container > /x/from-container; mkdir -p /x/a/b; ln -s ../from-host /x/a/link
        cat /x/a/link; chmod 4755 /x/from-container; echo; ls /x";
    let said = run(&["-v", &folder.mounted("")], script).success();
    assert_eq!(
        said.text(),
        "host 0:0 640\nhost\na\nfrom-container\nfrom-host"
    );
    assert_eq!(folder.read("from-container"), "container\n");
    assert_eq!(folder.read("a/link"), "host");
    let made = fs::metadata(folder.path().join("a/b")).unwrap();
    assert_eq!(made.permissions().mode() & 0o777, 0o750);
    assert_eq!(made.uid(), fs::metadata(folder.path()).unwrap().uid());
}

#[test]
fn files_are_those_of_the_container_s_user() {
    let folder = Folder::new();
    fs::write(folder.path().join("file"), "text").unwrap();
    let script = "stat -c %u:%g /x/file; echo more >> /x/file; touch /x/new; stat -c %u /x/new";
    let options = ["--user", "1000:1001", "-v", &folder.mounted("")];
    let said = run(&options, script).success();
    assert_eq!(said.text(), "1000:1001\n1000");
    let user = fs::metadata(folder.path()).unwrap().uid();
    for name in ["file", "new"] {
        let owner = fs::metadata(folder.path().join(name)).unwrap().uid();
        assert_eq!(owner, user, "{name}");
    }
    let private = ["--userns", "private", "-v", &folder.mounted("")];
    let said = run(&private, "stat -c %u:%g /x/file; touch /x/other").success();
    assert_eq!(said.text(), "0:0");
}

#[test]
fn read_only_is_read_only() {
    let folder = Folder::new();
    fs::write(folder.path().join("file"), "text").unwrap();
    let mount = format!("type=bind,src={},dst=/x,readonly", folder.path().display());
    for options in [["-v", &folder.mounted(":ro,z")], ["--mount", &mount]] {
        let said = run(&options, "cat /x/file; echo more >> /x/file");
        assert_eq!(said.text(), "text");
        assert!(said.error().contains("Read-only file system"), "{said}");
        run(&options, "rm -f /x/file 2> /dev/null; touch /x/new").fails_with(1, "Read-only");
    }
    assert_eq!(folder.read("file"), "text");
}

#[test]
fn one_file_can_be_mounted() {
    let folder = Folder::new();
    let file = folder.at("config");
    fs::write(&file, "one").unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    let mount = format!("{file}:/etc/app/config");
    let script = "cat /etc/app/config; echo two >> /etc/app/config; ls /etc/app";
    assert_eq!(run(&["-v", &mount], script).success().text(), "oneconfig");
    assert_eq!(folder.read("config"), "onetwo\n");
}

#[test]
fn a_missing_source_is_made_for_volume_and_refused_for_mount() {
    let folder = Folder::new();
    let path = folder.at("made/for/me");
    run(&["-v", &format!("{path}:/x")], "touch /x/file").success();
    assert!(folder.path().join("made/for/me/file").exists());
    let path = folder.at("missing");
    let message =
        format!("invalid mount config for type \"bind\": bind source path does not exist: {path}");
    let mount = format!("type=bind,src={path},dst=/x");
    run(&["--mount", &mount], "true").fails_with(125, &message);
    assert!(!Path::new(&path).exists());
    // A socket is no file.
    let socket = folder.at("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    run(&["-v", &format!("{socket}:/x")], "true").fails_with(125, "is a socket of this host");
}

#[test]
fn relative_paths_begin_where_the_command_is_run() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/file"), "text").unwrap();
    for (volume, file) in [(".:/x", "/x/sub/file"), ("./sub:/x", "/x/file")] {
        let arguments = ["run", "--rm", "-v", volume, &shared().busybox, "cat", file];
        let mut command = shared().installation.command(&arguments);
        command.current_dir(folder.path());
        let said = tests::command::run(&mut command, b"", LONG).success();
        assert_eq!(said.text(), "text");
    }
    // As with Docker, a tilde is the shell's affair.
    run(&["-v", "~/x:/x"], "true").fails_with(125, "invalid characters for a local volume name");
}

#[test]
fn inspect_shows_what_docker_shows() {
    let folder = Folder::new();
    let name = Name::new();
    let path = folder.path().to_str().unwrap();
    let mount = format!("type=bind,src={path},dst=/y,bind-propagation=rslave");
    start(
        &name,
        &["-v", &format!("{path}/.:/x:ro,cached"), "--mount", &mount],
    );
    let template = "{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.Mode}} {{.RW}} \
                    {{.Propagation}};{{end}}{{.HostConfig.Binds}}";
    assert_eq!(
        shared().installation.inspect(name.as_str(), template),
        format!(
            "bind {path} /x ro,cached false rprivate;bind {path} /y  true rslave;\
             [{path}/.:/x:ro,cached]"
        )
    );
}

#[test]
fn what_is_mounted_inside_a_folder_goes_with_it_or_is_refused() {
    let folder = Folder::new();
    let run = |options: &str| {
        let mount = format!("type=bind,src={},dst=/x,{options}", folder.path().display());
        run(&["--mount", &mount], "touch /x/new")
    };
    run("bind-recursive=enabled").success();
    run("ro,bind-recursive=readonly,bind-propagation=rprivate").fails_with(1, "Read-only");
    run("bind-recursive=disabled").fails_with(125, "bind-recursive=disabled is not supported");
    run("bind-nonrecursive").fails_with(125, "bind-recursive=disabled is not supported");
    run("ro,bind-recursive=writable").fails_with(125, "bind-recursive=writable is not supported");
    run("bind-recursive=readonly").fails_with(125, "requires 'readonly' to be specified");
}

/// What one container mounts in a shared folder, others see as they asked for.
#[test]
fn mounts_travel_between_containers_as_asked_for() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("sub")).unwrap();
    let names = ["", ":rslave", ":rshared", ":ro,rshared"].map(|options| {
        let name = Name::new();
        start(&name, &["--privileged", "-v", &folder.mounted(options)]);
        name
    });
    let [private, slave, shared, read_only] = &names;
    let sees = |name: &Name| exec(name, "cat /x/sub/file 2> /dev/null").text();
    exec(
        shared,
        "mount -t tmpfs none /x/sub; echo mounted > /x/sub/file",
    )
    .success();
    assert_eq!(sees(shared), "mounted");
    assert_eq!(sees(slave), "mounted");
    assert_eq!(sees(private), "");
    exec(shared, "umount /x/sub").success();
    assert_eq!(sees(slave), "");
    // Only what is shared sends.
    for name in [private, slave] {
        exec(name, "mount -t tmpfs none /x/sub && echo own > /x/sub/file").success();
        assert_eq!(sees(name), "own");
    }
    assert_eq!(sees(shared), "");
    exec(read_only, "touch /x/new").fails_with(1, "Read-only");
    assert!(!folder.path().join("sub/file").exists());
}

#[test]
fn what_the_host_changes_is_seen_at_once() {
    let folder = Folder::new();
    let name = Name::new();
    fs::write(folder.path().join("file"), "0").unwrap();
    start(&name, &["-v", &folder.mounted("")]);
    for round in 1..5 {
        let text = "x".repeat(round * 100);
        fs::write(folder.path().join("file"), &text).unwrap();
        fs::write(folder.path().join(format!("new{round}")), "").unwrap();
        let said = exec(&name, &format!("cat /x/file; ls /x/new{round}")).success();
        assert_eq!(said.text(), format!("{text}/x/new{round}"));
    }
    // A file that an editor replaces.
    fs::write(folder.path().join("other"), "replaced").unwrap();
    fs::rename(folder.path().join("other"), folder.path().join("file")).unwrap();
    assert_eq!(exec(&name, "cat /x/file").success().text(), "replaced");
}

/// Tells what inotify says of `/x/src`: the mask in hexadecimal, and the name.
const WATCHER: &str = r#"
    $| = 1; $path = "/x/src";
    $fd = syscall(294, 0); syscall(254, $fd, $path, 0xfff) >= 0 or die "no watch: $!";
    open($events, "<&=", $fd); print "ready\n";
    while (sysread($events, $buffer, 4096)) {
        while (length $buffer) {
            ($watch, $mask, $cookie, $length) = unpack("iIII", $buffer);
            printf "%x %s;\n", $mask, unpack("Z*", substr($buffer, 16, $length));
            $buffer = substr($buffer, 16 + $length);
        }
    }"#;

#[test]
fn watchers_in_containers_hear_of_changes_on_the_host() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/main"), "0").unwrap();
    let mount = folder.mounted("");
    let run = [
        "run",
        "--rm",
        "-v",
        &mount,
        &shared().debian,
        "perl",
        "-e",
        WATCHER,
    ];
    let mut watcher = shared().installation.start(&run);
    watcher.wait_for_output("ready", LONG);
    let mut file = fs::File::create(folder.path().join("src/main")).unwrap();
    file.write_all(b"changed").unwrap();
    drop(file);
    let changed = Instant::now();
    // IN_MODIFY. Software CPUs on busy machines are slow.
    watcher.wait_for_output("2 main;", LONG);
    let took = changed.elapsed();
    eprintln!("told after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    // IN_CREATE, IN_DELETE, IN_MOVED_TO, IN_CREATE of a directory.
    fs::write(folder.path().join("src/new"), "").unwrap();
    watcher.wait_for_output("100 new;", LONG);
    fs::rename(
        folder.path().join("src/new"),
        folder.path().join("src/newer"),
    )
    .unwrap();
    watcher.wait_for_output("80 newer;", LONG);
    fs::remove_file(folder.path().join("src/newer")).unwrap();
    watcher.wait_for_output("200 newer;", LONG);
    fs::create_dir(folder.path().join("src/folder")).unwrap();
    watcher.wait_for_output("40000100 folder;", LONG);
    // What was told in the container did not happen on the host.
    assert_eq!(folder.read("src/main"), "changed");
    let mut names: Vec<_> = fs::read_dir(folder.path().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["folder", "main"]);
}

#[test]
fn a_share_that_vanishes_gives_errors_and_comes_back() {
    let folder = Folder::new();
    let path = folder.at("share");
    fs::create_dir(&path).unwrap();
    fs::write(format!("{path}/file"), "text").unwrap();
    let name = Name::new();
    start(&name, &["-v", &format!("{path}:/x")]);
    exec(&name, "cat /x/file").success();
    fs::remove_dir_all(&path).unwrap();
    assert_ne!(exec(&name, "cat /x/file").code(), 0);
    assert_ne!(exec(&name, "touch /x/new").code(), 0);
    dctl(&["stop", "-t", "0", name.as_str()]).success();
    fs::create_dir(&path).unwrap();
    fs::write(format!("{path}/file"), "again").unwrap();
    dctl(&["start", name.as_str()]).success();
    assert_eq!(exec(&name, "cat /x/file").success().text(), "again");
}

#[test]
fn what_no_container_has_is_not_shared_any_more() {
    let exports = || {
        let path = shared()
            .installation
            .home()
            .join("data/machines/default/exports.json");
        fs::read_to_string(path).unwrap_or_default()
    };
    let folder = Folder::new();
    let path = folder.path().to_str().unwrap().to_owned();
    let name = Name::new();
    start(&name, &["-v", &folder.mounted("")]);
    assert!(exports().contains(&path));
    dctl(&["rm", "-f", name.as_str()]).success();
    wait_until("it is shared no more", LONG, || !exports().contains(&path));
    // Nor by one that goes by itself, or that never came to be.
    run(&["-v", &folder.mounted("")], "true").success();
    wait_until("it is shared no more", LONG, || !exports().contains(&path));
    run(&["-v", &folder.mounted(":what")], "true").fails_with(125, "invalid mode");
    assert!(!exports().contains(&path));
}

#[test]
fn mounts_of_another_container_are_taken_over() {
    let folder = Folder::new();
    fs::write(folder.path().join("file"), "text").unwrap();
    let name = Name::new();
    start(&name, &["-v", &folder.mounted("")]);
    let said = run(&["--volumes-from", name.as_str()], "cat /x/file").success();
    assert_eq!(said.text(), "text");
}

#[test]
fn the_docker_command_line_mounts_folders() {
    if std::process::Command::new("docker")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("skipped: there is no docker command");
        return;
    }
    let folder = Folder::new();
    fs::write(folder.path().join("file"), "text").unwrap();
    let mut command = std::process::Command::new("docker");
    command
        .args(["run", "--rm", "-v", "./:/x", &shared().busybox])
        .args(["sh", "-c", "cat /x/file; echo more > /x/new"])
        .current_dir(folder.path())
        .env(
            "DOCKER_HOST",
            format!("unix://{}", shared().installation.socket().display()),
        );
    let said = tests::command::run(&mut command, b"", LONG).success();
    assert_eq!(said.text(), "text");
    assert_eq!(folder.read("new"), "more\n");
}

/// Containers that start with the machine find their files, over both transports.
#[test]
fn shares_survive_engine_and_machine_over_both_transports() {
    let installation = Installation::new();
    let dctl = |arguments: &[&str]| installation.dctl(arguments);
    let layout = tempfile::tempdir().unwrap();
    images::write_busybox(layout.path());
    let registry = tests::registry::Registry::start();
    registry.push(layout.path(), "busybox:latest");
    let image = registry.name("busybox:latest");
    let folder = Folder::new();
    let counter = "while :; do date +%s%N > /x/now; sleep 0.2; done";
    let mount = folder.mounted("");
    let tail = ["-v", &mount, &image, "sh", "-c", counter];
    let run = ["run", "-d", "--name", "ticks", "--restart", "always"];
    dctl(&[&run[..], &tail].concat()).success();
    let ticks = || {
        let before = fs::read_to_string(folder.path().join("now")).unwrap_or_default();
        wait_until("the container writes", LONG, || {
            let now = fs::read_to_string(folder.path().join("now")).unwrap_or_default();
            !now.is_empty() && now != before
        });
    };
    ticks();
    for process in installation.processes(tests::installation::Part::Engine) {
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    }
    ticks();
    assert_eq!(
        dctl(&["exec", "ticks", "stat", "-f", "-c", "%T", "/x"])
            .success()
            .code(),
        0
    );
    let said = dctl(&["machine", "set", "--share-transport", "vsock"]).success();
    assert!(said.error().contains("next start"), "{said}");
    dctl(&["machine", "restart"]).success();
    ticks();
    let mounts = dctl(&["machine", "shell", "cat", "/proc/mounts"]).success();
    assert!(!mounts.text().contains("virtiofs"), "{mounts}");
    let big = "dd if=/dev/zero of=/x/big bs=1M count=8 2> /dev/null; sha256sum < /x/big";
    let inside = dctl(&["exec", "ticks", "sh", "-c", big]).success().text();
    assert_eq!(
        inside,
        "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74  -"
    );
    assert_eq!(
        fs::metadata(folder.path().join("big")).unwrap().len(),
        8 << 20
    );
    dctl(&["machine", "stop"]).success();
}

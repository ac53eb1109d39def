//! Compose, the current one and version 1, with a project of several services.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use rustix::process::Signal;
use serde_json::Value;
use tests::{
    Finished, Running,
    clients::Client,
    command::{LONG, run},
    installation::wait_until,
    terminal::Terminal,
};

use crate::shared::{beside, call, client, shared};

/// A project of one test, in a directory of its own. Goes with everything that it made.
struct Project {
    compose: Client,
    name: &'static str,
    directory: tempfile::TempDir,
}

impl Project {
    fn new(compose: Client, name: &'static str) -> Self {
        // It may fail, which the end of a project must not.
        shared();
        let directory = tempfile::tempdir().unwrap();
        for file in ["compose.yaml", "www/index.html"] {
            let to = directory.path().join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(beside("project").join(file), to).unwrap();
        }
        Self {
            compose,
            name,
            directory,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = client(self.compose);
        command
            .current_dir(self.directory.path())
            .arg("-f")
            .arg(self.directory.path().join("compose.yaml"))
            .args(["-p", self.name])
            .args(arguments);
        command
    }

    #[track_caller]
    fn compose(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments), b"", LONG)
    }

    /// The ids of a service's containers, those that do not run as well.
    #[track_caller]
    fn containers(&self, service: &str) -> Vec<String> {
        let service = format!("com.docker.compose.service={service}");
        self.found(&["ps", "-aq", "--no-trunc", "--filter", &labelled(&service)])
    }

    /// What is the project's of what Docker's client lists.
    #[track_caller]
    fn found(&self, list: &[&str]) -> Vec<String> {
        let project = labelled(&format!("com.docker.compose.project={}", self.name));
        let listed = call(Client::Docker, &[list, &["--filter", &project]].concat());
        let listed = listed.success().text();
        listed.lines().map(str::to_owned).collect()
    }

    /// The page that `web` serves on its published port.
    #[track_caller]
    fn page(&self) -> String {
        let address = self.compose(&["port", "web", "80"]).success().text();
        get(&address)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // A test that failed may have left anything.
        let _ = self.compose(&["down", "-v", "-t", "1", "--remove-orphans"]);
    }
}

fn labelled(label: &str) -> String {
    format!("label={label}")
}

fn get(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[track_caller]
fn inspect(container: &str, template: &str) -> String {
    let inspected = call(Client::Docker, &["inspect", "-f", template, container]);
    inspected.success().text()
}

/// From nothing to services that find each other, and back to nothing.
fn the_life_of_a_project(compose: Client, name: &'static str) {
    let project = Project::new(compose, name);
    project.compose(&["up", "-d"]).success();

    // The database was healthy before the web server was started.
    let [web, database] = ["web", "database"].map(|service| project.containers(service));
    let ([web], [database]) = (&web[..], &database[..]) else {
        panic!("one container of each: {web:?}, {database:?}");
    };
    assert_eq!(inspect(database, "{{.State.Health.Status}}"), "healthy");
    let healthy_at = inspect(database, "{{(index .State.Health.Log 0).Start}}");
    let started_at = inspect(web, "{{.State.StartedAt}}");
    assert!(
        healthy_at.replace(' ', "T") < started_at,
        "{healthy_at} {started_at}"
    );

    // The published port leads to the files of this host, as they are now.
    assert!(project.page().ends_with("served from the host\n"));
    fs::write(project.directory.path().join("www/index.html"), "new").unwrap();
    assert!(project.page().ends_with("new"));

    // Names of services and aliases hold in the networks that are shared, and nowhere else.
    let exec =
        |service: &str, script: &str| project.compose(&["exec", "-T", service, "sh", "-c", script]);
    let fetched = exec("worker", "wget -qO- http://shop/ && wget -qO- http://web/");
    assert_eq!(fetched.success().text(), "newnew");
    let answer = exec("web", "echo PING | nc -w 30 database 6379");
    assert_eq!(answer.success().text(), "+PONG");
    let lookup = exec("worker", "nslookup database || exit 9");
    assert_eq!(lookup.code(), 9, "{lookup}");

    // Three of them, and one again.
    let scale = |count: &str| {
        let scale = format!("worker={count}");
        project.compose(&["up", "-d", "--scale", &scale]).success();
        project.containers("worker").len()
    };
    assert_eq!(scale("3"), 3);
    wait_until("all three have said so", LONG, || {
        let logs = project.compose(&["logs", "--no-color", "worker"]);
        logs.success().text().matches(" works").count() == 3
    });
    assert_eq!(scale("1"), 1);

    // Once, with an exit code of its own, and nothing is left of it.
    let once = [
        "run",
        "--rm",
        "-T",
        "tool",
        "wget -qO- http://shop/; exit 7",
    ];
    let once = project.compose(&once);
    assert_eq!((once.code(), once.text().as_str()), (7, "new"), "{once}");
    assert_eq!(project.containers("tool"), Vec::<String>::new());

    // What has changed is made anew with its volumes, what has not stays.
    exec("web", "echo kept > /cache/file").success();
    let mut up = project.command(&["up", "-d"]);
    run(up.env("GREETING", "changed"), b"", LONG).success();
    assert_ne!(project.containers("web"), [web.as_str()]);
    assert_eq!(project.containers("database"), [database.as_str()]);
    let kept = exec("web", "echo $GREETING; cat /cache/file");
    assert_eq!(kept.success().text(), "changed\nkept");

    project.compose(&["stop", "-t", "5"]).success();
    let running = project.found(&["ps", "-q"]);
    assert_eq!(running, Vec::<String>::new());
    project.compose(&["start"]).success();
    project.compose(&["restart", "-t", "5", "worker"]).success();
    project.compose(&["pause", "worker"]).success();
    project.compose(&["unpause", "worker"]).success();
    let top = project.compose(&["top", "web"]).success();
    assert!(top.text().contains("httpd -f -v"), "{top}");
    let images = project.compose(&["images"]).success();
    assert!(images.text().contains("library/redis"), "{images}");
    project.compose(&["kill", "-s", "TERM", "worker"]).success();

    project.compose(&["down", "-v", "-t", "5"]).success();
    for list in [
        &["ps", "-aq"][..],
        &["network", "ls", "-q"],
        &["volume", "ls", "-q"],
    ] {
        assert_eq!(project.found(list), Vec::<String>::new(), "{list:?}");
    }
}

#[test]
fn compose_brings_a_project_up_and_down() {
    the_life_of_a_project(Client::Compose, "five");
}

#[test]
fn compose_1_brings_a_project_up_and_down() {
    the_life_of_a_project(Client::Compose1, "one");
}

#[test]
fn compose_tells_what_there_is() {
    let project = Project::new(Client::Compose, "told");
    let mut events = Running::start(&mut project.command(&["events", "--json"]));
    let waited = project.compose(&["up", "-d", "--wait", "database", "worker"]);
    waited.success();
    let listed = project.compose(&["ps", "--format", "json", "database"]);
    let listed: Value = serde_json::from_str(&listed.success().text()).unwrap();
    assert_eq!(listed["Service"], "database");
    assert_eq!(listed["State"], "running");
    assert_eq!(listed["Health"], "healthy");
    let projects = project.compose(&["ls", "--format", "json"]).success();
    let projects: Value = serde_json::from_str(&projects.text()).unwrap();
    let projects = projects.as_array().unwrap();
    let of_this = projects.iter().find(|other| other["Name"] == project.name);
    assert_eq!(of_this.unwrap()["Status"], "running(2)");
    let volumes = project.compose(&["volumes", "-q"]).success().text();
    assert_eq!(volumes, "told_data");
    let stats = [
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.MemUsage}}",
    ];
    let stats = project.compose(&stats).success().text();
    assert!(stats.contains("told-worker-1 "), "{stats}");

    project
        .compose(&["cp", "worker:/etc/passwd", "passwd"])
        .success();
    project.compose(&["cp", "passwd", "worker:/tmp/"]).success();
    let copied = fs::read_to_string(project.directory.path().join("passwd")).unwrap();
    let inside = ["exec", "-T", "worker", "cat", "/tmp/passwd"];
    let inside = project.compose(&inside).success();
    assert_eq!(inside.text(), copied.trim());

    project.compose(&["rm", "-fsv", "worker"]).success();
    let ended = r#""action":"destroy""#;
    events.wait_for_output(ended, LONG);
    events.signal(Signal::INT);
    let said = events.finish(LONG).text();
    for action in ["create", "start", "health_status: healthy"] {
        let action = format!(r#""action":"{action}""#);
        assert!(said.contains(&action), "{action} of {said}");
    }
}

#[test]
fn compose_follows_logs_until_the_end() {
    let project = Project::new(Client::Compose, "followed");
    project.compose(&["up", "-d", "worker"]).success();
    let mut logs = Running::start(&mut project.command(&["logs", "-f", "worker"]));
    logs.wait_for_output(" works", LONG);
    project.compose(&["stop", "-t", "5", "worker"]).success();
    logs.finish(LONG).success();
}

#[test]
fn compose_in_the_foreground_stops_all_at_control_c() {
    let project = Project::new(Client::Compose, "foreground");
    let up = ["up", "--no-color", "worker"];
    let mut terminal = Terminal::start(&mut project.command(&up), 40, 120);
    terminal.wait_for(" works", LONG);
    terminal.type_text("\x03");
    // Its releases differ about the code of an end that was asked for.
    let code = terminal.finish(LONG);
    assert!([0, 130].contains(&code), "{code}");
    let running = project.found(&["ps", "-q"]);
    assert_eq!(running, Vec::<String>::new());
    assert_eq!(project.containers("worker").len(), 1);
}

#[test]
fn compose_1_in_the_foreground_stops_all_at_control_c() {
    let project = Project::new(Client::Compose1, "foreground1");
    let up = ["up", "--no-color", "worker"];
    let mut terminal = Terminal::start(&mut project.command(&up), 40, 120);
    terminal.wait_for(" works", LONG);
    terminal.type_text("\x03");
    terminal.wait_for("done", LONG);
    terminal.finish(LONG);
    let running = project.found(&["ps", "-q"]);
    assert_eq!(running, Vec::<String>::new());
}

#[test]
fn compose_has_a_terminal_in_a_container() {
    for (compose, name) in [(Client::Compose, "tty"), (Client::Compose1, "tty1")] {
        let project = Project::new(compose, name);
        let once = ["run", "--rm", "--entrypoint", "sh", "tool"];
        let mut terminal = Terminal::start(&mut project.command(&once), 30, 90);
        terminal.wait_for("# ", LONG);
        // docker-compose 1 tells the size when the shell runs already.
        terminal.type_text("until stty size | grep '30 90'; do sleep 0.1; done\r");
        terminal.wait_for("30 90\r\n", LONG);
        terminal.type_text("exit 5\r");
        assert_eq!(terminal.finish(LONG), 5, "{name}");
    }
}

#[test]
fn compose_pulls_what_is_missing() {
    let project = Project::new(Client::Compose, "pulled");
    let image = shared().registry.name("library/pulled:latest");
    let tag = |arguments: &[&str]| call(Client::Docker, arguments).success();
    tag(&["tag", &shared().busybox, &image]);
    tag(&["push", "-q", &image]);
    tag(&["rmi", &image]);
    let mut up = project.command(&["up", "-d", "worker"]);
    run(up.env("BUSYBOX", &image), b"", LONG).success();
    let workers = project.containers("worker");
    assert_eq!(inspect(&workers[0], "{{.Config.Image}}"), image);
    project.compose(&["down", "-t", "1"]).success();
    tag(&["rmi", &image]);
}

//! A distribution's packages in a container: fetched through the way out from where
//! this host's own come from, installed, and served on a published port.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use tests::{command, images};

use crate::shared::{Name, dctl, shared};

/// Software CPUs on busy machines take minutes for apt's lists.
const WITHIN: Duration = Duration::from_mins(15);

/// What of a host's environment says how programs fetch.
const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];

/// Takes the host's settings of apt, and does what people do.
const INSTALL: &str = "set -e
rm -rf /etc/apt/sources.list.d
printf '%s\\n' \"$1\" > /etc/apt/sources.list
printf '%s\\n' \"$2\" > /etc/apt/apt.conf.d/99host
apt-get update && apt-get install -y nginx";

#[test]
fn nginx_is_installed_from_the_archive_and_serves() {
    let archive = images::debian::archive();
    let release = images::debian::RELEASE;
    let settings = settings_of_apt();
    this_host_reaches(&format!("{archive}/dists/{release}/InRelease"));

    let name = Name::new();
    let container = name.as_str();
    let debian = shared().debian.as_str();
    let published = ["--publish", "127.0.0.1::80"];
    let waits = [debian, "sleep", "infinity"];
    dctl(&[&["run", "-d", "--name", container], &published[..], &waits].concat()).success();
    let mut exec = vec!["exec".to_owned()];
    let noninteractive = ("DEBIAN_FRONTEND", "noninteractive".to_owned());
    let proxies = PROXIES.iter().filter_map(|name| {
        let value = std::env::var(name).ok()?;
        Some((*name, value))
    });
    for (name, value) in proxies.chain([noninteractive]) {
        exec.push(format!("--env={name}={}", seen_from_a_container(&value)));
    }
    let source = format!("deb {archive} {release} main");
    let script = [container, "sh", "-c", INSTALL, "sh"].map(str::to_owned);
    exec.extend(script);
    exec.extend([source, settings].map(|text| seen_from_a_container(&text)));
    let exec: Vec<&str> = exec.iter().map(String::as_str).collect();
    let mut install = shared().installation.command(&exec);
    command::run(&mut install, b"", WITHIN).success();

    // It goes to the background when it listens.
    dctl(&["exec", container, "nginx"]).success();
    let address = dctl(&["port", container, "80"]).success().text();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(command::LONG)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("Server: nginx/"), "{page}");
    assert!(page.contains("Welcome to nginx!"), "{page}");
}

/// # Panics
/// If apt on this host cannot fetch either: then nothing is known about containers.
fn this_host_reaches(address: &str) {
    let directory = tempfile::tempdir().unwrap();
    let mut fetch = Command::new("/usr/lib/apt/apt-helper");
    fetch
        .args(["download-file", address])
        .arg(directory.path().join("fetched"));
    let fetched = command::run(&mut fetch, b"", command::LONG);
    assert!(
        fetched.status.success(),
        "this host's own apt does not reach its archive, so there is no telling whether a \
         container does: {fetched}"
    );
}

/// How this host's apt fetches: its proxies, and what it makes of dates.
fn settings_of_apt() -> String {
    let mut dump = Command::new("apt-config");
    dump.arg("dump");
    let dump = command::run(&mut dump, b"", command::LONG).success().text();
    let fetches = |line: &&str| {
        let key = line.split(' ').next().unwrap_or_default();
        let is_proxy = key.ends_with("::Proxy") || key.contains("::Proxy::");
        key.starts_with("Acquire::") && (is_proxy || key.contains("::Check-"))
    };
    let settings: Vec<&str> = dump.lines().filter(fetches).collect();
    // Nobody reads the descriptions.
    [&settings[..], &["Acquire::Languages \"none\";"]]
        .concat()
        .join("\n")
}

/// The same text for a container: this host's loopback has another name there.
fn seen_from_a_container(text: &str) -> String {
    ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .fold(text.to_owned(), |text, loopback| {
            text.replace(&format!("://{loopback}"), "://host.docker.internal")
        })
}

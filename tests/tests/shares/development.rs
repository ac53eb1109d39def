//! What people do in the folder of a project: `git status`, `npm install`.

use std::{fs, time::Duration};

use flate2::{Compression, write::GzEncoder};
use tests::{Finished, images::Layer};

use crate::machine::{Container, Folder, Image, Machine, Transport};

/// npm on a software CPU that others want, too.
const WITHIN: Duration = Duration::from_mins(10);

/// A container that waits, with the folder at `/work`.
fn workplace(transport: Transport, folder: &Folder, options: &[&str]) -> Container {
    let mount = folder.mounted("/work");
    let options = [options, &["--workdir", "/work", "-v", &mount]].concat();
    let wait = ["sleep", "infinity"];
    Machine::with(transport).container(Image::Development, &options, &wait)
}

/// git's own checks of owners, modes, times and inode numbers find nothing amiss; what
/// this host changes is a change.
fn git(transport: Transport, options: &[&str]) {
    let folder = Folder::new();
    for number in 0..300 {
        let name = format!("src/part{}/file{number}.txt", number % 10);
        folder.write(&name, format!("text {number}\n"));
    }
    let container = workplace(transport, &folder, options);
    let git = |arguments: &str| -> Finished {
        let settings = "-c user.name=test -c user.email=test@example.com";
        container.exec(&format!("HOME=/tmp git {settings} {arguments}"))
    };
    git("init --quiet --initial-branch=main").success();
    git("add .").success();
    git("commit --quiet --message=first").success();
    assert_eq!(git("status --porcelain").success().text(), "");

    folder.write("src/part1/file1.txt", "changed\n");
    fs::remove_file(folder.path().join("src/part2/file2.txt")).unwrap();
    folder.write("new.txt", "new\n");
    let status = git("status --porcelain").success().text();
    assert_eq!(
        status,
        "M src/part1/file1.txt\n D src/part2/file2.txt\n?? new.txt"
    );
    git("switch --quiet --create other").success();
    git("commit --quiet --all --message=second").success();
    git("switch --quiet main").success();
    assert_eq!(folder.read("src/part1/file1.txt"), "text 1\n");
    git("gc --quiet --prune=now").success();
    git("fsck --strict").success();
}

#[test]
fn git_status_over_virtiofs() {
    git(Transport::Virtiofs, &[]);
}

#[test]
fn git_status_over_vsock_as_another_user() {
    git(Transport::Vsock, &["--user", "1000:1001"]);
}

/// The archive of a package as npm makes them, of `files` modules and a program.
fn package(name: &str, files: usize) -> Vec<u8> {
    let mut layer = Layer::new();
    let manifest =
        format!(r#"{{"name": "{name}", "version": "1.2.3", "main": "index.js", "bin": "bin.js"}}"#);
    layer.file("package/package.json", 0o644, manifest.as_bytes());
    let program = format!("#!/usr/bin/env node\nconsole.log(require('{name}'))\n");
    layer.file("package/bin.js", 0o755, program.as_bytes());
    let mut sum = vec!["module.exports = 0".to_owned()];
    for number in 0..files {
        let module = format!("module.exports = {number}\n");
        let path = format!("package/lib/part{}/module{number}.js", number % 5);
        layer.file(&path, 0o644, module.as_bytes());
        sum.push(format!(
            "require('./lib/part{}/module{number}')",
            number % 5
        ));
    }
    layer.file("package/index.js", 0o644, sum.join(" +\n    ").as_bytes());
    let mut archive = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut archive, &layer.finish()).unwrap();
    archive.finish().unwrap()
}

/// Packages from archives beside the project: nothing of it is about the network.
fn npm(transport: Transport) {
    const PACKAGES: usize = 12;
    const FILES: usize = 20;
    let folder = Folder::new();
    let mut dependencies = Vec::new();
    for number in 0..PACKAGES {
        let name = format!("package{number}");
        folder.write(&format!("archives/{name}.tgz"), package(&name, FILES));
        dependencies.push(format!(r#""{name}": "file:archives/{name}.tgz""#));
    }
    folder.write(
        "package.json",
        format!(
            r#"{{"name": "project", "private": true, "dependencies": {{{}}}}}"#,
            dependencies.join(", ")
        ),
    );
    let container = workplace(transport, &folder, &[]);
    let npm = |arguments: &str| {
        let script = format!("npm {arguments} --offline --no-audit --no-fund --loglevel=error");
        container.start(&script).finish(WITHIN).success()
    };
    npm("install");
    let program = container.exec("node_modules/.bin/package7").success();
    assert_eq!(program.text(), (0..FILES).sum::<usize>().to_string());
    let link = folder.path().join("node_modules/.bin/package7");
    assert_eq!(
        fs::read_link(link).unwrap().to_str(),
        Some("../package7/bin.js")
    );
    // From what it wrote down, after it has removed all that there is.
    npm("ci");
    let listed = npm("ls --parseable").text();
    assert_eq!(listed.lines().count(), 1 + PACKAGES, "{listed}");
    assert!(folder.path().join("node_modules/package3/lib").is_dir());
}

#[test]
fn npm_install_over_virtiofs() {
    npm(Transport::Virtiofs);
}

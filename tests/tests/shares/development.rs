//! What people do in the folder of a project: `git status`.

use std::fs;

use tests::Finished;

use crate::machine::{Container, Folder, Image, Machine, Transport};

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

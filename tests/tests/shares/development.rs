//! What people do in the folder of a project: `git status`, `npm install`, `cargo
//! build`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use tests::{command, images::Layer};

use crate::machine::{Container, Folder, Image, Machine, Transport};

/// Compilers on a software CPU that others want, too.
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
    for number in 0..40 {
        let name = format!("src/part{}/file{number}.txt", number % 4);
        folder.write(&name, format!("text {number}\n"));
    }
    let container = workplace(transport, &folder, options);
    let git = |script: &str| -> String {
        let git = "export HOME=/tmp; set -e
            git() { command git -c user.name=test -c user.email=test@example.com \"$@\"; }";
        container.exec(&format!("{git}\n{script}")).success().text()
    };
    let made = git("git init --quiet --initial-branch=main
        git add .
        git commit --quiet --message=first
        git status --porcelain");
    assert_eq!(made, "");

    folder.write("src/part1/file1.txt", "changed\n");
    fs::remove_file(folder.path().join("src/part2/file2.txt")).unwrap();
    folder.write("new.txt", "new\n");
    assert_eq!(
        git("git status --porcelain"),
        "M src/part1/file1.txt\n D src/part2/file2.txt\n?? new.txt"
    );
    git("git switch --quiet --create other
        git commit --quiet --all --message=second
        git switch --quiet main");
    assert_eq!(folder.read("src/part1/file1.txt"), "text 1\n");
    git("git gc --quiet --prune=now
        git fsck --strict");
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

/// Packages from archives beside the project: nothing of it is about the network. What
/// is installed can be `cleaned`, and installed again.
fn npm(transport: Transport, cleaned: bool) {
    const PACKAGES: usize = 3;
    const FILES: usize = 10;
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
        let options = "--offline --no-audit --no-fund --no-update-notifier --loglevel=error";
        let script = format!("HOME=/tmp npm {arguments} {options}");
        container.start(&script).finish(WITHIN).success();
    };
    npm("install");
    let program = container.exec("node_modules/.bin/package2").success();
    assert_eq!(program.text(), (0..FILES).sum::<usize>().to_string());
    let link = folder.path().join("node_modules/.bin/package2");
    assert_eq!(
        fs::read_link(link).unwrap().to_str(),
        Some("../package2/bin.js")
    );
    if cleaned {
        // From what it wrote down, after it has removed all that there is.
        folder.write("node_modules/package1/lib/part0/left-over.js", "");
        npm("ci");
    }
    for number in 0..PACKAGES {
        let modules = folder
            .path()
            .join(format!("node_modules/package{number}/lib"));
        let modules: usize = fs::read_dir(modules)
            .unwrap()
            .map(|part| fs::read_dir(part.unwrap().path()).unwrap().count())
            .sum();
        assert_eq!(modules, FILES);
    }
}

#[test]
fn npm_install_over_virtiofs() {
    npm(Transport::Virtiofs, true);
}

#[test]
fn npm_install_over_vsock() {
    npm(Transport::Vsock, false);
}

/// The source of a package of crates.io that these tests use themselves.
fn crate_source(name: &str) -> PathBuf {
    let mut metadata = Command::new("cargo");
    metadata
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let metadata = command::run(&mut metadata, b"", command::LONG).success();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let package = packages.find(|package| package["name"] == name).unwrap();
    let manifest = package["manifest_path"].as_str().unwrap();
    Path::new(manifest).parent().unwrap().to_owned()
}

/// This host's toolchain in a share of its own, on a project with a crate of another
/// author and one of its own.
#[test]
fn cargo_build() {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "sysroot"]);
    let sysroot = command::run(&mut rustc, b"", command::LONG).success();
    let toolchain = format!("{}:/rust:ro", sysroot.text());
    let source = format!("{}:/crates/hex:ro", crate_source("hex").display());
    let folder = Folder::new();
    folder.write(
        "Cargo.toml",
        "[package]\nname = \"app\"\nedition = \"2024\"\n\n\
         [dependencies]\nhex = { path = \"/crates/hex\" }\nwords = { path = \"words\" }\n\n\
         [workspace]\nmembers = [\"words\"]\n",
    );
    folder.write(
        "src/main.rs",
        "fn main() {\n    println!(\"{}\", hex::encode(words::WORDS));\n}\n",
    );
    folder.write(
        "words/Cargo.toml",
        "[package]\nname = \"words\"\nedition = \"2024\"\n",
    );
    let words = |text: &str| {
        let source = format!("pub const WORDS: &str = {text:?};\n");
        folder.write("words/src/lib.rs", source);
    };
    words("first");
    let options = ["-v", toolchain.as_str(), "-v", source.as_str()];
    let container = workplace(Transport::Virtiofs, &folder, &options);
    let run = || {
        // Debian's `cc` is a link into /etc.
        let script = "export PATH=/rust/bin:$PATH CARGO_HOME=/tmp/cargo
            export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=gcc
            cargo build --quiet --offline && target/debug/app";
        container.start(script).finish(WITHIN).success().text()
    };
    assert_eq!(run(), hex::encode("first"));
    assert!(folder.path().join("target/debug/app").is_file());
    // Only times and sizes tell cargo that something is new.
    words("other");
    assert_eq!(run(), hex::encode("other"));
    let built = fs::metadata(folder.path().join("target/debug/app")).unwrap();
    assert_eq!(run(), hex::encode("other"));
    let now = fs::metadata(folder.path().join("target/debug/app")).unwrap();
    assert_eq!(built.modified().unwrap(), now.modified().unwrap());
}

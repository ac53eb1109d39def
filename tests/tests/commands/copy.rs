//! `cp` both ways, and `diff`.

use std::{
    fs,
    io::Read,
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
};

use crate::shared::{Name, dctl, shared};

/// A container that runs, in which `script` was done.
fn container(options: &[&str], script: &str) -> Name {
    let name = Name::new();
    let head = ["run", "-d", "--name", name.as_str()];
    let tail = [shared().busybox.as_str(), "sleep", "600"];
    dctl(&[&head[..], options, &tail].concat()).success();
    exec(&name, script);
    name
}

#[track_caller]
fn exec(name: &Name, script: &str) -> String {
    dctl(&["exec", name.as_str(), "sh", "-c", script])
        .success()
        .text()
}

fn at(name: &Name, path: &str) -> String {
    format!("{}:{path}", name.as_str())
}

#[track_caller]
fn copy(from: &str, to: &str) -> tests::Finished {
    dctl(&["cp", from, to])
}

/// A folder here with `file`, `folder/inner` and a link.
fn source() -> tempfile::TempDir {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), "here\n").unwrap();
    fs::create_dir(source.path().join("folder")).unwrap();
    fs::write(source.path().join("folder/inner"), "inside\n").unwrap();
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(source.path().join("folder/inner"), mode).unwrap();
    symlink("file", source.path().join("link")).unwrap();
    source
}

/// The names in an archive.
fn entries(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}

#[test]
fn files_and_folders_go_in_where_docker_puts_them() {
    let source = source();
    let here = |path: &str| format!("{}/{path}", source.path().display());
    let name = container(
        &[],
        "mkdir /there /real; ln -s /real /to-folder; echo old > /there/old",
    );
    copy(&here("file"), &at(&name, "/there")).success();
    copy(&here("file"), &at(&name, "/there/renamed")).success();
    copy(&here("file"), &at(&name, "/there/old")).success();
    copy(&here("file"), &at(&name, "/to-folder")).success();
    copy(&here("folder"), &at(&name, "/there")).success();
    copy(&here("folder"), &at(&name, "/new")).success();
    copy(&here("folder/."), &at(&name, "/real")).success();
    copy(&here("link"), &at(&name, "/there")).success();
    dctl(&["cp", "-L", &here("link"), &at(&name, "/there/followed")]).success();
    let listed = exec(
        &name,
        "cd /; find there real new ! -type d | sort; cat there/old; stat -c %a new/inner; \
         readlink there/link",
    );
    assert_eq!(
        listed,
        "new/inner\nreal/file\nreal/inner\nthere/file\nthere/folder/inner\nthere/followed\n\
         there/link\nthere/old\nthere/renamed\nhere\n640\nfile"
    );
    for (from, to, message) in [
        (here("folder"), "/there/old", "cannot copy directory"),
        (here("file"), "/missing/", "no such directory"),
        (
            here("file"),
            "/missing/x",
            "Could not find the file /missing",
        ),
        (here("missing"), "/there", "no such file or directory"),
    ] {
        copy(&from, &at(&name, to)).fails_with(1, message);
    }
    copy(&here("file"), "nobody:/").fails_with(1, "No such container: nobody");
    copy(&here("file"), &here("other")).fails_with(1, "must specify at least one container");
    copy(&at(&name, "/real"), &at(&name, "/x")).fails_with(1, "between containers");
}

#[test]
fn files_and_folders_come_out_where_docker_puts_them() {
    let name = container(
        &[],
        "mkdir -p /from/deep; echo x > /from/deep/file; echo secret > /from/private; \
         chmod 600 /from/private; ln -s private /from/link; mkfifo /from/pipe; ln -s /from /to-from",
    );
    let target = tempfile::tempdir().unwrap();
    let here = |path: &str| target.path().join(path);
    let text = |path: &str| here(path).display().to_string();
    copy(&at(&name, "/from"), &text("")).success();
    copy(&at(&name, "/from"), &text("renamed")).success();
    copy(&at(&name, "/from/."), &text("contents")).success();
    copy(&at(&name, "/from/private"), &text("file")).success();
    copy(&at(&name, "from/link"), &text("link")).success();
    dctl(&["cp", "-L", &at(&name, "/from/link"), &text("followed")]).success();
    dctl(&["cp", "-L", &at(&name, "/to-from"), &text("folder")]).success();
    for folder in ["from", "renamed", "contents", "folder"] {
        let file = here(folder).join("deep/file");
        assert_eq!(fs::read_to_string(file).unwrap(), "x\n", "{folder}");
        let private = here(folder).join("private").metadata().unwrap();
        assert_eq!(private.permissions().mode() & 0o7777, 0o600);
        let pipe = here(folder).join("pipe").symlink_metadata().unwrap();
        assert!(pipe.file_type().is_fifo());
    }
    for file in ["file", "followed"] {
        assert!(!here(file).symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read_to_string(here(file)).unwrap(), "secret\n");
    }
    assert_eq!(
        fs::read_link(here("link")).unwrap().to_str(),
        Some("private")
    );
    for (from, to, message) in [
        ("/missing", text(""), "Could not find the file /missing"),
        (
            "/from/private/",
            text(""),
            "Could not find the file /from/private/",
        ),
        ("/from", text("file"), "cannot copy directory"),
        ("/from/private", text("no/such"), "does not exist"),
    ] {
        copy(&at(&name, from), &to).fails_with(1, message);
    }
}

#[test]
fn archives_go_through_pipes() {
    let name = container(&[], "mkdir -p /from /to; echo x > /from/file");
    let out = |path: &str| copy(&at(&name, path), "-").success().stdout;
    assert_eq!(entries(&out("/from")), ["from/", "from/file"]);
    assert_eq!(entries(&out("/from/.")), ["./", "./file"]);
    assert_eq!(entries(&out("/from/file")), ["file"]);
    let archive = out("/from");
    let put = |to: &str, input: &[u8]| {
        shared()
            .installation
            .dctl_with_input(&["cp", "-", &at(&name, to)], input)
    };
    put("/to", &archive).success();
    assert_eq!(exec(&name, "cat /to/from/file"), "x");
    put("/to", b"no archive").fails_with(1, "the archive is truncated");
    put("/from/file", &archive).fails_with(1, "must be a directory");
    put("/missing", &archive).fails_with(1, "must be a directory");
}

#[test]
fn an_archive_cannot_write_outside_of_the_container() {
    let name = container(&[], "mkdir /to; ln -s ../../../../../../escaped /to/up");
    let mut archive = tar::Builder::new(Vec::new());
    for path in ["up/file", "../../../../../../etc/dctl-escaped"] {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, std::io::empty()).unwrap();
    }
    let archive = archive.into_inner().unwrap();
    let to = at(&name, "/to");
    // Refused or inside: nothing is anywhere else.
    let _ = shared()
        .installation
        .dctl_with_input(&["cp", "-", &to], &archive);
    let machine = dctl(&[
        "machine",
        "shell",
        "ls",
        "/escaped",
        "/data/escaped",
        "/etc/dctl-escaped",
    ]);
    assert_eq!(machine.text(), "");
    dctl(&["cp", "-q", "/etc/hostname", &to]).success();
}

#[test]
fn stopped_containers_and_their_volumes_are_reached() {
    let volume = format!("{}-copied", Name::new().as_str());
    let name = Name::new();
    let mount = format!("{volume}:/v");
    let create = ["create", "--name", name.as_str(), "-v", &mount];
    let script = ["sh", "-c", "cat /v/file /tmp/file"];
    dctl(&[&create[..], &[&shared().busybox], &script].concat()).success();
    let source = source();
    let file = format!("{}/file", source.path().display());
    copy(&file, &at(&name, "/v/file")).success();
    copy(&file, &at(&name, "/tmp/file")).success();
    let started = dctl(&["start", "-a", name.as_str()]).success();
    assert_eq!(started.text(), "here\nhere");
    let mut archive = tar::Archive::new(&*copy(&at(&name, "/v/file"), "-").success().stdout)
        .entries()
        .map(|mut entries| {
            let mut text = String::new();
            let mut entry = entries.next().unwrap().unwrap();
            entry.read_to_string(&mut text).unwrap();
            text
        })
        .unwrap();
    assert_eq!(std::mem::take(&mut archive), "here\n");
    dctl(&["rm", name.as_str()]).success();
    dctl(&["volume", "rm", &volume]).success();
}

#[test]
fn what_is_read_only_stays_as_it_is() {
    let source = source();
    let file = format!("{}/file", source.path().display());
    let name = container(&["--read-only", "-v", "/writable"], "true");
    copy(&file, &at(&name, "/etc")).fails_with(1, "read-only");
    copy(&file, &at(&name, "/writable")).success();
    assert_eq!(exec(&name, "cat /writable/file"), "here");
}

#[test]
fn capabilities_of_files_go_along() {
    let folder = tempfile::tempdir().unwrap();
    let (file, back) = (folder.path().join("file"), folder.path().join("back"));
    fs::write(&file, "x").unwrap();
    // Version 2, cap_net_raw permitted.
    let mut capability = [0; 20];
    (capability[3], capability[5]) = (2, 0x20);
    let name = "security.capability";
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&file, name, &capability, flags).unwrap();
    let container = container(&[], "true");
    copy(file.to_str().unwrap(), &at(&container, "/file")).success();
    copy(&at(&container, "/file"), back.to_str().unwrap()).success();
    let mut found = [0; 64];
    let length = rustix::fs::getxattr(&back, name, &mut found[..]).unwrap();
    assert_eq!(found[..length], capability);
}

#[test]
fn diff_tells_what_changed() {
    let name = container(
        &[],
        "echo more >> /etc/group; mkdir /new; touch /new/file; rm -r /home/user",
    );
    let diff = dctl(&["diff", name.as_str()]).success().text();
    assert_eq!(
        diff,
        "C /etc\nC /etc/group\nC /home\nD /home/user\nA /new\nA /new/file"
    );
    dctl(&["diff", "nobody"]).fails_with(1, "No such container: nobody");
}

//! Volumes, copying in and out, export and commit.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use guest_protocol::{
    AgentError, ErrorKind,
    docker::{ContainerConfig, HostConfig},
    frame::Reply,
    methods::*,
};
use serde::de::DeserializeOwned;

use crate::{
    remove, stop,
    support::{Call, TestAgent, command, script},
};

/// What a stream from the agent carries: chunks, and then how it went.
fn receive(call: &mut Call) -> Result<Vec<u8>, AgentError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    loop {
        let mut length = [0; 4];
        call.stream.read_exact(&mut length).unwrap();
        let length = u32::from_be_bytes(length);
        if length == 0 {
            break;
        }
        let mut chunk = vec![0; length as usize];
        call.stream.read_exact(&mut chunk).unwrap();
        bytes.extend(chunk);
    }
    Result::from(call.receive::<Reply<()>>()).map(|()| bytes)
}

/// Sends chunks, and their end if they are `whole`.
fn send<T: DeserializeOwned>(mut call: Call, bytes: &[u8], whole: bool) -> Result<T, AgentError> {
    for chunk in bytes.chunks(64 * 1024) {
        let length = u32::try_from(chunk.len()).unwrap().to_be_bytes();
        // The agent may have seen enough.
        let _ = call.stream.write_all(&length);
        let _ = call.stream.write_all(chunk);
    }
    if whole {
        let _ = call.stream.write_all(&[0; 4]);
    } else {
        call.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    Result::from(call.receive::<Reply<T>>())
}

pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(7);
        header.set_gid(8);
        header.set_size(content.len() as u64);
        // As it is, however bad.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn names(archive: &[u8]) -> Vec<String> {
    tar::Archive::new(archive)
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned())
        .collect()
}

fn mounts(binds: &[&str]) -> HostConfig {
    HostConfig {
        binds: Some(binds.iter().map(|&bind| bind.to_owned()).collect()),
        ..HostConfig::default()
    }
}

pub(crate) fn get(agent: &TestAgent, container: &str, path: &str) -> Result<Vec<u8>, AgentError> {
    let (_, mut call) = agent.open(ContainerArchiveGet {
        container: container.into(),
        path: path.into(),
    })?;
    receive(&mut call)
}

pub(crate) fn put(
    agent: &TestAgent,
    container: &str,
    path: &str,
    archive: &[u8],
) -> Result<(), AgentError> {
    let ((), call) = agent.open(ContainerArchivePut {
        container: container.into(),
        path: path.into(),
        keep_folders: true,
        chown: false,
    })?;
    send(call, archive, true)
}

fn create_volume(
    agent: &TestAgent,
    name: &str,
    options: &[(&str, &str)],
) -> Result<(), AgentError> {
    agent
        .call(VolumeCreate {
            name: Some(name.into()),
            driver: String::new(),
            options: options
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            labels: BTreeMap::new(),
        })
        .map(drop)
}

fn remove_volume(agent: &TestAgent, name: &str) -> Result<(), AgentError> {
    agent.call(VolumeRemove {
        name: name.into(),
        force: false,
    })
}

#[test]
#[allow(clippy::zero_sized_map_values, reason = "Docker's type for a set")]
fn volumes_are_filled_shared_and_removed() {
    let agent = TestAgent::start();
    // The image has /home/app: the volume gets its content, owner and mode.
    let first = agent
        .create(
            ContainerConfig {
                volumes: Some(HashMap::from([("/cache".into(), HashMap::new())])),
                ..script("echo more > /etc2/new; ls /etc2; cat /etc2/passwd | wc -l")
            },
            mounts(&["store:/etc2"]),
        )
        .unwrap();
    let filled = agent
        .run(
            script("ls /etc; stat -c %a /etc/passwd 2>/dev/null || ls -l /etc/passwd"),
            mounts(&["filled:/etc"]),
        )
        .unwrap();
    assert!(filled.text().contains("passwd"), "{}", filled.error_text());
    let inspected = agent.inspect(&first).unwrap();
    assert_eq!(inspected.mounts.len(), 2);
    let anonymous = inspected
        .mounts
        .iter()
        .find(|mount| mount.destination.as_deref() == Some("/cache"))
        .and_then(|mount| mount.name.clone())
        .unwrap();
    let volume = agent
        .call(VolumeInspect {
            name: anonymous.clone(),
        })
        .unwrap();
    assert!(volume.is_anonymous());
    assert_eq!(volume.users, std::slice::from_ref(&first));
    let error = remove_volume(&agent, "store").unwrap_err();
    assert_eq!(
        (error.kind, error.message),
        (
            ErrorKind::Conflict,
            format!("remove store: volume is in use - [{first}]")
        )
    );
    let shared = HostConfig {
        volumes_from: Some(vec![format!("{first}:ro")]),
        ..HostConfig::default()
    };
    let reader = agent
        .run(script("touch /etc2/x; echo $?; ls -d /cache"), shared)
        .unwrap();
    assert_eq!(reader.text(), "1\n/cache\n");
    agent.call(remove(&first, true)).unwrap();
    let gone = agent.call(VolumeInspect { name: anonymous }).unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound);
    remove_volume(&agent, "store").unwrap();
    assert_eq!(
        remove_volume(&agent, "store").unwrap_err().message,
        "get store: no such volume"
    );
}

#[test]
fn volumes_survive_a_kill_and_strangers_folders_are_taken_over() {
    let mut agent = TestAgent::start();
    create_volume(&agent, "kept", &[]).unwrap();
    std::fs::create_dir_all(agent.data().join("volumes/older/_data")).unwrap();
    std::fs::create_dir_all(agent.data().join("volumes/older/_new/half")).unwrap();
    agent.kill_and_start();
    let names: Vec<_> = agent
        .call(VolumeList {})
        .unwrap()
        .into_iter()
        .map(|volume| volume.name)
        .collect();
    assert_eq!(names, ["kept", "older"]);
    assert!(!agent.data().join("volumes/older/_new").exists());
}

#[test]
fn a_volume_can_be_a_tmpfs_and_nothing_else() {
    let agent = TestAgent::start();
    create_volume(&agent, "memory", &[("type", "tmpfs"), ("o", "size=1m")]).unwrap();
    let output = agent
        .run(
            script("grep ' /m ' /proc/mounts; dd if=/dev/zero of=/m/x bs=1M count=2"),
            mounts(&["memory:/m"]),
        )
        .unwrap();
    assert!(output.text().contains("size=1024k"), "{}", output.text());
    assert_ne!(output.exit_code, 0);
    let refused = create_volume(&agent, "remote", &[("type", "nfs"), ("device", ":/x")]);
    assert_eq!(refused.unwrap_err().kind, ErrorKind::InvalidParameter);
}

#[test]
fn a_part_of_a_volume_is_mounted_and_no_link_leads_out() {
    let agent = TestAgent::start();
    agent
        .run(
            script("mkdir -p /v/sub/deep; touch /v/sub/here; busybox ln -s / /v/out"),
            mounts(&["parts:/v"]),
        )
        .unwrap();
    let part = |subpath: &str| {
        let mount = serde_json::json!({
            "Type": "volume", "Source": "parts", "Target": "/p",
            "VolumeOptions": {"Subpath": subpath},
        });
        let host = HostConfig {
            mounts: Some(vec![serde_json::from_value(mount).unwrap()]),
            ..HostConfig::default()
        };
        agent.run(command(&["ls", "/p"]), host)
    };
    assert_eq!(part("sub").unwrap().text(), "deep\nhere\n");
    assert!(part("out/etc").is_err());
    assert!(part("nothing").is_err());
}

#[test]
fn backup_and_restore_are_all_or_nothing() {
    let agent = TestAgent::start();
    agent
        .run(
            script(
                "echo precious > /v/file; busybox chown 5:6 /v/file; busybox ln /v/file /v/again",
            ),
            mounts(&["data:/v"]),
        )
        .unwrap();
    let backup = |name: &str| {
        let ((), mut call) = agent.open(VolumeBackup { name: name.into() }).unwrap();
        receive(&mut call).unwrap()
    };
    let restore = |name: &str, archive: &[u8], whole: bool| {
        let ((), call) = agent.open(VolumeRestore { name: name.into() })?;
        send::<()>(call, archive, whole)
    };
    let archive = backup("data");
    assert_eq!(names(&archive), ["./", "again", "file"]);
    restore("copy", &archive, true).unwrap();
    assert_eq!(backup("copy"), archive);
    for (bad, whole) in [
        (&archive[..700], true),
        (&archive[..], false),
        (&tar(&[("good", "x"), ("../../evil", "x")])[..], true),
    ] {
        restore("copy", bad, whole).unwrap_err();
        assert_eq!(backup("copy"), archive);
    }
    let user = agent
        .create(command(&["sleep", "1000"]), mounts(&["copy:/v"]))
        .unwrap();
    agent.start_container(&user).unwrap();
    assert_eq!(
        restore("copy", &archive, true).unwrap_err().kind,
        ErrorKind::Conflict
    );
    agent.call(stop(&user, 0)).unwrap();
    restore("copy", &archive, true).unwrap();
}

#[test]
fn files_are_copied_in_and_out_of_containers_that_run_or_not() {
    let agent = TestAgent::start();
    let id = agent
        .create(
            script("busybox ln -s /v /link; busybox ln -s /../../.. /up; echo ready; sleep 1000"),
            HostConfig {
                tmpfs: Some(HashMap::from([("/fast".into(), String::new())])),
                ..mounts(&["inside:/v", "still:/ro:ro"])
            },
        )
        .unwrap();
    // Before its first start.
    put(&agent, &id, "/v", &tar(&[("before", "early")])).unwrap();
    assert!(put(&agent, &id, "/ro", &tar(&[("x", "")])).is_err());
    let mut attached = agent.attach(&id, false);
    agent.start_container(&id).unwrap();
    attached.read_until("ready");
    put(&agent, &id, "/link", &tar(&[("file", "through a link")])).unwrap();
    put(&agent, &id, "/fast", &tar(&[("memory", "m")])).unwrap();
    put(&agent, &id, "/up", &tar(&[("at-root", "r")])).unwrap();
    assert_eq!(
        names(&get(&agent, &id, "/v").unwrap()),
        ["v/", "v/before", "v/file"]
    );
    assert_eq!(
        names(&get(&agent, &id, "/fast/.").unwrap()),
        ["./", "./memory"]
    );
    assert_eq!(names(&get(&agent, &id, "/at-root").unwrap()), ["at-root"]);
    let stat = agent
        .call(ContainerPathStat {
            container: id.clone(),
            path: "/link".into(),
        })
        .unwrap();
    assert_eq!(stat.link_target, "/v");
    for (path, bad) in [
        ("/tmp", tar(&[("../../../../evil", "x")])),
        ("/etc/passwd", tar(&[("x", "")])),
        ("/nothing", tar(&[("x", "")])),
        ("/", tar(&[("etc", "a file for a folder")])),
    ] {
        assert!(put(&agent, &id, path, &bad).is_err(), "{path}");
    }
    let missing = get(&agent, &id, "/nothing").unwrap_err();
    assert_eq!(
        missing.message,
        format!("Could not find the file /nothing in container {id}")
    );
    agent.call(stop(&id, 0)).unwrap();
    let archive = get(&agent, &id, "/v/file").unwrap();
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
    assert_eq!(text, "through a link");
    assert_eq!(entry.header().uid().unwrap(), 7);
    agent.call(remove(&id, false)).unwrap();
}

#[test]
fn all_of_a_running_container_is_its_files_and_not_the_kernel_s() {
    let agent = TestAgent::start();
    let id = agent
        .create(command(&["sleep", "1000"]), HostConfig::default())
        .unwrap();
    agent.start_container(&id).unwrap();
    let names = names(&get(&agent, &id, "/").unwrap());
    let has = |name: &str| names.iter().any(|found| found.trim_matches('/') == name);
    assert!(has("bin/busybox") && has("proc") && has("sys"), "{names:?}");
    assert!(!has("proc/self") && !has("proc/1") && !has("sys/kernel"));
    agent.call(remove(&id, true)).unwrap();
}

#[test]
fn exports_and_commits_hold_what_the_container_made() {
    let agent = TestAgent::start();
    let id = agent
        .create(
            script(
                "echo new > /made; busybox rm /data.txt; mkdir /v/inside; echo ready; sleep 1000",
            ),
            mounts(&["apart:/v"]),
        )
        .unwrap();
    let mut attached = agent.attach(&id, false);
    agent.start_container(&id).unwrap();
    attached.read_until("ready");
    let export = || {
        let container = id.clone();
        let ((), mut call) = agent.open(ContainerExport { container }).unwrap();
        names(&receive(&mut call).unwrap())
    };
    let commit = || {
        let committed = agent.call(ContainerCommit {
            container: id.clone(),
            pause: true,
        });
        committed.unwrap()
    };
    let running = (export(), commit());
    agent.call(stop(&id, 0)).unwrap();
    assert_eq!((export(), commit()), running);
    let (exported, committed) = running;
    assert!(exported.iter().any(|name| name == "made"));
    assert!(exported.iter().any(|name| name == "bin/busybox"));
    assert!(
        !exported
            .iter()
            .any(|name| name == "data.txt" || name.starts_with("v/i"))
    );
    let layer = committed.layer.unwrap();
    let known = agent.call(LayersMissing {
        diff_ids: vec![layer.diff_id],
    });
    assert_eq!(known.unwrap(), Vec::<String>::new());
    assert_eq!(committed.base_configuration["os"], "linux");
}

#[test]
fn an_archive_becomes_a_layer_or_nothing() {
    let agent = TestAgent::start();
    let import = |bytes: &[u8], whole: bool| {
        let ((), call) = agent.open(LayerImportNew {})?;
        send::<NewLayer>(call, bytes, whole)
    };
    let archive = tar(&[("file", "content")]);
    let layer = import(&archive, true).unwrap();
    assert_eq!(layer.tar_size, archive.len() as u64);
    assert_eq!(import(&archive, true).unwrap(), layer);
    assert!(import(&archive, false).is_err());
    assert!(import(&tar(&[("../../evil", "x")]), true).is_err());
    assert!(import(b"no archive at all", true).is_err());
    let left = std::fs::read_dir(agent.data().join("layers"))
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("tmp-")
        })
        .count();
    assert_eq!(left, 0);
}

#[test]
fn a_host_that_stands_still_holds_no_container_up() {
    let agent = TestAgent::start();
    let container = agent
        .create(
            script("head -c 8000000 /dev/zero > /large"),
            HostConfig::default(),
        )
        .unwrap();
    let ((), mut putting) = agent
        .open(ContainerArchivePut {
            container: container.clone(),
            path: "/".into(),
            keep_folders: true,
            chown: false,
        })
        .unwrap();
    // More than waits on the way: when it is sent, the agent is at it.
    let archive = tar(&[("file", &"x".repeat(8 << 20))]);
    let (half, _) = archive.split_at(archive.len() / 2);
    for chunk in half.chunks(64 * 1024) {
        let length = u32::try_from(chunk.len()).unwrap().to_be_bytes();
        putting.stream.write_all(&length).unwrap();
        putting.stream.write_all(chunk).unwrap();
    }
    agent.start_container(&container).unwrap();
    let error = Result::from(putting.receive::<Reply<()>>()).unwrap_err();
    assert!(error.message.contains("stood still"), "{error}");

    agent
        .wait(&container, WaitCondition::NotRunning)
        .wait_result();
    let (_, getting) = agent
        .open(ContainerArchiveGet {
            container: container.clone(),
            path: "/large".into(),
        })
        .unwrap();
    agent.call(remove(&container, false)).unwrap();
    drop(getting);
}

use std::{
    fs,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
};

use super::*;

fn start(exports: Vec<ExportConfig>) -> Shares {
    let config = SharesConfig {
        transport: ShareTransport::VirtioFs { tag: "x".into() },
        exports,
        changes_port: 1,
    };
    let vsock = VsockConfig {
        cid: 3,
        socket: "/nowhere".into(),
    };
    Shares::start(&config, &vsock, &FileConfinement::new().unwrap()).unwrap()
}

fn names(shares: &Shares) -> Vec<String> {
    match shares.handle.names() {
        Answer::Exports { names } => names,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_missing_is_shared_when_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let export = |name: &str| ExportConfig {
        name: name.to_owned(),
        path: directory.path().join(name),
        read_only: false,
    };
    fs::create_dir(directory.path().join("a")).unwrap();
    let shares = start(vec![export("a"), export("b")]);
    assert_eq!(names(&shares), ["a"]);
    let Answer::Error { message } = shares.handle.add(export("c")) else {
        panic!("it is not there");
    };
    assert!(message.contains("/c: "), "{message}");
    // What was wanted from the start is looked for.
    fs::write(directory.path().join("b"), "").unwrap();
    while names(&shares) != ["a", "b"] {
        thread::sleep(Duration::from_millis(20));
    }
    // What is there already, and something else at its path.
    assert_eq!(shares.handle.add(export("a")), Answer::Done);
    fs::remove_dir(directory.path().join("a")).unwrap();
    fs::write(directory.path().join("a"), "").unwrap();
    assert_eq!(shares.handle.add(export("a")), Answer::Done);
    assert_eq!(names(&shares), ["a", "b"]);
    for name in ["a", "a", "c"] {
        assert_eq!(shares.handle.remove(name.to_owned()), Answer::Done);
    }
    assert_eq!(names(&shares), ["b"]);
}

#[test]
fn a_machine_without_shares_says_so() {
    assert!(matches!(SharesHandle::none().names(), Answer::Error { .. }));
}

#[test]
fn a_confined_thread_makes_files_with_the_mode_that_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let its_path = path.clone();
    thread::spawn(move || {
        FileConfinement::new().unwrap().enter().unwrap();
        fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o666)
            .open(its_path)
            .unwrap();
    })
    .join()
    .unwrap();
    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
}

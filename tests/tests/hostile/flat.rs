//! However much is asked, nothing becomes more.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use tests::{
    api::Connection,
    footprint::{self, Footprint},
    installation::Installation,
};

use super::stage;

#[test]
fn calls_and_execs_leave_nothing() {
    let (stage, _turn) = stage();
    let dctl = &stage.installation;
    let id = stage.sleeper("flat", &[]);
    // What is made once is there.
    footprint::call(dctl, &id, 300).unwrap();
    footprint::exec(dctl, &id, 15).unwrap();
    let before = Footprint::of(dctl).unwrap();
    footprint::call(dctl, &id, 1000).unwrap();
    footprint::exec(dctl, &id, 40).unwrap();
    before.returns(dctl).unwrap();
    dctl.dctl(&["rm", "-f", "flat"]).success();
}

/// Through the machine's own sockets, which close in their own way.
#[test]
fn clients_that_leave_leave_nothing() {
    let (stage, _turn) = stage();
    let dctl = &stage.installation;
    let id = stage.sleeper("left", &[]);
    footprint::exec(dctl, &id, 5).unwrap();
    // What is made once is there.
    leave(dctl, &id);
    let before = Footprint::of(dctl).unwrap();
    for _ in 0..3 {
        leave(dctl, &id);
    }
    before.returns(dctl).unwrap();
    dctl.dctl(&["rm", "-f", "left"]).success();
}

/// Begins all that streams, and goes away in the middle.
fn leave(dctl: &Installation, id: &str) {
    for path in [
        format!("/containers/{id}/logs?follow=1&stdout=1"),
        format!("/containers/{id}/stats"),
        format!("/containers/{id}/export"),
        "/events".to_owned(),
        "/dctl/machine/logs?follow=1".to_owned(),
    ] {
        for _ in 0..5 {
            let mut client = Connection::open(&dctl.socket()).unwrap();
            assert_eq!(client.begin("GET", &path, "").unwrap(), 200, "{path}");
        }
    }
    for _ in 0..5 {
        let client = || Connection::open(&dctl.socket()).unwrap();
        let wait = format!("/containers/{id}/wait");
        assert_eq!(client().begin("POST", &wait, "").unwrap(), 200);
        let attach = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1");
        drop(client().hijack(&attach, "").unwrap());
        let body = r#"{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}"#;
        drop(client().hijack("/dctl/machine/shell", body).unwrap());
        let create = format!("/containers/{id}/exec");
        let created = client()
            .ask("POST", &create, body)
            .unwrap()
            .success()
            .json();
        let start = format!("/exec/{}/start", created["Id"].as_str().unwrap());
        drop(client().hijack(&start, "{}").unwrap());
        for line in [
            format!("PUT /containers/{id}/archive?path=/tmp"),
            "POST /images/load".to_owned(),
            "POST /images/create?fromSrc=-".to_owned(),
            "POST /dctl/volumes/left/restore".to_owned(),
        ] {
            let mut client = UnixStream::connect(dctl.socket()).unwrap();
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            let head = format!("{line} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.write_all(head.as_bytes()).unwrap();
            // It may be refused already.
            let _ = client.write_all(chunk.as_bytes());
        }
    }
}

/// A configuration as large as is taken, again and again: what is kept is what was
/// created, and lists of it are still told.
#[test]
fn large_containers_are_listed() {
    let (stage, _turn) = stage();
    let dctl = &stage.installation;
    let label = "x".repeat(3_000_000);
    let body = format!(
        r#"{{"Image":"{}","Labels":{{"large":"{label}"}}}}"#,
        stage.busybox
    );
    let mut client = Connection::open(&dctl.socket()).unwrap();
    let names: Vec<_> = (0..6).map(|number| format!("large-{number}")).collect();
    for name in &names {
        let create = format!("/containers/create?name={name}");
        client.ask("POST", &create, &body).unwrap().success();
    }
    let start = Instant::now();
    let listed = client.ask("GET", "/containers/json?all=1", "").unwrap();
    assert_eq!(listed.status, 200, "{}", listed.json()["message"]);
    let listed = listed.json();
    for name in &names {
        let name = format!("/{name}");
        let mut all = listed.as_array().unwrap().iter();
        let found = all
            .any(|one| one["Names"][0] == *name && one["Labels"]["large"].as_str() == Some(&label));
        assert!(found, "{name}");
    }
    assert!(start.elapsed() < Duration::from_mins(1));
    for name in &names {
        dctl.dctl(&["rm", name]).success();
    }
}

//! Vite's development server in a container, its source in a folder of this host, and a
//! page in a real browser that reloads itself when a file is saved.

use std::{
    fs,
    net::TcpStream,
    time::{Duration, Instant},
};

use tests::{browser::Browser, command::LONG, installation::wait_until};

use crate::machine::{Folder, Image, Machine, Transport};

const PAGE: &str = r#"<!doctype html>
<body></body>
<script type="module" src="/main.js"></script>
"#;

/// A module that takes no updates: Vite reloads the page instead.
fn module(text: &str) -> String {
    format!("document.body.innerText = {text:?}\n")
}

#[test]
fn a_page_reloads_when_a_file_is_saved() {
    let folder = Folder::new();
    folder.write("index.html", PAGE);
    folder.write("main.js", module("first"));
    let mount = folder.mounted("/src");
    let options = ["-p", "127.0.0.1::5173", "-w", "/src", "-v", &mount];
    let vite = ["vite", "--host", "0.0.0.0", "--strictPort"];
    let container =
        Machine::with(Transport::Virtiofs).container(Image::Development, &options, &vite);
    let port = container.dctl(&["port"]).success().text();
    let address = port.rsplit(' ').next().unwrap();
    wait_until("Vite is ready", LONG, || {
        let logs = container.dctl(&["logs"]).success();
        logs.text().contains("ready in")
    });
    TcpStream::connect(address).unwrap();
    let mut browser = Browser::open(&format!("http://{address}/"));
    browser.wait_for_text("first", LONG);
    // What it hears from then on, it acts on.
    browser.wait_for_console("[vite] connected", LONG);
    browser.evaluate("window.sameAsBefore = true");

    fs::write(folder.path().join("main.js"), module("second")).unwrap();
    let saved = Instant::now();
    browser.wait_for_text("second", LONG);
    let took = saved.elapsed();
    assert!(browser.evaluate("window.sameAsBefore").is_null());
    eprintln!("the page showed what was saved after {took:?}");
    // Software CPUs on busy machines are slow.
    assert!(took < Duration::from_secs(20), "{took:?}");

    // As editors do it: another file in its place.
    browser.wait_for_console("[vite] connected", LONG);
    folder.write("main.js~", module("third"));
    fs::rename(
        folder.path().join("main.js~"),
        folder.path().join("main.js"),
    )
    .unwrap();
    browser.wait_for_text("third", LONG);
}

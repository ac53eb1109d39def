//! Files into and out of containers, and whole file systems.

use super::{
    super::session::{Ask, Session},
    make, remove, shell,
};

pub(super) fn requests(s: &mut Session<'_>) {
    remove(s, &["contract-files"]);
    make(s, "contract-files", shell("archives", "true"));
    let archive = "/containers/contract-files/archive";
    for path in [
        "?path=/etc",
        "?path=/etc/passwd",
        "?path=/etc/",
        "?path=/etc/passwd/",
        "?path=/bin/sh",
        "?path=etc",
        "?path=/contract/nobody",
        "?path=",
        "",
    ] {
        s.head(&format!("{archive}{path}"));
        s.get(&format!("{archive}{path}"));
    }
    s.head("/containers/contract-nobody/archive?path=/etc");
    s.get("/containers/contract-nobody/archive?path=/etc");
    let put = |options: &str, bytes: Vec<u8>| {
        Ask::new("PUT", &format!("{archive}?{options}")).bytes("application/x-tar", bytes)
    };
    s.send(put("path=/tmp", tar(b"content")));
    s.get(&format!("{archive}?path=/tmp/new"));
    s.send(put("path=/tmp&noOverwriteDirNonDir=1", tar(b"content")));
    s.send(put("path=/tmp&copyUIDGID=1", tar(b"content")));
    s.send(put("path=/etc/passwd", tar(b"content")));
    s.send(put("path=/contract/nobody", tar(b"content")));
    s.send(put("path=", tar(b"content")));
    s.send(put("", tar(b"content")));
    s.send(put("path=/tmp", b"no archive at all".to_vec()));
    s.send(put("path=/tmp", Vec::new()));
    s.send(
        Ask::new("PUT", "/containers/contract-nobody/archive?path=/tmp")
            .bytes("application/x-tar", tar(b"x")),
    );
    s.post(&format!("{archive}?path=/tmp"));
    s.get("/containers/contract-files/changes");
    s.send(Ask::new("GET", "/containers/contract-files/export").head_only());
    s.get("/containers/contract-nobody/export");
    s.post("/containers/contract-files/copy");
    remove(s, &["contract-files"]);
}

/// An archive of one file.
pub(super) fn tar(content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive
        .append_data(&mut header, "new", content)
        .and_then(|()| archive.into_inner())
        .expect("memory takes everything")
}

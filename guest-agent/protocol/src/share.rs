//! Files of the host that containers see: what they are called on the way.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The path that stands for the engine's own socket, which containers may mount: no
/// file of the host's, but one of the machine's that leads to [`crate::API_PORT`].
pub const ENGINE_SOCKET: &str = "/var/run/docker.sock";

/// The name of a host path's export: the entry in the shared file system's root. What
/// is mounted read-only is an export of its own, which refuses changes whoever asks.
pub fn export_name(path: &str, read_only: bool) -> String {
    let digest = Sha256::digest(path.as_bytes());
    let mut name = String::with_capacity(35);
    for byte in digest.iter().take(16) {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.push_str(if read_only { "-ro" } else { "-rw" });
    name
}

/// A path in its simplest form, without a look at the file system: no empty, `.` and
/// `..` components, no slash at its end.
pub fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (path, clean) in [
            ("/", "/"),
            ("/a/", "/a"),
            ("//a/./b//..", "/a"),
            ("/../..", "/"),
            ("/a b/\u{e4}", "/a b/\u{e4}"),
        ] {
            assert_eq!(clean_path(path), clean);
        }
    }

    #[test]
    fn names_tell_paths_and_access_apart() {
        let name = export_name("/home/user", false);
        assert_eq!(name.len(), 35);
        assert!(name.ends_with("-rw"));
        assert_ne!(name, export_name("/home/user", true));
        assert_ne!(name, export_name("/home/user2", false));
    }
}

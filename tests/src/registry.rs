//! Debian's registry on a free port of this machine.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    command::{LONG, run},
    installation::wait_until,
};

/// A registry that holds what was pushed to it. Ends with its last test.
#[derive(Debug)]
pub struct Registry {
    server: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// An empty registry.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Self {
        Self::with(None)
    }

    /// An empty registry that lets only `me` with the password `secret` in.
    ///
    /// # Panics
    /// If it does not start.
    pub fn with_login() -> Self {
        // bcrypt of the password: the only kind that the registry reads.
        Self::with(Some(
            "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n",
        ))
    }

    fn with(users: Option<&str>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let login = users.map_or_else(String::new, |users| {
            let file = directory.path().join("htpasswd");
            fs::write(&file, users).expect("a write to a temporary directory");
            format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                file.display()
            )
        });
        let address = free_address();
        let storage = directory.path().join("storage");
        let configuration = directory.path().join("config.yml");
        let yaml = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n{login}",
            storage.display()
        );
        fs::write(&configuration, yaml).expect("a write to a temporary directory");
        // Ends with this process, however that ends: a parent's death is a signal
        // only to those who ask, and the registry does not.
        let server = Command::new("sh")
            .args([
                "-c",
                r#"docker-registry serve "$1" & server=$!; cat > /dev/null; kill "$server""#,
                "registry",
            ])
            .arg(&configuration)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        wait_until("the registry answers", Duration::from_mins(2), || {
            TcpStream::connect(address).is_ok()
        });
        Self {
            server,
            address,
            _directory: directory,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name of `repository` here: `127.0.0.1:5000/busybox`.
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    /// Pushes the OCI image layout in `layout` as `repository`, tag and all.
    ///
    /// # Panics
    /// If that fails.
    pub fn push(&self, layout: &Path, repository: &str) {
        run(
            Command::new("skopeo")
                .args(["copy", "--quiet", "--dest-tls-verify=false"])
                .arg("--insecure-policy")
                .arg(format!("oci:{}", layout.display()))
                .arg(format!("docker://{}", self.name(repository))),
            b"",
            LONG,
        )
        .success();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // The end of its input tells the shell to end the registry.
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

/// An address on which nobody listens.
pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}

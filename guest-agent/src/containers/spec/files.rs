//! The files in `/etc` that the agent makes for a container.

use std::{fmt::Write, fs, io, path::Path};

use guest_protocol::container::Container;

/// Writes `hosts`, `hostname` and `resolv.conf` into the container's `folder`.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn write(container: &Container, folder: &Path) -> io::Result<()> {
    let hostname = super::hostname(container);
    fs::write(folder.join("hosts"), hosts(container, &hostname))?;
    fs::write(folder.join("hostname"), format!("{hostname}\n"))?;
    fs::write(folder.join("resolv.conf"), resolv_conf(container))
}

fn hosts(container: &Container, hostname: &str) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for entry in container.host_config.extra_hosts.iter().flatten() {
        // `name:address`, where the address may hold colons; Compose writes `name=address`.
        if let Some((name, address)) = entry.split_once(['=', ':']) {
            let _ = writeln!(text, "{}\t{name}", address.trim_matches(['[', ']']));
        }
    }
    // The loopback interface is the only one so far: its own name leads there.
    let _ = writeln!(text, "127.0.1.1\t{hostname}");
    text
}

fn resolv_conf(container: &Container) -> String {
    let host = &container.host_config;
    let mut text = String::new();
    for server in host.dns.iter().flatten() {
        let _ = writeln!(text, "nameserver {server}");
    }
    for (keyword, values) in [("search", &host.dns_search), ("options", &host.dns_options)] {
        if let Some(values) = values.as_ref().filter(|values| !values.is_empty()) {
            let _ = writeln!(text, "{keyword} {}", values.join(" "));
        }
    }
    text
}

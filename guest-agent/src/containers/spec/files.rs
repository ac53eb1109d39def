//! The files in `/etc` that the agent makes for a container.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    path::Path,
};

use guest_protocol::container::Container;

/// Writes `hosts`, `hostname` and `resolv.conf` into the container's `folder`,
/// those that are not there, or empty as a power cut leaves a new file; what a
/// container made of them stays.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn write_missing(container: &Container, folder: &Path) -> io::Result<()> {
    let hostname = super::hostname(container);
    for (name, text) in [
        ("hosts", hosts(container, &hostname)),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", resolv_conf(container)),
    ] {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(name))?;
        if file.metadata()?.len() == 0 {
            file.write_all(text.as_bytes())?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_written_once_or_when_a_power_cut_emptied_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut container = Container::default();
        container.config.hostname = Some("first".into());
        let hostname = folder.path().join("hostname");
        for (before, after) in [
            (None, "first\n"),
            (Some("its own\n"), "its own\n"),
            (Some(""), "first\n"),
        ] {
            if let Some(before) = before {
                fs::write(&hostname, before).unwrap();
            }
            write_missing(&container, folder.path()).unwrap();
            assert_eq!(fs::read_to_string(&hostname).unwrap(), after);
        }
    }
}

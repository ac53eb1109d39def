//! The files in `/etc` that the agent makes for a container.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use guest_protocol::{container::Container, network::HOST_IPV4};

use super::links::Linked;
use crate::networks::dns;

/// What stands for the host's address in `--add-host`.
const HOST_GATEWAY: &str = "host-gateway";

/// Where a container without an address finds itself, as Debian has it.
const OWN_LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));

/// Writes `hosts`, `hostname` and `resolv.conf` into the container's `folder`,
/// those that are not there, or empty as a power cut leaves a new file; what a
/// container made of them stays.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn write_missing(container: &Container, folder: &Path) -> io::Result<()> {
    let hostname = super::hostname(container);
    for (name, text) in [
        ("hosts", hosts(container, &[], &[])),
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

/// Writes the container's `hosts` anew: it changes with its networks. The file stays
/// the same, since it is mounted into the container.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_hosts(
    container: &Container,
    folder: &Path,
    addresses: &[IpAddr],
    linked: &[Linked],
) -> io::Result<()> {
    std::fs::write(folder.join("hosts"), hosts(container, addresses, linked))
}

fn hosts(container: &Container, addresses: &[IpAddr], linked: &[Linked]) -> String {
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
            let address = address.trim_matches(['[', ']']);
            let _ = match address {
                HOST_GATEWAY => writeln!(text, "{HOST_IPV4}\t{name}"),
                address => writeln!(text, "{address}\t{name}"),
            };
        }
    }
    for link in linked {
        let _ = writeln!(text, "{}\t{}", link.address, link.names.join(" "));
    }
    let hostname = super::hostname(container);
    let domain = container.config.domainname.as_deref().unwrap_or_default();
    let own = if domain.is_empty() {
        hostname
    } else {
        format!("{hostname}.{domain} {hostname}")
    };
    let addresses = if addresses.is_empty() {
        &[OWN_LOOPBACK]
    } else {
        addresses
    };
    for address in addresses {
        let _ = writeln!(text, "{address}\t{own}");
    }
    text
}

fn resolv_conf(container: &Container) -> String {
    let host = &container.host_config;
    let list = |values: &Option<Vec<String>>| values.clone().unwrap_or_default();
    let mut text = String::new();
    let mut servers = vec![dns::ADDRESS.to_string()];
    // Elsewhere the name server asks those that the user gave.
    if host.network_mode.as_deref() == Some("host") && !list(&host.dns).is_empty() {
        servers = list(&host.dns);
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    let mut search = list(&host.dns_search);
    // A dot stands for none at all.
    search.retain(|domain| domain != ".");
    let mut options = list(&host.dns_options);
    if options.is_empty() {
        // The name server knows names without a dot.
        options.push("ndots:0".to_owned());
    }
    for (keyword, values) in [("search", search), ("options", options)] {
        if !values.is_empty() {
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

//! Names and addresses: hosts, name servers, networks, links.

use std::{collections::HashMap, net::IpAddr};

/// `name:address` or `name=address`; `host-gateway` stands for the host's address.
pub(crate) fn extra_host(text: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: \"{text}\"");
    let (name, address) = text.split_once(['=', ':']).ok_or_else(bad)?;
    if name.is_empty() {
        return Err(bad());
    }
    let address = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: \"{address}\""));
    }
    Ok(format!("{name}:{address}"))
}

/// An IP address.
pub(crate) fn address(text: &str) -> Result<String, String> {
    text.trim()
        .parse::<IpAddr>()
        .map(|address| address.to_string())
        .map_err(|_| format!("{text} is not an ip address"))
}

/// A domain in which names are looked up; `.` for none.
pub(crate) fn search_domain(text: &str) -> Result<String, String> {
    let domain = text.trim();
    if domain == "." {
        return Ok(domain.to_owned());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .chars()
                .all(|next| next.is_ascii_alphanumeric() || next == '-' || next == '_')
    };
    let valid = domain.len() < 255
        && domain.trim_end_matches('.').split('.').all(label)
        && domain.chars().any(|next| next.is_ascii_alphabetic());
    if valid {
        return Ok(domain.to_owned());
    }
    Err(format!("{text} is not a valid domain"))
}

/// A hardware address in the usual notation, `92:d0:c6:0a:29:33`.
pub(crate) fn mac_address(text: &str) -> Result<String, String> {
    let octets: Vec<&str> = text.trim().split([':', '-']).collect();
    let octet = |octet: &&str| octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit());
    if octets.len() == 6 && octets.iter().all(octet) {
        return Ok(text.trim().to_owned());
    }
    Err(format!("{text} is not a valid mac address"))
}

/// `container[:alias]`.
pub(crate) fn link(text: &str) -> Result<String, String> {
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    if name.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(format!("bad format for links: {text}"));
    }
    Ok(text.to_owned())
}

/// One `--network`: a name or mode, or `name=…,alias=…,ip=…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Network {
    /// Its name, or a mode such as `host`.
    pub(crate) name: String,
    /// Further names of the container in it.
    pub(crate) aliases: Vec<String>,
    /// The container's addresses in it.
    pub(crate) ipv4: Option<String>,
    pub(crate) ipv6: Option<String>,
    pub(crate) link_local: Vec<String>,
    pub(crate) mac_address: Option<String>,
    /// Options for the network's driver.
    pub(crate) driver_options: HashMap<String, String>,
    /// Which of several networks is the way out: the highest.
    pub(crate) gateway_priority: Option<i64>,
}

/// See [`Network`].
pub(crate) fn network(text: &str) -> Result<Network, String> {
    let mut network = Network::default();
    // `container:name` and plain names have no fields.
    if !text.contains('=') {
        text.clone_into(&mut network.name);
        return Ok(network);
    }
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field {field}"))?;
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => value.clone_into(&mut network.name),
            "alias" => network.aliases.push(value.to_owned()),
            "ip" => network.ipv4 = Some(address(value)?),
            "ip6" => network.ipv6 = Some(address(value)?),
            "link-local-ip" => network.link_local.push(address(value)?),
            "mac-address" => network.mac_address = Some(mac_address(value)?),
            "driver-opt" => {
                let (name, value) = value.split_once('=').ok_or_else(|| {
                    format!("invalid key value pair format in driver options: {value}")
                })?;
                network
                    .driver_options
                    .insert(name.to_owned(), value.to_owned());
            }
            "gw-priority" => {
                network.gateway_priority = Some(
                    value
                        .parse()
                        .map_err(|_| format!("invalid gw-priority: {value}"))?,
                );
            }
            key => return Err(format!("invalid field key {key}")),
        }
    }
    if network.name.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_addresses() {
        assert_eq!(extra_host("a:1.2.3.4").unwrap(), "a:1.2.3.4");
        assert_eq!(extra_host("a=[::1]").unwrap(), "a:::1");
        assert_eq!(extra_host("a:host-gateway").unwrap(), "a:host-gateway");
        assert_eq!(
            extra_host("a").unwrap_err(),
            "bad format for add-host: \"a\""
        );
        assert_eq!(
            extra_host("a:b").unwrap_err(),
            "invalid IP address in add-host: \"b\""
        );
        assert_eq!(address("x").unwrap_err(), "x is not an ip address");
        assert!(mac_address("92:d0:c6:0a:29:33").is_ok());
        assert!(mac_address("92:d0").is_err());
        assert!(link("db:database").is_ok() && link("db").is_ok());
        assert!(link("a:b:c").is_err() && link(":b").is_err());
    }

    #[test]
    fn search_domains() {
        for text in [".", "example.com", "a_b.example", "local."] {
            assert!(search_domain(text).is_ok(), "{text}");
        }
        for text in ["", "1.2", "a..b", "a b"] {
            assert!(search_domain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_with_fields() {
        assert_eq!(network("container:x").unwrap().name, "container:x");
        let full =
            network("name=n,alias=a,alias=b,ip=1.2.3.4,driver-opt=k=v,gw-priority=7").unwrap();
        assert_eq!((full.name.as_str(), full.aliases.len()), ("n", 2));
        assert_eq!(full.ipv4.as_deref(), Some("1.2.3.4"));
        assert_eq!(full.driver_options["k"], "v");
        assert_eq!(full.gateway_priority, Some(7));
        assert!(network("alias=a").is_err());
        assert!(network("name=n,foo=1").is_err());
    }
}

//! Published and exposed ports: `[[ip:]port:]port[/protocol]`, ranges of them, and
//! the long form `published=…,target=…`.

use std::net::IpAddr;

use bollard_stubs::models::PortBinding;

/// Ports of a container as the API names them (`80/tcp`), each with the port of the
/// host that leads there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Published(pub(crate) Vec<(String, PortBinding)>);

/// Ports of a container as the API names them: `80/tcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exposed(pub(crate) Vec<String>);

/// `--publish`.
pub(crate) fn publish(text: &str) -> Result<Published, String> {
    if text.contains('=') {
        return publish_short(&short_form(text)?);
    }
    publish_short(text)
}

/// `--expose`: `port[-port][/protocol]`.
pub(crate) fn expose(text: &str) -> Result<Exposed, String> {
    if text.contains(':') {
        return Err(format!("invalid port format for --expose: {text}"));
    }
    let (ports, protocol) = split_protocol(text)?;
    let (first, last) = range(ports)
        .ok_or_else(|| format!("invalid range format for --expose: {text}: invalid port"))?;
    Ok(Exposed(
        (first..=last)
            .map(|port| format!("{port}/{protocol}"))
            .collect(),
    ))
}

fn publish_short(text: &str) -> Result<Published, String> {
    let (rest, container) = text.rsplit_once(':').unwrap_or(("", text));
    let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (container, protocol) = split_protocol(container)?;
    let address = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let (first, last) =
        range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    let hosts = if host.is_empty() {
        None
    } else {
        Some(range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?)
    };
    let same_length = hosts.is_none_or(|(low, high)| high - low == last - first);
    if !same_length && first != last {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    let published = (first..=last).map(|port| {
        let host_port = match hosts {
            None => String::new(),
            Some((low, _)) if same_length => (low + (port - first)).to_string(),
            // One port of the range, whichever is free.
            Some((low, high)) => format!("{low}-{high}"),
        };
        let binding = PortBinding {
            host_ip: Some(address.to_owned()),
            host_port: Some(host_port),
        };
        (format!("{port}/{protocol}"), binding)
    });
    Ok(Published(published.collect()))
}

/// `published=8080,target=80,protocol=tcp` as `8080:80/tcp`.
fn short_form(text: &str) -> Result<String, String> {
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            Some(("mode", _)) => {}
            _ => {
                return Err(format!(
                    "invalid port format (should be key=value): {field}"
                ));
            }
        }
    }
    if target.is_empty() {
        return Err(format!("invalid port format, no target port: {text}"));
    }
    Ok(if published.is_empty() {
        format!("{target}/{protocol}")
    } else {
        format!("{published}:{target}/{protocol}")
    })
}

fn split_protocol(text: &str) -> Result<(&str, String), String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if ["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Ok((ports, protocol));
    }
    Err(format!("invalid proto: {protocol}"))
}

/// `80` or `80-90`, in order.
fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn published(text: &str) -> Vec<(String, String, String)> {
        publish(text)
            .unwrap()
            .0
            .into_iter()
            .map(|(port, binding)| (port, binding.host_ip.unwrap(), binding.host_port.unwrap()))
            .collect()
    }

    fn one(port: &str, address: &str, host: &str) -> Vec<(String, String, String)> {
        vec![(port.to_owned(), address.to_owned(), host.to_owned())]
    }

    #[test]
    fn every_form_of_a_published_port() {
        assert_eq!(published("80"), one("80/tcp", "", ""));
        assert_eq!(published("8080:80/UDP"), one("80/udp", "", "8080"));
        assert_eq!(
            published("127.0.0.1:8080:80"),
            one("80/tcp", "127.0.0.1", "8080")
        );
        assert_eq!(published("127.0.0.1::80"), one("80/tcp", "127.0.0.1", ""));
        assert_eq!(published("[::1]:8080:80"), one("80/tcp", "::1", "8080"));
        assert_eq!(published("::1:8080:80/sctp"), one("80/sctp", "::1", "8080"));
        assert_eq!(published("8000-8010:80"), one("80/tcp", "", "8000-8010"));
        assert_eq!(
            published("published=8080,target=80,protocol=udp,mode=host"),
            one("80/udp", "", "8080")
        );
        let range = published("8000-8001:80-81");
        assert_eq!(range.len(), 2);
        assert_eq!(range[1], ("81/tcp".into(), String::new(), "8001".into()));
    }

    #[test]
    fn bad_ports_are_explained_as_docker_does() {
        for (text, message) in [
            ("", "no port specified: <empty>"),
            ("80:", "no port specified: 80:<empty>"),
            ("x:80", "invalid hostPort: x"),
            ("80:x", "invalid containerPort: x"),
            ("70000", "invalid containerPort: 70000"),
            ("80/foo", "invalid proto: foo"),
            ("nowhere:80:80", "invalid IP address: nowhere"),
            (
                "1-2:3-9",
                "invalid ranges specified for container and host Ports: 3-9 and 1-2",
            ),
            ("9-8", "invalid containerPort: 9-8"),
        ] {
            assert_eq!(publish(text).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn exposed_ports_have_no_host() {
        assert_eq!(expose("80-81/udp").unwrap().0, ["80/udp", "81/udp"]);
        assert_eq!(
            expose("80:80").unwrap_err(),
            "invalid port format for --expose: 80:80"
        );
        assert!(expose("x").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[0-9a-z:/.\\-=,\\[\\]]{0,24}") {
            let _ = publish(&text);
            let _ = expose(&text);
        }
    }
}

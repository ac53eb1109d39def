//! The column `PORTS`, as Docker writes it: neighbours as ranges.

use serde::Deserialize;

/// A port of a container; where it is on the host, if it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub(super) struct Port {
    #[serde(rename = "PrivatePort")]
    private: u16,
    #[serde(rename = "PublicPort")]
    public: Option<u16>,
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "IP")]
    address: String,
}

impl Port {
    /// Whether `next` goes on a range that begins with this and is `length` long.
    fn goes_on(&self, length: u16, next: &Self) -> bool {
        let follows = |first: u16, second: u16| first.checked_add(length) == Some(second);
        let public = match (self.public, next.public) {
            (None, None) => true,
            // Docker shows ranges of equal ports, and other ones by themselves.
            (Some(first), Some(second)) => {
                first == self.private && second == next.private && follows(first, second)
            }
            _ => false,
        };
        public
            && follows(self.private, next.private)
            && self.kind == next.kind
            && self.address == next.address
    }

    fn text(&self, length: u16) -> String {
        let range = |first: u16| match length {
            1 => first.to_string(),
            _ => format!("{first}-{}", first.saturating_add(length - 1)),
        };
        let inside = format!("{}/{}", range(self.private), self.kind);
        match self.public {
            None => inside,
            Some(public) if self.address.contains(':') => {
                format!("[{}]:{}->{inside}", self.address, range(public))
            }
            Some(public) => format!("{}:{}->{inside}", self.address, range(public)),
        }
    }
}

/// All of a container's ports on one line.
pub(super) fn column(ports: &[Port]) -> String {
    let mut ports = ports.to_vec();
    // Ranges of one address together, in the order in which Docker shows them.
    ports.sort_by(|one, other| {
        let key = |port: &Port| {
            (
                port.public.is_some(),
                port.kind.clone(),
                port.address.clone(),
                port.private,
                port.public,
            )
        };
        key(one).cmp(&key(other))
    });
    let mut texts: Vec<(u16, String, bool, String)> = Vec::new();
    let mut rest = &ports[..];
    while let Some((first, after)) = rest.split_first() {
        let mut length = 1_u16;
        let mut left = after;
        while let Some((next, after)) = left.split_first() {
            if !first.goes_on(length, next) {
                break;
            }
            length += 1;
            left = after;
        }
        texts.push((
            first.private,
            first.kind.clone(),
            first.public.is_some(),
            first.text(length),
        ));
        rest = left;
    }
    texts.sort_by(|one, other| (one.0, &one.1, one.2).cmp(&(other.0, &other.1, other.2)));
    let texts: Vec<_> = texts.into_iter().map(|(.., text)| text).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(ports: serde_json::Value) -> String {
        let ports: Vec<Port> = serde_json::from_value(ports).unwrap();
        column(&ports)
    }

    #[test]
    fn ports_are_on_one_line() {
        let ports = json!([
            {"PrivatePort": 443, "Type": "tcp"},
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        ]);
        assert_eq!(
            text(ports),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 443/tcp"
        );
        assert_eq!(text(json!([])), "");
    }

    #[test]
    fn neighbours_are_ranges() {
        let mut ports = Vec::new();
        for port in 8000..8003 {
            for address in ["0.0.0.0", "::"] {
                ports.push(
                    json!({"IP": address, "PrivatePort": port, "PublicPort": port, "Type": "tcp"}),
                );
            }
        }
        ports.push(json!({"PrivatePort": 53, "Type": "udp"}));
        ports.push(json!({"PrivatePort": 54, "Type": "udp"}));
        ports
            .push(json!({"IP": "127.0.0.1", "PrivatePort": 81, "PublicPort": 9001, "Type": "tcp"}));
        ports
            .push(json!({"IP": "127.0.0.1", "PrivatePort": 82, "PublicPort": 9002, "Type": "tcp"}));
        assert_eq!(
            text(json!(ports)),
            "53-54/udp, 127.0.0.1:9001->81/tcp, 127.0.0.1:9002->82/tcp, \
             0.0.0.0:8000-8002->8000-8002/tcp, [::]:8000-8002->8000-8002/tcp"
        );
        let last = json!([{"PrivatePort": 65535, "Type": "tcp"}]);
        assert_eq!(text(last), "65535/tcp");
    }
}

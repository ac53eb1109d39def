//! The `WWW-Authenticate` header of a registry's 401 (RFC 9110, section 11.6.1).

use std::collections::HashMap;

/// How a registry wants to be authenticated against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With user name and password on every request.
    Basic,
    /// With a token from another server.
    Bearer {
        /// Where tokens are given.
        realm: String,
        /// For whom the token is.
        service: Option<String>,
        /// What the token permits.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads one header, which may hold several challenges; Bearer is preferred.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let mut found = None;
        for (scheme, mut parameters) in challenges(header) {
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = parameters.remove("realm") {
                    return Some(Self::Bearer {
                        realm,
                        service: parameters.remove("service"),
                        scope: parameters.remove("scope"),
                    });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                found = Some(Self::Basic);
            }
        }
        found
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// Schemes with their parameters, names in lower case. What is malformed ends
/// the list.
fn challenges(header: &str) -> Vec<(String, HashMap<String, String>)> {
    let mut list: Vec<(String, HashMap<String, String>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = take_token(rest);
        if word.is_empty() {
            break;
        }
        let after = after.trim_start_matches([' ', '\t']);
        let Some(value) = after.strip_prefix('=') else {
            list.push((word.to_owned(), HashMap::new()));
            rest = after.trim_start_matches([' ', '\t', ',']);
            continue;
        };
        let value = take_value(value.trim_start_matches([' ', '\t']));
        let (Some((value, after)), Some((_, parameters))) = (value, list.last_mut()) else {
            break;
        };
        parameters.insert(word.to_ascii_lowercase(), value);
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    list
}

fn take_token(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

/// A token or a quoted string.
fn take_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = take_token(text);
        return Some((token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((i, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[i + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn registries_challenges_are_read() {
        assert_eq!(
            Challenge::parse(
                r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#
            ),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("registry.example".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(
            Challenge::parse(r#"Basic realm="a \"quoted\" realm""#),
            Some(Challenge::Basic)
        );
        assert_eq!(
            Challenge::parse(r#"Basic realm="x", bearer  realm = "https://t" "#),
            Some(Challenge::Bearer {
                realm: "https://t".into(),
                service: None,
                scope: None,
            })
        );
        assert_eq!(Challenge::parse("Bearer service=x"), None);
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse(""), None);
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(text in ".{0,200}") {
            let _ = Challenge::parse(&text);
        }

        #[test]
        fn quoting_is_undone(realm in "[ -~]{1,60}") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let read = Challenge::parse(&format!("Bearer a=b, realm=\"{quoted}\""));
            prop_assert_eq!(
                read,
                Some(Challenge::Bearer { realm, service: None, scope: None })
            );
        }
    }
}

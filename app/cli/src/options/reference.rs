//! Names of images, as far as a client must know: the engine has the last word.
//! The grammar is that of `distribution/reference`.

/// An image's name: repository, and tag or digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// As the user wrote it, such as `busybox` or `localhost:5000/a/b`.
    pub(crate) repository: String,
    /// `latest` unless there is a tag or a digest.
    pub(crate) tag: Option<String>,
    /// `sha256:…`.
    pub(crate) digest: Option<String>,
}

impl Reference {
    /// Parses what a user wrote.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; before it, a port.
        let name_at = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match rest[name_at..].rfind(':') {
            Some(colon) => (&rest[..name_at + colon], Some(&rest[name_at + colon + 1..])),
            None => (rest, None),
        };
        let invalid = || "invalid reference format".to_owned();
        let (domain, path) = split_domain(repository);
        if path.chars().any(char::is_uppercase) {
            return Err(format!(
                "invalid reference format: repository name ({}) must be lowercase",
                if domain.is_none() && !path.contains('/') {
                    format!("library/{path}")
                } else {
                    path.to_owned()
                }
            ));
        }
        if !path.split('/').all(is_component) || !domain.is_none_or(is_domain) {
            return Err(invalid());
        }
        if !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest) {
            return Err(invalid());
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        Ok(Self {
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// Whether there is neither tag nor digest in what the user wrote.
    pub(crate) fn is_name_only(text: &str) -> bool {
        let name_at = text.rfind('/').map_or(0, |slash| slash + 1);
        !text.contains('@') && !text[name_at..].contains(':')
    }

    /// With registry and tag: `docker.io/library/busybox:latest`.
    pub(crate) fn canonical(&self) -> String {
        let repository = match split_domain(&self.repository) {
            (Some(_), _) => self.repository.clone(),
            (None, path) if path.contains('/') => format!("docker.io/{path}"),
            (None, path) => format!("docker.io/library/{path}"),
        };
        format!("{repository}{}", self.suffix())
    }

    /// As a user would write it, with tag: `busybox:latest`.
    pub(crate) fn familiar(&self) -> String {
        let repository = self
            .repository
            .strip_prefix("docker.io/library/")
            .or_else(|| self.repository.strip_prefix("docker.io/"))
            .unwrap_or(&self.repository);
        format!("{repository}{}", self.suffix())
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}"));
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}"));
        tag.unwrap_or_default() + &digest.unwrap_or_default()
    }
}

/// The registry, if the first component names one, and the rest.
fn split_domain(repository: &str) -> (Option<&str>, &str) {
    match repository.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (Some(first), rest)
        }
        _ => (None, repository),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) => {
                if !host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                    return false;
                }
                (host, port.strip_prefix(':'))
            }
            None => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let host_is_fine = domain.starts_with('[')
        || host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        });
    let port_is_fine =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    host_is_fine && port_is_fine
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().copied().is_some_and(is_alphanumeric)
        && bytes.last().copied().is_some_and(is_alphanumeric);
    ends && component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

/// `[\w][\w.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && !tag.starts_with(['.', '-'])
        && !tag.is_empty()
        && tag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// An algorithm and at least 32 hex digits.
fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
            && algorithm
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+._-".contains(&byte))
            && hex.len() >= 32
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_completed() {
        for (text, canonical, familiar) in [
            (
                "busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("a/b:1", "docker.io/a/b:1", "a/b:1"),
            (
                "docker.io/library/x",
                "docker.io/library/x:latest",
                "x:latest",
            ),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost:5000/a/b:v1",
                "localhost:5000/a/b:v1",
                "localhost:5000/a/b:v1",
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.canonical(), canonical);
            assert_eq!(reference.familiar(), familiar);
        }
        let digested = Reference::parse(&format!("x@{DIGEST}")).unwrap();
        assert_eq!(digested.tag, None);
        assert_eq!(digested.familiar(), format!("x@{DIGEST}"));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(
            Reference::parse("BAD").unwrap_err(),
            "invalid reference format: repository name (library/BAD) must be lowercase"
        );
        for text in [
            "",
            ":",
            "a:",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a..b",
            "a___b",
            "a@sha256:12",
            "a b",
            "a:b c",
            "x:5000", // fine: a tag
        ] {
            assert_eq!(Reference::parse(text).is_ok(), text == "x:5000", "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_stable(text in "[a-z0-9./:@_-]{0,30}") {
            if let Ok(reference) = Reference::parse(&text) {
                let again = Reference::parse(&reference.canonical()).unwrap();
                prop_assert_eq!(again.canonical(), reference.canonical());
                prop_assert_eq!(again.familiar(), reference.familiar());
            }
        }

        #[test]
        fn anything_is_parsed_or_refused(text in any::<String>()) {
            let _ = Reference::parse(&text);
        }
    }
}

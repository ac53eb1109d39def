//! Names of images: Docker's normal form and its familiar one.
//!
//! `busybox` is short for `docker.io/library/busybox:latest`. The store keeps
//! names in full and shows them in familiar form.
//!
//! Source: the grammar at the head of github.com/distribution/reference.

use std::fmt;

/// The registry that a name without one means.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Another name of it, from its beginnings.
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
/// Where its images without a namespace are.
const OFFICIAL_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// The longest repository name, in bytes.
const MAX_REPOSITORY: usize = 255;
/// The longest tag, in bytes.
const MAX_TAG: usize = 128;

/// A name of an image, in full.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Reference {
    /// Registry and path: `docker.io/library/busybox`.
    repository: String,
    version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Version {
    Tag(String),
    Digest(String),
}

/// Why a text is no name of an image, in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name must be lowercase")]
    Uppercase,
    #[error("repository name must not be more than {MAX_REPOSITORY} characters")]
    TooLong,
}

impl Reference {
    /// Reads a name in familiar form or in full. Without tag and digest it means
    /// `latest`; with both the digest counts.
    pub(super) fn parse(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) || digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(ReferenceError::Format);
        }
        // An id is no name: it would be ambiguous.
        if is_hex(name, 64) {
            return Err(ReferenceError::Format);
        }
        let repository = full_repository(name)?;
        let version = match (tag, digest) {
            (_, Some(digest)) => Version::Digest(digest.to_owned()),
            (tag, None) => Version::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
        };
        Ok(Self {
            repository,
            version,
        })
    }

    /// The name as users write it: `busybox:latest`.
    pub(super) fn familiar(&self) -> String {
        let repository = self
            .repository
            .strip_prefix(DEFAULT_DOMAIN)
            .and_then(|rest| rest.strip_prefix('/'))
            .map_or(self.repository.as_str(), |path| {
                path.strip_prefix(OFFICIAL_NAMESPACE)
                    .filter(|name| !name.contains('/'))
                    .unwrap_or(path)
            });
        let short = match &self.version {
            Version::Tag(tag) => format!("{repository}:{tag}"),
            Version::Digest(digest) => format!("{repository}@{digest}"),
        };
        // A namespace that looks like a registry cannot stand in front.
        if Self::parse(&short).as_ref() == Ok(self) {
            short
        } else {
            self.to_string()
        }
    }

    /// Registry and path.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// Whether it names an image by digest.
    pub(super) fn is_digest(&self) -> bool {
        matches!(self.version, Version::Digest(_))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(formatter, "{}:{tag}", self.repository),
            Version::Digest(digest) => write!(formatter, "{}@{digest}", self.repository),
        }
    }
}

/// Whether `text` is `sha256:` and 64 lower-case hex digits.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| is_hex(hex, 64))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty()
        && text.len() <= MAX_TAG
        && text
            .bytes()
            .enumerate()
            .all(|(index, byte)| word(byte) || (index > 0 && matches!(byte, b'.' | b'-')))
}

fn full_repository(name: &str) -> Result<String, ReferenceError> {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.contains(|letter: char| letter.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == LEGACY_DEFAULT_DOMAIN {
        DEFAULT_DOMAIN
    } else {
        domain
    };
    if !is_domain(domain) {
        return Err(ReferenceError::Format);
    }
    if !path.split('/').all(is_path_component) {
        return Err(if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            ReferenceError::Uppercase
        } else {
            ReferenceError::Format
        });
    }
    let namespace = if domain == DEFAULT_DOMAIN && !path.contains('/') {
        OFFICIAL_NAMESPACE
    } else {
        ""
    };
    let repository = format!("{domain}/{namespace}{path}");
    if repository.len() > MAX_REPOSITORY {
        return Err(ReferenceError::TooLong);
    }
    Ok(repository)
}

/// A host name or address, with or without a port.
fn is_domain(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        let is_address = !address.is_empty()
            && address
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lower-case letters and digits, with single separators (`.`, `_`, `__` or any
/// number of `-`) between them.
fn is_path_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separator = String::new();
    let mut after_word = false;
    for letter in text.chars() {
        if letter.is_ascii() && word(letter as u8) {
            let allowed = matches!(separator.as_str(), "" | "." | "_" | "__")
                || separator.bytes().all(|byte| byte == b'-');
            if !allowed || (!separator.is_empty() && !after_word) {
                return false;
            }
            separator.clear();
            after_word = true;
        } else {
            separator.push(letter);
        }
    }
    after_word && separator.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn full(text: &str) -> String {
        Reference::parse(text).unwrap().to_string()
    }

    fn familiar(text: &str) -> String {
        Reference::parse(text).unwrap().familiar()
    }

    #[test]
    fn names_are_completed_and_shortened() {
        for (text, in_full, short) in [
            (
                "busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            (
                "index.docker.io/library/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "127.0.0.1:5000/a/b:v1",
                "127.0.0.1:5000/a/b:v1",
                "127.0.0.1:5000/a/b:v1",
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            (
                "docker.io/a.b/x",
                "docker.io/a.b/x:latest",
                "docker.io/a.b/x:latest",
            ),
            (
                "library/library/x",
                "docker.io/library/library/x:latest",
                "library/library/x:latest",
            ),
        ] {
            assert_eq!(full(text), in_full);
            assert_eq!(familiar(text), short);
        }
        assert_eq!(
            familiar(&format!("busybox:1@{DIGEST}")),
            format!("busybox@{DIGEST}")
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let id = "0123456789abcdef".repeat(4);
        let long = "a".repeat(256);
        for text in [
            "",
            "a b",
            "/a",
            "a/",
            "a//b",
            "a:",
            "a:-x",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a@sha256:1",
            "a@",
            "host.x:port/a",
            "ä",
            id.as_str(),
            long.as_str(),
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
        assert_eq!(Reference::parse("Busybox"), Err(ReferenceError::Uppercase));
        for text in ["a__b", "a---b", "a.b_c", "a:X_1.2-3"] {
            assert!(Reference::parse(text).is_ok(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_familiar_form_means_the_same(
            text in "((localhost|[a-z]{1,5}\\.[a-z]{2}(:[0-9]{1,4})?)/)?[a-z0-9]{1,5}([_-][a-z0-9]{1,3}){0,2}(/[a-z]{1,5}){0,2}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9})?"
        ) {
            let reference = Reference::parse(&text).unwrap();
            prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = Reference::parse(&text);
        }
    }
}

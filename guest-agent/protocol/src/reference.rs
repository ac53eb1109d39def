//! Names of images: Docker's reference grammar and its familiar short forms.
//!
//! The grammar is that of `distribution/reference`: an optional registry host,
//! a path of lower-case components, and a tag or a digest. Command line, engine
//! and agent all read names with this.

use std::fmt;

/// The registry of names that do not give one.
const DEFAULT_DOMAIN: &str = "docker.io";
/// The path of the default registry's own images.
const OFFICIAL_PREFIX: &str = "library/";
/// The longest name, host included.
const MAX_NAME: usize = 255;

/// Why a text is no image name; Docker's words, which clients match on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// Its repository has capital letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// It is too long.
    #[error("repository name must not be more than {MAX_NAME} characters")]
    TooLong,
    /// It would be taken for an image's id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
}

/// An image's name, whole: registry host, path, and tag or digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Reads a name as a user writes it. Without tag and digest it has neither;
    /// see [`Reference::or_latest`].
    ///
    /// # Errors
    /// A [`ReferenceError`] when `text` is no name.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if is_hex(text, 64) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(ReferenceError::Format),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        let (domain, path) = split_domain(name);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase(path));
        }
        if !is_domain(&domain) || !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self {
            domain,
            path,
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// The same with the tag `latest` if it has neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The same repository with another tag or, when `version` is one, digest.
    ///
    /// # Errors
    /// [`ReferenceError::Format`] when `version` is neither.
    pub fn with_version(mut self, version: &str) -> Result<Self, ReferenceError> {
        if is_digest(version) {
            self.digest = Some(version.to_owned());
            self.tag = None;
        } else if is_tag(version) {
            self.tag = Some(version.to_owned());
            self.digest = None;
        } else {
            return Err(ReferenceError::Format);
        }
        Ok(self)
    }

    /// The registry's host as it appears in names and credentials.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's path within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Registry host and path: `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The whole name, nothing left out: `docker.io/library/busybox:latest`.
    pub fn in_full(&self) -> String {
        let separator = if self.digest.is_some() { '@' } else { ':' };
        format!("{}{separator}{}", self.repository(), self.version())
    }

    /// The tag, if it has one and no digest that would override it.
    pub fn tag(&self) -> Option<&str> {
        if self.digest.is_some() {
            return None;
        }
        self.tag.as_deref()
    }

    /// The digest, if it has one.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What the registry is asked for: the digest, the tag, or `latest`.
    pub fn version(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }

    /// The name in its short form, without tag and digest.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        let short = match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(official) if !official.contains('/') => official,
            _ => &self.path,
        };
        // A namespace that looks like a registry cannot stand in front.
        if split_domain(short) == (self.domain.clone(), self.path.clone()) {
            short.to_owned()
        } else {
            self.repository()
        }
    }

    /// The name in its short form with `digest`: `busybox@sha256:…`.
    pub fn familiar_with_digest(&self, digest: &str) -> String {
        format!("{}@{digest}", self.familiar_name())
    }
}

/// The short form, as users write it and the agent stores it.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar_name())?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    if domain == DEFAULT_DOMAIN || domain == "index.docker.io" {
        let path = if path.contains('/') {
            path.to_owned()
        } else {
            format!("{OFFICIAL_PREFIX}{path}")
        };
        return (DEFAULT_DOMAIN.to_owned(), path);
    }
    (domain.to_owned(), path.to_owned())
}

/// A host name, IPv4 address or bracketed IPv6 address, with an optional port.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port))
                if !address.is_empty()
                    && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':') =>
            {
                (
                    "ipv6",
                    port.strip_prefix(':').or(port.is_empty().then_some("0")),
                )
            }
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("0")),
        },
    };
    port.is_some_and(|port| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit()))
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_path_component(text: &str) -> bool {
    let mut separator = "";
    let mut start = 0;
    let bytes = text.as_bytes();
    for (i, byte) in bytes.iter().enumerate() {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() {
            let dashes = separator.chars().all(|c| c == '-');
            if !(separator.is_empty() || dashes || matches!(separator, "." | "_" | "__")) {
                return false;
            }
            separator = "";
            start = i + 1;
        } else if matches!(byte, b'.' | b'_' | b'-') {
            if start == 0 {
                return false;
            }
            separator = &text[start..=i];
        } else {
            return false;
        }
    }
    start == bytes.len() && start > 0
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// `sha256:` and 64 lower-case hex digits: the one algorithm that registries use.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| is_hex(hex, 64))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest() -> String {
        format!("sha256:{}", "ab".repeat(32))
    }

    #[test]
    fn short_names_are_completed_and_shortened_again() {
        for (text, domain, path, familiar) in [
            ("busybox", "docker.io", "library/busybox", "busybox:latest"),
            (
                "busybox:1.36",
                "docker.io",
                "library/busybox",
                "busybox:1.36",
            ),
            ("a/b", "docker.io", "a/b", "a/b:latest"),
            ("index.docker.io/a", "docker.io", "library/a", "a:latest"),
            ("localhost/a", "localhost", "a", "localhost/a:latest"),
            (
                "localhost:5000/a:b",
                "localhost:5000",
                "a",
                "localhost:5000/a:b",
            ),
            ("[::1]:5000/a", "[::1]:5000", "a", "[::1]:5000/a:latest"),
            ("ghcr.io/x/y/z", "ghcr.io", "x/y/z", "ghcr.io/x/y/z:latest"),
            (
                "docker.io/a.b/c",
                "docker.io",
                "a.b/c",
                "docker.io/a.b/c:latest",
            ),
            (
                "library/library/x",
                "docker.io",
                "library/library/x",
                "library/library/x:latest",
            ),
            (
                "a__b/c--d/e.f",
                "docker.io",
                "a__b/c--d/e.f",
                "a__b/c--d/e.f:latest",
            ),
        ] {
            let reference = Reference::parse(text).unwrap().or_latest();
            assert_eq!(reference.domain(), domain, "{text}");
            assert_eq!(reference.path(), path, "{text}");
            assert_eq!(reference.to_string(), familiar, "{text}");
        }
    }

    #[test]
    fn a_name_in_full_leaves_nothing_out() {
        for (text, in_full) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("localhost:5000/a:b", "localhost:5000/a:b".to_owned()),
            (
                &format!("me/app:1@{}", digest()),
                format!("docker.io/me/app@{}", digest()),
            ),
        ] {
            assert_eq!(Reference::parse(text).unwrap().in_full(), in_full);
        }
    }

    #[test]
    fn a_digest_overrides_a_tag() {
        let reference = Reference::parse(&format!("busybox:1.36@{}", digest())).unwrap();
        assert_eq!(reference.version(), digest());
        assert_eq!(reference.tag(), None);
        assert_eq!(reference.to_string(), format!("busybox@{}", digest()));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            ":",
            "a:",
            ":a",
            "a//b",
            "/a",
            "a/",
            "a b",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a@sha256:12",
            "a@md5:00",
            "a:!",
            "localhost:x/a",
            "[::1/a",
            "[]:5000/a",
            "a.-b",
            "http://a/b",
            "ä",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(
            Reference::parse("Foo").unwrap_err().to_string(),
            "invalid reference format: repository name (library/Foo) must be lowercase"
        );
        assert!(matches!(
            Reference::parse(&"a".repeat(64)),
            Err(ReferenceError::LooksLikeId(_))
        ));
        assert_eq!(
            Reference::parse(&format!("a/{}", "b".repeat(300))),
            Err(ReferenceError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                let again = Reference::parse(&reference.to_string()).unwrap();
                prop_assert_eq!(again.path(), reference.path());
                prop_assert_eq!(again.domain(), reference.domain());
                prop_assert_eq!(again.version(), reference.version());
            }
        }

        #[test]
        fn what_follows_the_grammar_survives_the_trip(
            text in "([a-z0-9]{1,8}\\.[a-z]{2,3}(:[0-9]{1,5})?/)?[a-z0-9]{1,8}([_-][a-z0-9]{1,8}){0,2}(/[a-z0-9]{1,8}([._-][a-z0-9]{1,8}){0,2}){0,2}:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"
        ) {
            let reference = Reference::parse(&text).unwrap();
            prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
        }
    }
}

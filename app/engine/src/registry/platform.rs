//! Platforms, and which manifest of an index fits one.
//!
//! Names are normalised as containerd does, so `x86_64` and `arm64/v8` mean what
//! users expect.

use std::fmt;

use oci_spec::image::{Descriptor, ImageIndex};

/// What may stand for an architecture alone.
const ARCHITECTURES: &[&str] = &[
    "386", "aarch64", "amd64", "arm", "arm64", "armel", "armhf", "i386", "loong64", "mips64le",
    "ppc64le", "riscv64", "s390x", "x86-64", "x86_64",
];

/// An operating system, an architecture and perhaps a variant of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// What a machine on this host runs.
    pub(crate) fn of_machine() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// A platform with its names normalised.
    pub(crate) fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let lower = architecture.to_ascii_lowercase();
        let variant = variant
            .map(str::to_ascii_lowercase)
            .filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (lower.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", Some(variant)) => ("amd64", Some(variant)),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64", Some(variant)) => ("arm64", Some(variant)),
            ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", None),
            (other, variant) => (other, variant),
        };
        Self {
            os: match os.to_ascii_lowercase() {
                os if os.is_empty() => "linux".to_owned(),
                os if os == "macos" => "darwin".to_owned(),
                os => os,
            },
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// The variant of the architecture, if there is one.
    pub(crate) fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// Reads `os/architecture[/variant]`, or one of the first two alone.
    ///
    /// # Errors
    /// A message for the user when it is not such a text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let proper = |part: &&str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        if parts.is_empty() || parts.len() > 3 || !parts.iter().all(proper) {
            return Err(format!(
                "{text:?} is an invalid platform: expected OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT"
            ));
        }
        Ok(match *parts {
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => {
                Self::new(os, std::env::consts::ARCH, None)
            }
            [architecture] if ARCHITECTURES.contains(&architecture) => {
                Self::new("linux", architecture, None)
            }
            [unknown] => {
                return Err(format!(
                    "{unknown:?}: unknown operating system or architecture: invalid argument"
                ));
            }
            [os, architecture] => Self::new(os, architecture, None),
            [os, architecture, variant] => Self::new(os, architecture, Some(variant)),
            _ => Self::of_machine(),
        })
    }

    /// Its operating system.
    pub(crate) fn os(&self) -> &str {
        &self.os
    }

    /// Its architecture, in Docker's word.
    pub(crate) fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Whether a processor of this platform runs programs for `other` by itself: those
    /// of its own architecture and the smaller ones that it contains.
    pub(crate) fn runs_natively(&self, other: &Self) -> bool {
        self.architecture == other.architecture
            || matches!(
                (self.architecture.as_str(), other.architecture.as_str()),
                ("amd64", "386") | ("arm64", "arm") | (_, "")
            )
    }

    /// Reads a platform as clients send it: as JSON, or as [`parse`](Self::parse)
    /// takes it.
    ///
    /// # Errors
    /// A message for the client.
    pub(crate) fn from_parameter(text: &str) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Json {
            #[serde(default)]
            os: String,
            #[serde(default)]
            architecture: String,
            variant: Option<String>,
        }
        if !text.starts_with('{') {
            return Self::parse(text);
        }
        let json: Json = serde_json::from_str(text)
            .map_err(|error| format!("invalid platform {text:?}: {error}"))?;
        Ok(Self::new(
            &json.os,
            &json.architecture,
            json.variant.as_deref(),
        ))
    }

    /// How well something made for `offered` runs on this platform: lower is
    /// better, `None` is not at all. A later ARM runs what was made for an
    /// earlier one.
    fn distance(&self, offered: &Self) -> Option<u8> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        if self.variant == offered.variant {
            return Some(0);
        }
        let level = |variant: &Option<String>, default: u8| match variant {
            None => Some(default),
            Some(text) => text.strip_prefix('v').unwrap_or(text).parse::<u8>().ok(),
        };
        let default = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        };
        level(&self.variant, default)?.checked_sub(level(&offered.variant, default)?)
    }

    /// Whether something made for `offered` runs on this platform.
    pub(crate) fn runs(&self, offered: &Self) -> bool {
        self.distance(offered).is_some()
    }

    /// The index's manifest that fits best; the first among equals.
    pub(crate) fn choose<'a>(&self, index: &'a ImageIndex) -> Option<&'a Descriptor> {
        index
            .manifests()
            .iter()
            .filter_map(|descriptor| {
                let platform = descriptor.platform().as_ref()?;
                let offered = Self::new(
                    &platform.os().to_string(),
                    &platform.architecture().to_string(),
                    platform.variant().as_deref(),
                );
                Some((self.distance(&offered)?, descriptor))
            })
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, descriptor)| descriptor)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> ImageIndex {
        let manifests: Vec<serde_json::Value> = platforms
            .iter()
            .enumerate()
            .map(|(i, (os, architecture, variant))| {
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": format!("sha256:{i:064x}"),
                    "size": 1,
                    "platform": {"os": os, "architecture": architecture, "variant": variant},
                })
            })
            .collect();
        serde_json::from_value(serde_json::json!({"schemaVersion": 2, "manifests": manifests}))
            .unwrap()
    }

    fn chosen(platform: &str, index: &ImageIndex) -> Option<usize> {
        let descriptor = Platform::parse(platform).unwrap().choose(index)?.clone();
        index.manifests().iter().position(|d| *d == descriptor)
    }

    #[test]
    fn the_best_variant_is_chosen() {
        let index = index(&[
            ("linux", "amd64", Some("v3")),
            ("linux", "amd64", None),
            ("linux", "arm", Some("v5")),
            ("linux", "arm", Some("v7")),
            ("linux", "arm64", Some("v8")),
            ("unknown", "unknown", None),
        ]);
        assert_eq!(chosen("linux/amd64", &index), Some(1));
        assert_eq!(chosen("amd64", &index), Some(1));
        assert_eq!(chosen("linux/x86_64/v4", &index), Some(0));
        assert_eq!(chosen("linux/arm/v6", &index), Some(2));
        assert_eq!(chosen("linux/arm", &index), Some(3));
        assert_eq!(chosen("linux/arm64", &index), Some(4));
        assert_eq!(chosen("linux/s390x", &index), None);
        assert_eq!(chosen("windows/amd64", &index), None);
    }

    #[test]
    fn names_are_normalised_for_display() {
        assert_eq!(
            Platform::parse("linux/aarch64").unwrap().to_string(),
            "linux/arm64"
        );
        assert_eq!(
            Platform::parse("linux/arm64/v8").unwrap().to_string(),
            "linux/arm64"
        );
        assert_eq!(
            Platform::parse("linux/armhf").unwrap().to_string(),
            "linux/arm/v7"
        );
        assert!(Platform::parse("a/b/c/d").is_err());
        assert!(Platform::parse("").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_runs_itself(text in ".{0,40}") {
            if let Ok(platform) = Platform::parse(&text) {
                prop_assert!(platform.runs(&platform));
                prop_assert_eq!(Platform::parse(&platform.to_string()).unwrap(), platform);
            }
        }
    }
}

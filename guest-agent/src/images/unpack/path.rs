//! Names of entries, made relative to the layer's root and normal.

/// Linux's limit on a path in one system call, its final NUL included.
const PATH_MAX: usize = 4096;

/// A path below a layer's root: components joined by single slashes, none of
/// them `.` or `..`, none empty; the root itself is the empty path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::images) struct RelativePath(Vec<u8>);

/// Why a name is no path below a layer's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::images) enum PathError {
    /// It climbs above the root.
    #[error("its path leads out of the archive")]
    Outside,
    /// It holds a NUL byte.
    #[error("its path holds a NUL byte")]
    Nul,
    /// It is longer than any path can be.
    #[error("its path is longer than {PATH_MAX} bytes")]
    TooLong,
}

impl RelativePath {
    /// Reads an archive's name for an entry. A leading slash means the layer's
    /// root, `..` is resolved in the text as other engines do.
    pub(in crate::images) fn parse(raw: &[u8]) -> Result<Self, PathError> {
        if raw.len() >= PATH_MAX {
            return Err(PathError::TooLong);
        }
        if raw.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut normal: Vec<u8> = Vec::with_capacity(raw.len());
        for component in raw.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    if normal.is_empty() {
                        return Err(PathError::Outside);
                    }
                    let parent = normal.iter().rposition(|byte| *byte == b'/');
                    normal.truncate(parent.unwrap_or(0));
                }
                component => {
                    if !normal.is_empty() {
                        normal.push(b'/');
                    }
                    normal.extend_from_slice(component);
                }
            }
        }
        Ok(Self(normal))
    }

    /// The path itself.
    pub(in crate::images) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path of the directory it is in, and its name there; `None` for the root.
    pub(super) fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (b"", &self.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(raw: &str) -> Result<String, PathError> {
        RelativePath::parse(raw.as_bytes()).map(|path| String::from_utf8(path.0).unwrap())
    }

    #[test]
    fn paths_become_relative_and_normal() {
        assert_eq!(parsed("./a//b/./c/").unwrap(), "a/b/c");
        assert_eq!(parsed("/etc/passwd").unwrap(), "etc/passwd");
        assert_eq!(parsed("a/b/../../c").unwrap(), "c");
        assert_eq!(parsed("./").unwrap(), "");
    }

    #[test]
    fn paths_that_climb_above_the_root_are_refused() {
        for raw in ["..", "../x", "a/../../x", "/../x"] {
            assert_eq!(parsed(raw), Err(PathError::Outside), "{raw}");
        }
        assert_eq!(parsed("a\0b"), Err(PathError::Nul));
        assert_eq!(parsed(&"a/".repeat(3000)), Err(PathError::TooLong));
    }

    #[test]
    fn a_path_splits_into_directory_and_name() {
        let path = RelativePath::parse(b"a/b/c").unwrap();
        assert_eq!(path.split(), Some((&b"a/b"[..], &b"c"[..])));
        let path = RelativePath::parse(b"c").unwrap();
        assert_eq!(path.split(), Some((&b""[..], &b"c"[..])));
        assert_eq!(RelativePath::parse(b"/").unwrap().split(), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_out_is_normal(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(path) = RelativePath::parse(&raw)
                && !path.0.is_empty()
            {
                for component in path.0.split(|byte| *byte == b'/') {
                    prop_assert!(!component.is_empty() && component != b"." && component != b"..");
                }
                prop_assert!(!path.0.contains(&0));
            }
        }
    }
}

//! Patterns of images' names, as the filter `reference` takes them.
//!
//! The syntax is that of Go's `path.Match`: `*` and `?` stand for anything but a slash,
//! `[a-z]` and `[^a-z]` for one character that is, or is not, among those, and a backslash
//! takes the meaning from what follows it.

/// A pattern that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub(super) struct BadPattern;

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(char),
    /// Any character but a slash.
    One,
    /// Any number of those.
    Many,
    Class {
        negated: bool,
        /// First and last.
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When a class of characters is not closed, or there is nothing behind a backslash.
    pub(super) fn parse(text: &str) -> Result<Self, BadPattern> {
        let mut rest = text.chars();
        let mut parts = Vec::new();
        while let Some(character) = rest.next() {
            parts.push(match character {
                '*' => Part::Many,
                '?' => Part::One,
                '[' => class(&mut rest)?,
                '\\' => Part::Literal(rest.next().ok_or(BadPattern)?),
                other => Part::Literal(other),
            });
        }
        Ok(Self { parts })
    }

    /// Whether it stands for a name, with its tag or digest or without.
    pub(super) fn matches_name(&self, name: &str) -> bool {
        let repository = match name.split_once('@') {
            Some((repository, _)) => repository,
            None => match name.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => repository,
                _ => name,
            },
        };
        self.matches(name) || self.matches(repository)
    }

    fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // The usual two cursors: linear but for the last star, no recursion.
        let (mut part, mut at) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while let Some(&character) = text.get(at) {
            match self.parts.get(part) {
                Some(Part::Many) => {
                    part += 1;
                    star = Some((part, at));
                    continue;
                }
                Some(one) if one.is(character) => {
                    part += 1;
                    at += 1;
                    continue;
                }
                _ => {}
            }
            match star {
                Some((after, from))
                    if text.get(from).is_some_and(|swallowed| *swallowed != '/') =>
                {
                    star = Some((after, from + 1));
                    part = after;
                    at = from + 1;
                }
                _ => return false,
            }
        }
        self.parts.iter().skip(part).all(|part| *part == Part::Many)
    }
}

impl Part {
    /// Whether it stands for this one character.
    fn is(&self, character: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == character,
            Self::One => character != '/',
            Self::Many => false,
            Self::Class { negated, ranges } => {
                let among = |(first, last): &(char, char)| (*first..=*last).contains(&character);
                ranges.iter().any(among) != *negated
            }
        }
    }
}

/// What follows a `[`, its `]` included.
fn class(rest: &mut std::str::Chars<'_>) -> Result<Part, BadPattern> {
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    // The first one may not be what ends it.
    while ranges.is_empty() || !rest.as_str().starts_with(']') {
        let first = member(rest)?;
        let last = if rest.as_str().starts_with('-') {
            rest.next();
            member(rest)?
        } else {
            first
        };
        ranges.push((first, last));
    }
    rest.next();
    Ok(Part::Class { negated, ranges })
}

/// A character of a class.
fn member(rest: &mut std::str::Chars<'_>) -> Result<char, BadPattern> {
    match rest.next() {
        None | Some('-' | ']') => Err(BadPattern),
        Some('\\') => rest.next().ok_or(BadPattern),
        Some(character) => Ok(character),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
        Ok(Pattern::parse(pattern)?.matches_name(name))
    }

    #[test]
    fn names_are_matched_as_docker_does() {
        for (pattern, name, expected) in [
            ("busybox", "busybox:latest", true),
            ("busybox:latest", "busybox:latest", true),
            ("busybox", "busybox@sha256:aa", true),
            ("busy*", "busybox:latest", true),
            ("*:1.?", "busybox:1.2", true),
            ("*", "a/b:latest", false),
            ("*/*", "a/b:latest", true),
            ("localhost:5000/*", "localhost:5000/a:b", true),
            ("localhost:5000/a", "localhost:5000/a:b", true),
            ("busybo", "busybox:latest", false),
            ("busybo[xy]", "busybox:latest", true),
            ("busybo[^xy]", "busybox:latest", false),
            ("*:[0-9].[0-9]", "busybox:1.2", true),
            ("*:[0-9].[0-9]", "busybox:1.x", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a\\*b", "ab", false),
            ("a\\-b", "a-b", true),
            ("a[\\-x]b", "a-b", true),
            ("*a*a*", "banana", true),
        ] {
            assert_eq!(matches(pattern, name), Ok(expected), "{pattern} {name}");
        }
        for pattern in [
            "[", "[^", "a[", "[]a]", "[-x]", "[x-]", "[a-b-c]", "a\\", "[^bc",
        ] {
            assert_eq!(matches(pattern, "a"), Err(BadPattern), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[ab*?/\\[\\]^\\\\-]{0,20}", text in "[ab/]{0,20}") {
            let Ok(parsed) = Pattern::parse(&pattern) else {
                return Ok(());
            };
            let found = parsed.matches(&text);
            if !pattern.contains(['*', '?', '[', '\\']) {
                prop_assert_eq!(found, pattern == text);
            }
        }

        #[test]
        fn a_star_stands_for_all_between_slashes(text in "[a-c]{0,10}", tail in "[a-c]{0,3}") {
            let pattern = Pattern::parse(&format!("*{tail}")).unwrap();
            prop_assert_eq!(pattern.matches(&text), text.ends_with(&tail));
        }
    }
}

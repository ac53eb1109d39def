//! Names of containers: what is a name, and new ones for containers without.

use guest_protocol::AgentError;

use crate::{error::Result, identity::random_bytes};

const ADJECTIVES: &[&str] = &[
    "agile", "amber", "ample", "ardent", "austere", "balmy", "bold", "brave", "breezy", "bright",
    "brisk", "calm", "candid", "careful", "cheerful", "clever", "cosmic", "crisp", "curious",
    "daring", "deft", "eager", "earnest", "elated", "fair", "fearless", "fluent", "frank", "fresh",
    "gentle", "gifted", "glad", "golden", "graceful", "hardy", "hearty", "honest", "humble",
    "jolly", "jovial", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mighty",
    "modest", "nimble", "noble", "patient", "placid", "playful", "polite", "prompt", "proud",
    "quick", "quiet", "radiant", "rapid", "robust", "serene", "sharp", "silent", "sincere",
    "smooth", "snappy", "sober", "solid", "spry", "stable", "steady", "sturdy", "subtle", "sunny",
    "swift", "tidy", "tranquil", "trusty", "upbeat", "valiant", "vivid", "warm", "witty", "zesty",
];

const SURNAMES: &[&str] = &[
    "abel",
    "ampere",
    "aryabhata",
    "bassi",
    "bernoulli",
    "boole",
    "bose",
    "boyle",
    "brahe",
    "carson",
    "cauchy",
    "cavendish",
    "cerf",
    "chandra",
    "clarke",
    "copernicus",
    "coulomb",
    "curie",
    "dijkstra",
    "dirac",
    "doppler",
    "einstein",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "feynman",
    "fourier",
    "franklin",
    "galois",
    "gauss",
    "germain",
    "godel",
    "hamilton",
    "hawking",
    "heaviside",
    "hertz",
    "hilbert",
    "hodgkin",
    "hooke",
    "hopper",
    "hypatia",
    "johnson",
    "joule",
    "kepler",
    "khwarizmi",
    "knuth",
    "kovalevskaya",
    "lagrange",
    "lamarr",
    "laplace",
    "leibniz",
    "linnaeus",
    "lovelace",
    "maxwell",
    "mccarthy",
    "meitner",
    "mendel",
    "mirzakhani",
    "morse",
    "napier",
    "nash",
    "newton",
    "noether",
    "ohm",
    "pascal",
    "pasteur",
    "pauling",
    "perlman",
    "planck",
    "poincare",
    "raman",
    "ramanujan",
    "riemann",
    "ritchie",
    "rubin",
    "shannon",
    "somerville",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "watt",
    "wozniak",
    "wu",
    "yalow",
];

/// A name that `taken` does not know.
///
/// # Errors
/// When the kernel gives no random numbers.
pub(super) fn invent(taken: impl Fn(&str) -> bool) -> Result<String> {
    for attempt in 0.. {
        let [first, second, digit, ..] = random_bytes::<8>()?;
        let pick = |words: &[&'static str], byte: u8| words[usize::from(byte) % words.len()];
        let mut name = format!("{}_{}", pick(ADJECTIVES, first), pick(SURNAMES, second));
        if attempt >= 6 {
            name = format!("{name}{}", u32::from(digit) * (attempt - 5));
        }
        if !taken(&name) {
            return Ok(name);
        }
    }
    Err(AgentError::system("no name is free"))
}

/// Checks a name that a user chose, and takes the leading slash off.
///
/// # Errors
/// In Docker's words, when it is no name.
pub(super) fn check(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut characters = bare.chars();
    let valid = bare.len() <= 255
        && characters
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && bare.len() > 1
        && characters.all(|next| next.is_ascii_alphanumeric() || "_.-".contains(next));
    if !valid {
        return Err(AgentError::invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    Ok(bare)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::HashSet};

    use super::*;

    #[test]
    fn invented_names_are_valid_and_free() {
        let taken = RefCell::new(HashSet::new());
        for _ in 0..2000 {
            let name = invent(|name| taken.borrow().contains(name)).unwrap();
            assert_eq!(check(&name).unwrap(), name);
            assert!(taken.borrow_mut().insert(name));
        }
    }

    #[test]
    fn names_are_checked_as_docker_does() {
        assert_eq!(check("/web-1.a_B").unwrap(), "web-1.a_B");
        for name in ["", "/", "a", "-web", "a/b", "web one", "ü2"] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}

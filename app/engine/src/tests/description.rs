//! `openapi.yaml` against the routes: what is described is served, and what is served is
//! described.

use std::collections::BTreeSet;

use crate::api::served;

const DESCRIPTION: &str = include_str!("../../openapi.yaml");

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// What is served and not described: whatever it is asked, it answers one thing.
const REFUSED: [&str; 10] = [
    "/build",
    "/configs",
    "/grpc",
    "/nodes",
    "/plugins",
    "/secrets",
    "/services",
    "/session",
    "/swarm",
    "/tasks",
];

/// Methods and paths of the description.
fn described() -> BTreeSet<(&'static str, String)> {
    let paths = DESCRIPTION.split("\npaths:\n").nth(1).unwrap();
    let paths = paths.split("\ncomponents:\n").next().unwrap();
    let mut path = "";
    let mut found = BTreeSet::new();
    for line in paths.lines() {
        if let Some(name) = line.strip_prefix("  /") {
            path = &line[2..3 + name.trim_end_matches(':').len()];
        }
        let word = line.strip_prefix("    ").unwrap_or_default();
        let word = word.split(':').next().unwrap_or_default();
        let method = METHODS
            .into_iter()
            .find(|method| method.to_lowercase() == word);
        found.extend(method.map(|method| (method, template(path))));
    }
    found
}

/// A path in which all names are one.
fn template(path: &str) -> String {
    let parts = path.split('/');
    let parts = parts.map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn what_is_described_is_served_and_the_other_way_round() {
    let described = described();
    assert!(described.len() > 60, "{described:?}");
    let served: BTreeSet<_> = served()
        .into_iter()
        .filter(|(_, path)| !REFUSED.iter().any(|refused| path.starts_with(refused)))
        // The same as without the slash; volumes of a swarm; a websocket, which no
        // description has words for.
        .filter(|(method, path)| {
            *path != "/networks/" && *method != "PUT" && !path.ends_with("/attach/ws")
                || path.ends_with("/archive")
        })
        .map(|(method, path)| (method, template(path)))
        .collect();
    let missing: Vec<_> = served.difference(&described).collect();
    let gone: Vec<_> = described.difference(&served).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "openapi.yaml lacks {missing:?} and tells of {gone:?}"
    );
}

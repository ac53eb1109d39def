//! The `filters` parameter of lists, prunes and events.
//!
//! It is JSON in one of two shapes: `{"key":{"value":true}}` from today's
//! clients, `{"key":["value"]}` from older ones.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

/// Filters: to each key the values of which one must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filters {
    values: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Shapes {
    Sets(BTreeMap<String, BTreeMap<String, bool>>),
    Lists(BTreeMap<String, Vec<String>>),
}

impl Filters {
    /// Reads the parameter; an empty text is no filter.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let parsed: Option<Shapes> =
            serde_json::from_str(text).map_err(|_| "invalid filter".to_owned())?;
        let values = match parsed {
            None => BTreeMap::new(),
            Some(Shapes::Lists(lists)) => lists,
            Some(Shapes::Sets(sets)) => {
                let list = |set: BTreeMap<String, bool>| {
                    let on = set.into_iter().filter(|(_, on)| *on);
                    on.map(|(value, _)| value).collect()
                };
                sets.into_iter()
                    .map(|(key, set)| (key, list(set)))
                    .collect()
            }
        };
        Ok(Self { values })
    }

    /// Refuses keys that are not among `known`, in Docker's words.
    pub(super) fn allow(&self, known: &[&str]) -> Result<(), String> {
        match self
            .values
            .keys()
            .find(|key| !known.contains(&key.as_str()))
        {
            Some(key) => Err(format!("invalid filter '{key}'")),
            None => Ok(()),
        }
    }

    /// The values of a key.
    pub(super) fn get(&self, key: &str) -> &[String] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether there is no such filter, or one of its values is `accepted`.
    pub(super) fn any(&self, key: &str, accepted: impl FnMut(&String) -> bool) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().any(accepted)
    }

    /// Whether there is no such filter, or one of its values is `value`.
    pub(super) fn exact(&self, key: &str, value: &str) -> bool {
        self.any(key, |accepted| accepted == value)
    }

    /// A key that is true or false.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        let read = |value: &String| match value.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" => Ok(true),
            "0" | "f" | "false" => Ok(false),
            _ => Err(format!("invalid filter '{key}=[{value}]'")),
        };
        match self.get(key) {
            [] => Ok(None),
            [first, rest @ ..] => {
                let value = read(first)?;
                for other in rest {
                    if read(other)? != value {
                        let values = self.get(key).join(" ");
                        return Err(format!("invalid filter '{key}=[{values}]'"));
                    }
                }
                Ok(Some(value))
            }
        }
    }

    /// Whether labels match every `label` filter (`key` or `key=value`) and no
    /// `label!` filter.
    pub(super) fn labels(&self, labels: &HashMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.get("label").iter().all(has) && !self.get("label!").iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_shapes_are_read() {
        let new = Filters::parse(r#"{"status":{"exited":true,"dead":false},"label":{"a=b":true}}"#);
        let old = Filters::parse(r#"{"status":["exited"],"label":["a=b"]}"#);
        assert_eq!(new, old);
        let filters = new.unwrap();
        assert!(filters.exact("status", "exited") && !filters.exact("status", "dead"));
        assert!(filters.exact("name", "anything"));
        assert_eq!(
            filters.allow(&["status"]),
            Err("invalid filter 'label'".into())
        );
        assert!(Filters::parse("[]").is_err());
        assert!(Filters::parse(r#"{"a":["b"],"c":{"d":true}}"#).is_err());
        assert_eq!(Filters::parse("null"), Ok(Filters::default()));
    }

    #[test]
    fn every_label_must_match() {
        let labels = HashMap::from([("a".to_owned(), "1".to_owned())]);
        let matches = |json: &str| Filters::parse(json).unwrap().labels(&labels);
        assert!(matches(r#"{"label":["a"]}"#));
        assert!(matches(r#"{"label":["a=1"]}"#));
        assert!(!matches(r#"{"label":["a=1","b"]}"#));
        assert!(!matches(r#"{"label!":["a"]}"#));
    }

    #[test]
    fn a_flag_is_true_or_false() {
        let flag = |json: &str| Filters::parse(json).unwrap().flag("dangling");
        assert_eq!(flag(r#"{"dangling":{"true":true}}"#), Ok(Some(true)));
        assert_eq!(flag(r#"{"dangling":["0"]}"#), Ok(Some(false)));
        assert_eq!(flag("{}"), Ok(None));
        assert!(flag(r#"{"dangling":["0","1"]}"#).is_err());
        assert!(flag(r#"{"dangling":["maybe"]}"#).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,120}") {
            let _ = Filters::parse(&text);
        }

        #[test]
        fn lists_survive(values in proptest::collection::btree_map("[a-z]{1,6}", proptest::collection::vec("[ -~]{0,10}", 0..4), 0..4)) {
            let text = serde_json::to_string(&values).unwrap();
            let filters = Filters::parse(&text).unwrap();
            for (key, list) in &values {
                prop_assert_eq!(filters.get(key), list.as_slice());
            }
        }
    }
}

//! The shape of JSON: fields and types at each depth, without values.
//!
//! Texts are told apart as clients do: empty ones, times, digests, identifiers. What
//! several elements of an array have is put together: a field that some of them have
//! not is optional.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// A shape.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// The types of values that are neither arrays nor objects.
    kinds: BTreeSet<String>,
    /// What an array holds, in one shape; none when it was empty.
    items: Option<Vec<Shape>>,
    fields: Option<BTreeMap<String, Field>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    shape: Shape,
    optional: bool,
}

/// How a value that may be of several types is written.
const EITHER: &str = "(either)";
/// Ends the name of an optional field as it is written.
const OPTIONAL: char = '?';

impl Shape {
    /// The shape of a value.
    pub(super) fn of(value: &Value) -> Self {
        let mut shape = Self::default();
        match value {
            Value::Null => shape.add_kind("null"),
            Value::Bool(_) => shape.add_kind("bool"),
            Value::Number(_) => shape.add_kind("number"),
            Value::String(text) => shape.add_kind(kind_of(text)),
            Value::Array(items) => {
                let merged = items.iter().map(Self::of).reduce(Self::merge);
                shape.items = Some(merged.into_iter().collect());
            }
            Value::Object(object) => {
                let field = |(name, value): (&String, &Value)| {
                    let shape = Self::of(value);
                    let optional = false;
                    (plain_name(name), Field { shape, optional })
                };
                shape.fields = Some(object.iter().map(field).collect());
            }
        }
        shape
    }

    /// The shape of all `values` together.
    pub(super) fn of_all<'a>(values: impl IntoIterator<Item = &'a Value>) -> Self {
        let merged = values.into_iter().map(Self::of).reduce(Self::merge);
        merged.unwrap_or_default()
    }

    fn add_kind(&mut self, kind: &str) {
        self.kinds.insert(kind.to_owned());
    }

    fn merge(mut self, other: Self) -> Self {
        self.kinds.extend(other.kinds);
        self.items = match (self.items, other.items) {
            (Some(mine), Some(theirs)) => {
                let merged = mine.into_iter().chain(theirs).reduce(Self::merge);
                Some(merged.into_iter().collect())
            }
            (a, b) => a.or(b),
        };
        self.fields = match (self.fields, other.fields) {
            (Some(mine), Some(theirs)) => Some(merge_fields(mine, theirs)),
            (a, b) => a.or(b),
        };
        self
    }

    /// As it is written.
    pub(super) fn to_json(&self) -> Value {
        let mut parts = Vec::new();
        if !self.kinds.is_empty() {
            parts.push(json!(joined(&self.kinds)));
        }
        if let Some(items) = &self.items {
            let items: Vec<_> = items.iter().map(Self::to_json).collect();
            parts.push(json!(items));
        }
        if let Some(fields) = &self.fields {
            let mut object = Map::new();
            for (name, field) in fields {
                let mut name = name.clone();
                if field.optional {
                    name.push(OPTIONAL);
                }
                object.insert(name, field.shape.to_json());
            }
            parts.push(Value::Object(object));
        }
        if parts.len() == 1 {
            return parts.swap_remove(0);
        }
        json!({EITHER: parts})
    }

    /// As it was written.
    pub(super) fn from_json(value: &Value) -> Self {
        let mut shape = Self::default();
        match value {
            Value::String(kinds) => kinds.split('|').for_each(|kind| shape.add_kind(kind)),
            Value::Array(items) => {
                shape.items = Some(items.iter().map(Self::from_json).collect());
            }
            Value::Object(object) => {
                if let Some(Value::Array(parts)) = object.get(EITHER) {
                    let merged = parts.iter().map(Self::from_json).reduce(Self::merge);
                    return merged.unwrap_or_default();
                }
                let field = |(name, value): (&String, &Value)| {
                    let shape = Self::from_json(value);
                    let optional = name.ends_with(OPTIONAL);
                    (plain_name(name), Field { shape, optional })
                };
                shape.fields = Some(object.iter().map(field).collect());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        shape
    }

    /// Tells where `other` differs from this shape, which was recorded: the place, what
    /// was recorded, and what is there instead.
    pub(super) fn differences(
        &self,
        other: &Self,
        place: &str,
        tell: &mut impl FnMut(String, String, String),
    ) {
        let (mine, theirs) = (self.types(), other.types());
        // An optional thing need not be there; what is there must be of a type that
        // was recorded.
        if !theirs.is_subset(&mine) {
            tell(place.to_owned(), joined(&mine), joined(&theirs));
        }
        match (self.items.as_deref(), other.items.as_deref()) {
            (Some([mine]), Some([theirs])) => {
                mine.differences(theirs, &format!("{place}[]"), tell);
            }
            // Of an array's elements the shapes are put together: how many things each of
            // them had is not known any more.
            (Some(mine), Some(theirs))
                if mine.is_empty() != theirs.is_empty() && !place.contains("[]") =>
            {
                let shown = |items: &[Self]| if items.is_empty() { "[]" } else { "[…]" };
                tell(
                    place.to_owned(),
                    shown(mine).to_owned(),
                    shown(theirs).to_owned(),
                );
            }
            _ => {}
        }
        let (Some(mine), Some(theirs)) = (&self.fields, &other.fields) else {
            return;
        };
        for (name, field) in mine {
            let place = format!("{place}.{name}");
            match theirs.get(name) {
                None if field.optional => {}
                None => tell(
                    place,
                    field.shape.to_json().to_string(),
                    "missing".to_owned(),
                ),
                Some(found) => {
                    if found.optional && !field.optional {
                        tell(
                            place.clone(),
                            "always".to_owned(),
                            "sometimes missing".to_owned(),
                        );
                    }
                    field.shape.differences(&found.shape, &place, tell);
                }
            }
        }
        for (name, field) in theirs.iter().filter(|(name, _)| !mine.contains_key(*name)) {
            tell(
                format!("{place}.{name}"),
                "missing".to_owned(),
                field.shape.to_json().to_string(),
            );
        }
    }

    fn types(&self) -> BTreeSet<String> {
        let mut types = self.kinds.clone();
        types.extend(self.items.as_ref().map(|_| "array".to_owned()));
        types.extend(self.fields.as_ref().map(|_| "object".to_owned()));
        types
    }
}

/// Types as they are written.
fn joined(types: &BTreeSet<String>) -> String {
    types.iter().cloned().collect::<Vec<_>>().join("|")
}

fn merge_fields(
    mut mine: BTreeMap<String, Field>,
    theirs: BTreeMap<String, Field>,
) -> BTreeMap<String, Field> {
    for (name, field) in &mut mine {
        field.optional |= !theirs.contains_key(name);
    }
    for (name, field) in theirs {
        match mine.remove(&name) {
            None => {
                let optional = true;
                mine.insert(name, Field { optional, ..field });
            }
            Some(known) => {
                let optional = known.optional || field.optional;
                let shape = known.shape.merge(field.shape);
                mine.insert(name, Field { shape, optional });
            }
        }
    }
    mine
}

/// A field's name; identifiers that serve as names are all one.
fn plain_name(name: &str) -> String {
    let name = name.trim_end_matches(OPTIONAL);
    match kind_of(name) {
        kind @ ("id" | "digest") => format!("<{kind}>"),
        _ => name.to_owned(),
    }
}

/// The kind of text that clients tell apart.
fn kind_of(text: &str) -> &'static str {
    let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match text {
        "" => "empty text",
        _ if is_hex(text) => "id",
        _ if text.strip_prefix("sha256:").is_some_and(is_hex) => "digest",
        _ if is_time(text) => "time",
        _ => "text",
    }
}

/// Whether it begins as `2026-01-31T12:34:56` does.
fn is_time(text: &str) -> bool {
    let pattern = b"dddd-dd-ddTdd:dd:dd";
    let matches = |(byte, wanted): (u8, &u8)| match wanted {
        b'd' => byte.is_ascii_digit(),
        other => byte == *other,
    };
    text.len() >= pattern.len() && text.bytes().zip(pattern).all(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(recorded: &Value, ours: &Value) -> Vec<String> {
        let mut told = Vec::new();
        Shape::of(recorded).differences(&Shape::of(ours), "", &mut |place, recorded, ours| {
            told.push(format!("{place}: {recorded} → {ours}"));
        });
        told
    }

    #[test]
    fn values_make_no_difference_and_types_do() {
        let recorded = json!({"a": 1, "b": "x", "c": [{"d": null}], "e": "2026-01-31T12:34:56Z"});
        let same = json!({"a": 2, "b": "y", "c": [{"d": null}, {"d": null}], "e": "2020-02-28T02:03:04.5Z"});
        assert!(told(&recorded, &same).is_empty());
        let other = json!({"a": "2", "c": [{"d": null, "f": 1}], "e": ""});
        assert_eq!(
            told(&recorded, &other),
            [
                ".a: number → text",
                ".b: \"text\" → missing",
                ".c[].f: missing → \"number\"",
                ".e: time → empty text"
            ]
        );
    }

    #[test]
    fn an_empty_array_is_not_one_that_holds_something() {
        let (empty, one) = (json!({"a": []}), json!({"a": [{"b": []}]}));
        assert_eq!(told(&empty, &one), [".a: [] → […]"]);
        assert_eq!(told(&one, &empty), [".a: […] → []"]);
        // In an element it may be either.
        assert!(told(&one, &json!({"a": [{"b": [1]}]})).is_empty());
    }

    #[test]
    fn elements_are_put_together() {
        let recorded = json!([{"a": 1}, {"a": null, "b": {}}]);
        assert!(told(&recorded, &json!([{"a": null}])).is_empty());
        assert_eq!(
            told(&recorded, &json!([{"b": {}}])),
            ["[].a: \"null|number\" → missing"]
        );
        assert_eq!(
            told(&json!([{"a": 1}]), &recorded),
            ["[].a: number → null|number", "[].b: missing → {}"]
        );
    }

    #[test]
    fn a_shape_is_read_as_it_was_written() {
        let value =
            json!([{"a": 1, "b": [], "sha256": "x"}, {"a": "", "b": [true], "c": [[1]]}, null]);
        let shape = Shape::of(&value);
        assert_eq!(Shape::from_json(&shape.to_json()), shape);
        let id = "ab".repeat(32);
        assert_eq!(
            Shape::of(&json!({id: 1})).to_json(),
            json!({"<id>": "number"})
        );
    }
}

//! JSON for people: four blanks of indentation, as Docker's client.

use serde::Serialize;
use serde_json::ser::PrettyFormatter;

/// `value`, indented.
pub(crate) fn pretty(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut text, formatter,
    ))?;
    // JSON is UTF-8.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn order_and_numbers_stay() {
        let text = r#"{"b":18446744073709551615,"a":[],"c":{"d":[1]}}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(
            pretty(&value).unwrap(),
            "{\n    \"b\": 18446744073709551615,\n    \"a\": [],\n    \"c\": {\n        \"d\": [\n            1\n        ]\n    }\n}"
        );
    }
}

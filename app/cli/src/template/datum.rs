//! What goes through a template, and how Go prints it.

use serde_json::Value;

/// A value on its way through a template.
#[derive(Debug, Clone)]
pub(super) enum Datum {
    /// There is one.
    Present(Value),
    /// Go's nil of a list, a map or a pointer: this empty value to whoever works with
    /// it, null in JSON.
    Nil(Value),
    /// A field that is not there: false in a condition, an error in print. Fields
    /// that an engine leaves out when they are empty can be tested this way.
    Missing(String),
}

impl Datum {
    /// The value, or an error that names the field.
    pub(super) fn required(self) -> Result<Value, String> {
        match self {
            Self::Present(value) | Self::Nil(value) => Ok(value),
            Self::Missing(path) => Err(format!("there is no field {path}")),
        }
    }

    /// Go's truth: not zero, not empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Nil(_) | Self::Present(Value::Null) => false,
            Self::Present(Value::Bool(value)) => *value,
            Self::Present(Value::Number(number)) => number.as_f64() != Some(0.0),
            Self::Present(Value::String(text)) => !text.is_empty(),
            Self::Present(Value::Array(items)) => !items.is_empty(),
            Self::Present(Value::Object(fields)) => !fields.is_empty(),
        }
    }
}

/// A value as Go prints it.
pub(super) fn display(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(nested).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let fields: Vec<_> = fields
                .into_iter()
                .map(|(name, value)| format!("{name}:{}", nested(value)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}

fn nested(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        other => display(other),
    }
}

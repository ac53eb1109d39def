//! The functions of Go's templates and of Docker's.

use std::{cmp::Ordering, fmt::Write as _};

use serde_json::Value;

use super::{
    datum::{Datum, display},
    printf,
};

/// The longest padding, in characters.
const MAX_PADDING: usize = 1024;

/// How long a function's texts may be together, in bytes: what doubles a text again
/// and again ends here.
const MAX_TEXT: usize = 4 * 1024 * 1024;

const NAMES: [&str; 25] = [
    "and", "eq", "ge", "gt", "html", "index", "join", "json", "le", "len", "lower", "lt", "ne",
    "not", "or", "pad", "print", "printf", "println", "slice", "split", "title", "truncate",
    "upper", "urlquery",
];

/// Whether there is a function of this name.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function.
pub(super) fn call(name: &str, arguments: Vec<Datum>) -> Result<Datum, String> {
    // It may see a field that is not there; so may `and` and `or`, which the
    // renderer does itself.
    if let ("not", [value]) = (name, arguments.as_slice()) {
        return Ok(Datum::Present(Value::Bool(!value.is_true())));
    }
    if let ("json", [Datum::Nil(_)]) = (name, arguments.as_slice()) {
        return Ok(Datum::Present(Value::from("null")));
    }
    let arguments = arguments
        .into_iter()
        .map(Datum::required)
        .collect::<Result<Vec<_>, _>>()?;
    value_of(name, &arguments).map(Datum::Present)
}

fn value_of(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let length = |value: &Value| value.as_str().map_or(0, str::len);
    if arguments.iter().map(length).sum::<usize>() > MAX_TEXT {
        return Err(format!("the arguments of {name} are too long"));
    }
    let wrong = || {
        let given: Vec<_> = arguments.iter().map(display).collect();
        format!("{name} cannot be applied to ({})", given.join(", "))
    };
    Ok(match (name, arguments) {
        ("json", [value]) => Value::from(json(value)?),
        ("len", [value]) => Value::from(match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            // A list or map that was left empty.
            Value::Null => 0,
            _ => return Err(wrong()),
        }),
        ("html", [value]) => Value::from(html(&display(value))),
        ("urlquery", [value]) => Value::from(url_query(&display(value))),
        ("index", [value, path @ ..]) => index(value, path)?,
        ("slice", [value, bounds @ ..]) => slice(value, bounds).ok_or_else(wrong)?,
        ("join", [Value::Array(items), Value::String(separator)]) => {
            let items: Vec<_> = items.iter().map(display).collect();
            Value::from(items.join(separator))
        }
        ("join", [Value::Null, Value::String(_)]) => Value::from(""),
        ("split", [Value::String(text), Value::String(separator)]) => text
            .split(separator.as_str())
            .map(Value::from)
            .collect::<Vec<_>>()
            .into(),
        ("upper", [Value::String(text)]) => Value::from(text.to_uppercase()),
        ("lower", [Value::String(text)]) => Value::from(text.to_lowercase()),
        ("title", [Value::String(text)]) => {
            let mut characters = text.chars();
            let first = characters.next().map(|c| c.to_uppercase().to_string());
            Value::from(first.unwrap_or_default() + characters.as_str())
        }
        ("truncate", [Value::String(text), length]) => {
            let length = size(length).ok_or_else(wrong)?;
            Value::from(text.chars().take(length).collect::<String>())
        }
        ("pad", [Value::String(text), before, after]) => {
            let width = |value| size(value).filter(|n| *n <= MAX_PADDING).ok_or_else(wrong);
            let (before, after) = (width(before)?, width(after)?);
            Value::from(format!("{:before$}{text}{:after$}", "", ""))
        }
        ("print", values) => Value::from(values.iter().map(display).collect::<String>()),
        ("println", values) => {
            let values: Vec<_> = values.iter().map(display).collect();
            Value::from(values.join(" ") + "\n")
        }
        ("printf", [Value::String(format), values @ ..]) => {
            Value::from(printf::printf(format, values)?)
        }
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            Value::Bool(others.iter().any(|other| equal(first, other)))
        }
        ("ne", [first, second]) => Value::Bool(!equal(first, second)),
        ("lt" | "le" | "gt" | "ge", [first, second]) => {
            let order = order(first, second).ok_or_else(wrong)?;
            Value::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        _ => return Err(wrong()),
    })
}

/// JSON as Go encodes it: `<`, `>` and `&` escaped.
fn json(value: &Value) -> Result<String, String> {
    let text = serde_json::to_string(value).map_err(|error| error.to_string())?;
    Ok(text
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026"))
}

fn size(value: &Value) -> Option<usize> {
    value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok())
}

fn index(value: &Value, path: &[Value]) -> Result<Value, String> {
    let mut value = value;
    for key in path {
        value = match (value, key) {
            // Go gives the zero value for a key that is not there.
            (Value::Object(fields), Value::String(name)) => match fields.get(name) {
                Some(found) => found,
                None => return Ok(Value::from("")),
            },
            (Value::Null, Value::String(_)) => return Ok(Value::from("")),
            (Value::Array(items), Value::Number(number)) => number
                .as_u64()
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| items.get(at))
                .ok_or_else(|| format!("index out of range: {number}"))?,
            _ => {
                return Err(format!(
                    "can't index {} with {}",
                    display(value),
                    display(key)
                ));
            }
        };
    }
    Ok(value.clone())
}

fn slice(value: &Value, bounds: &[Value]) -> Option<Value> {
    let length = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        _ => return None,
    };
    let (from, to) = match bounds {
        [] => (0, length),
        [from] => (size(from)?, length),
        [from, to] => (size(from)?, size(to)?),
        _ => return None,
    };
    match value {
        Value::String(text) => text.get(from..to).map(Value::from),
        Value::Array(items) => items.get(from..to).map(|items| items.to_vec().into()),
        _ => None,
    }
}

fn equal(first: &Value, second: &Value) -> bool {
    match (first, second) {
        (Value::Number(first), Value::Number(second)) => first.as_f64() == second.as_f64(),
        _ => first == second,
    }
}

fn order(first: &Value, second: &Value) -> Option<Ordering> {
    match (first, second) {
        (Value::Number(first), Value::Number(second)) => {
            first.as_f64()?.partial_cmp(&second.as_f64()?)
        }
        (Value::String(first), Value::String(second)) => Some(first.cmp(second)),
        _ => None,
    }
}

/// As Go's `template.HTMLEscapeString`.
fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// As Go's `url.QueryEscape`.
fn url_query(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b' ' => escaped.push('+'),
            b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => escaped.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

//! `printf`: the verbs, flags, widths and precisions of Go's `fmt` that formatting
//! takes.

use serde_json::Value;

use super::datum::display;

/// The widest field and the longest fraction, in characters.
const MAX_WIDTH: usize = 1024;

/// What is between `%` and the verb.
#[derive(Debug, Default)]
struct Flags {
    left: bool,
    zeros: bool,
    plus: bool,
    sharp: bool,
    blank: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `format` with its verbs replaced by `values`.
///
/// # Errors
/// In words for the user: a verb that is not supported, too few or too many values.
pub(super) fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut output = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        output.push_str(&rest[..at]);
        let (flags, tail) = flags(&rest[at + 1..])?;
        let verb = tail
            .chars()
            .next()
            .ok_or("printf: the format ends with %")?;
        rest = &tail[verb.len_utf8()..];
        if verb == '%' {
            output.push('%');
            continue;
        }
        let value = values
            .next()
            .ok_or_else(|| format!("printf: no value for %{verb}"))?;
        let text = text_of(verb, value, &flags)?;
        output.push_str(&padded(text, &flags, value.is_number()));
    }
    output.push_str(rest);
    if values.next().is_some() {
        return Err("printf: more values than the format has verbs".into());
    }
    Ok(output)
}

fn flags(mut text: &str) -> Result<(Flags, &str), String> {
    let mut flags = Flags::default();
    while let Some(c) = text.chars().next() {
        match c {
            '-' => flags.left = true,
            '0' => flags.zeros = true,
            '+' => flags.plus = true,
            '#' => flags.sharp = true,
            ' ' => flags.blank = true,
            _ => break,
        }
        text = &text[1..];
    }
    (flags.width, text) = number(text)?;
    if let Some(after) = text.strip_prefix('.') {
        let (precision, after) = number(after)?;
        flags.precision = Some(precision.unwrap_or(0));
        text = after;
    }
    Ok((flags, text))
}

fn number(text: &str) -> Result<(Option<usize>, &str), String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() {
        return Ok((None, rest));
    }
    let number = digits.parse().ok().filter(|number| *number <= MAX_WIDTH);
    match number {
        Some(number) => Ok((Some(number), rest)),
        None => Err(format!("printf: {digits} is too wide")),
    }
}

fn text_of(verb: char, value: &Value, flags: &Flags) -> Result<String, String> {
    let wrong = || format!("printf: %{verb} is not supported for {}", display(value));
    let cut = |text: String| match flags.precision {
        Some(length) => text.chars().take(length).collect(),
        None => text,
    };
    Ok(match (verb, value) {
        ('v', Value::Number(_)) | ('d', _) => signed(display(value), flags),
        ('s' | 'v', _) => cut(display(value)),
        ('q', _) => Value::from(display(value)).to_string(),
        ('x' | 'X', Value::String(text)) => hexadecimal(text.bytes(), verb),
        ('x' | 'X' | 'o' | 'b' | 'c', Value::Number(number)) => {
            let number = number.as_i64().ok_or_else(wrong)?;
            let sign = if number < 0 { "-" } else { "" };
            let size = number.unsigned_abs();
            let digits = match verb {
                'x' if flags.sharp => format!("{size:#x}"),
                'x' => format!("{size:x}"),
                'X' => format!("{size:X}"),
                'o' => format!("{size:o}"),
                'b' => format!("{size:b}"),
                _ => {
                    let character = u32::try_from(number).ok().and_then(char::from_u32);
                    return character.map(String::from).ok_or_else(wrong);
                }
            };
            format!("{sign}{digits}")
        }
        ('f' | 'F', Value::Number(number)) => {
            let number = number.as_f64().ok_or_else(wrong)?;
            signed(format!("{number:.*}", flags.precision.unwrap_or(6)), flags)
        }
        ('e', Value::Number(number)) => exponential(
            number.as_f64().ok_or_else(wrong)?,
            flags.precision.unwrap_or(6),
        ),
        ('g', Value::Number(_)) | ('t', Value::Bool(_)) => display(value),
        _ => return Err(wrong()),
    })
}

fn signed(text: String, flags: &Flags) -> String {
    match text.as_bytes().first() {
        Some(b'0'..=b'9') if flags.plus => format!("+{text}"),
        Some(b'0'..=b'9') if flags.blank => format!(" {text}"),
        _ => text,
    }
}

fn hexadecimal(bytes: impl Iterator<Item = u8>, verb: char) -> String {
    bytes
        .map(|byte| {
            if verb == 'X' {
                format!("{byte:02X}")
            } else {
                format!("{byte:02x}")
            }
        })
        .collect()
}

/// `1.5e+03`: Go writes two digits of exponent at least, and its sign.
fn exponential(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

fn padded(text: String, flags: &Flags, number: bool) -> String {
    let missing = flags
        .width
        .unwrap_or(0)
        .saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    if flags.left {
        return text + &" ".repeat(missing);
    }
    if !(flags.zeros && number) {
        return " ".repeat(missing) + &text;
    }
    // Zeros go between the sign and the digits.
    let sign = text.len() - text.trim_start_matches(['+', '-']).len();
    let (sign, digits) = text.split_at(sign);
    format!("{sign}{}{digits}", "0".repeat(missing))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_gos() {
        for (format, value, expected) in [
            ("%5s|", json!("ab"), "   ab|"),
            ("%-5s|", json!("ab"), "ab   |"),
            ("%.1s", json!("äb"), "ä"),
            ("%d", json!(-7), "-7"),
            ("%+d", json!(7), "+7"),
            ("% d", json!(7), " 7"),
            ("%05d", json!(-7), "-0007"),
            ("%.3f", json!(1.0 / 3.0), "0.333"),
            ("%8.2f|", json!(1.5), "    1.50|"),
            ("%e", json!(1500), "1.500000e+03"),
            ("%x", json!("hi"), "6869"),
            ("%#x", json!(255), "0xff"),
            ("%X", json!(255), "FF"),
            ("%c", json!(65), "A"),
            ("%o %%", json!(8), "10 %"),
        ] {
            assert_eq!(
                printf(format, &[value]).as_deref(),
                Ok(expected),
                "{format}"
            );
        }
        assert!(printf("%99999s", &[json!("a")]).is_err());
        assert!(printf("%s", &[]).is_err() && printf("", &[json!(1)]).is_err());
        assert!(printf("%", &[]).is_err() && printf("%5", &[json!(1)]).is_err());
    }

    proptest! {
        #[test]
        fn any_format_is_printed_or_refused(format in "(%[-+# 0]{0,2}[0-9]{0,3}(\\.[0-9]?)?[a-zä%]?|.){0,8}") {
            let _ = printf(&format, &[json!("text"), json!(5), json!(null), json!([1])]);
        }
    }
}

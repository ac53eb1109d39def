//! Environment variables, labels and the files they can come from.

use std::{collections::HashMap, path::Path};

use crate::failure::cannot_open;

/// Variables for a container: from files first, then from options, which win.
/// `NAME` alone takes the value that `lookup` has for it. If it has none, an option is
/// passed on as it is, and takes the variable from the image's; in a file it is nothing.
pub(crate) fn variables(
    files: &[impl AsRef<Path>],
    options: &[String],
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, String> {
    let mut variables = Vec::new();
    for path in files {
        let path = path.as_ref();
        let contents = std::fs::read(path).map_err(|error| cannot_open(path, &error))?;
        parse_file(&contents, &lookup, &mut variables)
            .map_err(|problem| format!("invalid env file ({}): {problem}", path.display()))?;
    }
    for option in options {
        if option.is_empty() || option.starts_with('=') {
            return Err(format!("invalid environment variable: {option}"));
        }
        variables.push(with_value(option, &lookup).unwrap_or_else(|| option.clone()));
    }
    Ok(variables)
}

/// `entry` with its value: its own, or the one that `lookup` has.
fn with_value(entry: &str, lookup: impl Fn(&str) -> Option<String>) -> Option<String> {
    if entry.contains('=') {
        return Some(entry.to_owned());
    }
    lookup(entry).map(|value| format!("{entry}={value}"))
}

/// A file of variables: one a line, `#` begins a comment line, values are taken
/// as they are, quotes and all.
fn parse_file(
    contents: &[u8],
    lookup: impl Fn(&str) -> Option<String>,
    variables: &mut Vec<String>,
) -> Result<(), String> {
    let contents = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents);
    for (number, line) in contents.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line)
            .map_err(|_| format!("invalid utf8 bytes at line {}", number + 1))?
            .trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
        };
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        // A name alone may have blanks after it, which are not part of it.
        let name = if value.is_none() {
            name.trim_end()
        } else {
            name
        };
        if name.contains(char::is_whitespace) {
            return Err(format!("variable '{name}' contains whitespaces"));
        }
        match value {
            Some(value) => variables.push(format!("{name}={value}")),
            None => variables.extend(with_value(name, &lookup)),
        }
    }
    Ok(())
}

/// Labels as they are given: those of files first, one a line, then the options.
pub(crate) fn label_entries(
    files: &[impl AsRef<Path>],
    options: &[String],
) -> Result<Vec<String>, String> {
    let mut labels = Vec::new();
    for path in files {
        let path = path.as_ref();
        let contents = std::fs::read(path).map_err(|error| cannot_open(path, &error))?;
        // A name alone is a label without a value.
        parse_file(&contents, |_| Some(String::new()), &mut labels)
            .map_err(|problem| format!("invalid label file ({}): {problem}", path.display()))?;
    }
    labels.extend_from_slice(options);
    Ok(labels)
}

/// Labels: `name=value`, or `name` for an empty value.
pub(crate) fn labels(options: &[String]) -> Result<HashMap<String, String>, String> {
    options
        .iter()
        .map(|label| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            if name.is_empty() {
                return Err(format!("invalid label: {label}"));
            }
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn host(name: &str) -> Option<String> {
        (name == "HOST").then(|| "here".to_owned())
    }

    fn parse(contents: &[u8]) -> Result<Vec<String>, String> {
        let mut variables = Vec::new();
        parse_file(contents, host, &mut variables).map(|()| variables)
    }

    #[test]
    fn a_file_is_read_as_docker_does() {
        let file = b"\xef\xbb\xbfA=1\r\n# comment\n\n  B= \"x y\" \nHOST\nABSENT\nC==\n";
        assert_eq!(
            parse(file).unwrap(),
            ["A=1", "B= \"x y\" ", "HOST=here", "C=="]
        );
    }

    #[test]
    fn bad_files_are_explained() {
        assert_eq!(parse(b"=x").unwrap_err(), "no variable name on line '=x'");
        assert_eq!(
            parse(b"A B=1").unwrap_err(),
            "variable 'A B' contains whitespaces"
        );
        assert_eq!(
            parse(b"A=1\nB=\xff").unwrap_err(),
            "invalid utf8 bytes at line 2"
        );
    }

    #[test]
    fn options_come_after_files() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "A=file").unwrap();
        let options = ["A=option".to_owned(), "HOST".to_owned(), "NONE".to_owned()];
        assert_eq!(
            variables(&[file.path()], &options, host).unwrap(),
            ["A=file", "A=option", "HOST=here", "NONE"]
        );
        assert!(variables(&[] as &[&Path], &["=x".to_owned()], host).is_err());
        assert!(
            variables(&["/nonexistent"], &[], host)
                .unwrap_err()
                .starts_with("open /nonexistent: ")
        );
    }

    #[test]
    fn labels_may_have_no_value() {
        let labels = labels(&["a=b=c".to_owned(), "d".to_owned()]).unwrap();
        assert_eq!(labels["a"], "b=c");
        assert_eq!(labels["d"], "");
    }

    proptest! {
        #[test]
        fn any_file_is_parsed_or_refused(contents in any::<Vec<u8>>()) {
            if let Ok(variables) = parse(&contents) {
                for variable in variables {
                    let (name, _) = variable.split_once('=').unwrap();
                    prop_assert!(!name.is_empty() && !name.contains(char::is_whitespace));
                }
            }
        }

        #[test]
        fn values_are_taken_as_they_are(name in "[A-Z_]{1,8}", value in "[ -~]{0,20}") {
            let line = format!("{name}={value}");
            prop_assert_eq!(parse(line.as_bytes()).unwrap(), vec![line]);
        }
    }
}

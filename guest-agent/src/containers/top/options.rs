//! Which columns options of `ps` ask for (ps(1)). Which processes they would select
//! does not matter: the container's are shown.

use super::columns::{Column, find, titled};

/// What `-f` shows.
const FULL: &[(&str, &str)] = &[
    ("user", "UID"),
    ("pid", "PID"),
    ("ppid", "PPID"),
    ("c", "C"),
    ("stime", "STIME"),
    ("tty", "TTY"),
    ("time", "TIME"),
    ("cmd", "CMD"),
];

/// What `-F` shows.
const EXTRA_FULL: &[(&str, &str)] = &[
    ("user", "UID"),
    ("pid", "PID"),
    ("ppid", "PPID"),
    ("c", "C"),
    ("sz", "SZ"),
    ("rss", "RSS"),
    ("stime", "STIME"),
    ("tty", "TTY"),
    ("time", "TIME"),
    ("cmd", "CMD"),
];

/// What `u` shows.
const USER: &[(&str, &str)] = &[
    ("user", "USER"),
    ("pid", "PID"),
    ("pcpu", "%CPU"),
    ("pmem", "%MEM"),
    ("vsz", "VSZ"),
    ("rss", "RSS"),
    ("tty", "TTY"),
    ("stat", "STAT"),
    ("bsdstart", "START"),
    ("bsdtime", "TIME"),
    ("args", "COMMAND"),
];

/// What `-l` and `l` show.
const LONG: &[(&str, &str)] = &[
    ("s", "S"),
    ("uid", "UID"),
    ("pid", "PID"),
    ("ppid", "PPID"),
    ("c", "C"),
    ("pri", "PRI"),
    ("ni", "NI"),
    ("sz", "SZ"),
    ("wchan", "WCHAN"),
    ("tty", "TTY"),
    ("time", "TIME"),
    ("cmd", "CMD"),
];

/// What `-j` and `j` show.
const JOBS: &[(&str, &str)] = &[
    ("ppid", "PPID"),
    ("pid", "PID"),
    ("pgid", "PGID"),
    ("sid", "SID"),
    ("tty", "TTY"),
    ("tpgid", "TPGID"),
    ("stat", "STAT"),
    ("uid", "UID"),
    ("time", "TIME"),
    ("command", "COMMAND"),
];

/// What the old style (`ps ax`) shows.
const BSD: &[(&str, &str)] = &[
    ("pid", "PID"),
    ("tty", "TTY"),
    ("stat", "STAT"),
    ("bsdtime", "TIME"),
    ("command", "COMMAND"),
];

/// What no option at all shows (`ps -e`).
const PLAIN: &[(&str, &str)] = &[
    ("pid", "PID"),
    ("tty", "TTY"),
    ("time", "TIME"),
    ("comm", "CMD"),
];

/// The columns to show.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) columns: Vec<Column>,
}

impl Options {
    /// Reads options as they are on a command line; none is `-ef`.
    ///
    /// # Errors
    /// In words for the user, when one is not known.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut style = None;
        let mut own = Vec::new();
        let mut words = text.split_whitespace();
        if text.trim().is_empty() {
            style = Some(FULL);
        }
        while let Some(word) = words.next() {
            if let Some(long) = word.strip_prefix("--") {
                let list = match long.split_once('=') {
                    Some(("format", list)) => Some(list),
                    _ if long == "format" => Some(words.next().unwrap_or_default()),
                    _ => None,
                };
                match (list, long) {
                    (Some(list), _) => add_columns(list, &mut own)?,
                    // They change no columns.
                    (None, "no-headers" | "headers" | "deselect" | "forest") => {}
                    (None, _) => return Err(unknown(word)),
                }
                continue;
            }
            let dashed = word.starts_with('-');
            let letters = word.strip_prefix('-').unwrap_or(word);
            for (index, letter) in letters.char_indices() {
                match (letter, dashed) {
                    ('o', _) => {
                        // The rest of the word, or the next word, is the list.
                        let rest = &letters[index + 1..];
                        let list = if rest.is_empty() {
                            words.next().unwrap_or_default()
                        } else {
                            rest
                        };
                        add_columns(list, &mut own)?;
                        break;
                    }
                    ('f', true) => style = Some(FULL),
                    ('F', true) => style = Some(EXTRA_FULL),
                    ('l', _) => style = Some(LONG),
                    ('j', _) => style = Some(JOBS),
                    ('u', _) => style = Some(USER),
                    // Widths, order, threads and which processes: nothing to us.
                    ('a' | 'x' | 'r' | 'w' | 'f' | 'e' | 'c' | 'H', false) => {
                        style.get_or_insert(BSD);
                    }
                    ('e' | 'A' | 'a' | 'd' | 'w' | 'H' | 'y' | 'x' | 'M' | 'c', true) => {}
                    _ => return Err(unknown(word)),
                }
            }
        }
        if !own.is_empty() {
            require_pid(&own)?;
            return Ok(Self { columns: own });
        }
        let columns = style.unwrap_or(PLAIN).iter();
        Ok(Self {
            columns: columns
                .filter_map(|(name, title)| titled(name, title))
                .collect(),
        })
    }
}

fn unknown(word: &str) -> String {
    format!("ps: option {word:?} is not supported")
}

/// `pid,comm=NAME`: a title goes to the end of the list, as in ps.
fn add_columns(list: &str, columns: &mut Vec<Column>) -> Result<(), String> {
    if list.is_empty() {
        return Err("ps: format specification must follow -o".to_owned());
    }
    let mut rest = list;
    while !rest.is_empty() {
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let (name, tail) = rest.split_at(end);
        let name = name.trim().to_ascii_lowercase();
        let column = if let Some(title) = tail.strip_prefix('=') {
            rest = "";
            titled(&name, title)
        } else {
            rest = tail.strip_prefix(',').unwrap_or(tail);
            find(&name)
        };
        columns.push(
            column.ok_or_else(|| {
                format!("error: unknown user-defined format specifier \"{name}\"")
            })?,
        );
    }
    Ok(())
}

/// Docker's daemon finds a container's processes by this column and asks for it.
fn require_pid(columns: &[Column]) -> Result<(), String> {
    if columns.iter().any(|column| column.title == "PID") {
        Ok(())
    } else {
        Err("Couldn't find PID field in ps output".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn titles(options: &str) -> Result<String, String> {
        let options = Options::parse(options)?;
        let titles: Vec<_> = options.columns.into_iter().map(|c| c.title).collect();
        Ok(titles.join(" "))
    }

    #[test]
    fn styles_are_those_of_ps() {
        let full = "UID PID PPID C STIME TTY TIME CMD";
        let user = "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND";
        for (options, expected) in [
            ("", full),
            ("-ef", full),
            ("-e -f", full),
            ("-f", full),
            ("aux", user),
            ("-aux", user),
            ("auxww", user),
            ("ax", "PID TTY STAT TIME COMMAND"),
            ("-e", "PID TTY TIME CMD"),
            ("-o pid,comm", "PID COMMAND"),
            ("-eo pid,cmd", "PID CMD"),
            ("-opid", "PID"),
            ("o pid,user", "PID USER"),
            ("-o pid -o args", "PID COMMAND"),
            ("-o pid -o comm=NAME", "PID NAME"),
            ("--format pid,rss", "PID RSS"),
            ("--format=pid", "PID"),
            ("-o PID,PPID", "PID PPID"),
        ] {
            assert_eq!(titles(options).as_deref(), Ok(expected), "{options}");
        }
    }

    #[test]
    fn what_ps_would_refuse_is_refused() {
        for (options, part) in [
            ("-o pid,nonsense", "nonsense"),
            ("-o", "must follow -o"),
            ("-Z", "not supported"),
            ("--what", "not supported"),
            ("-o comm", "Couldn't find PID field"),
        ] {
            let error = titles(options).unwrap_err();
            assert!(error.contains(part), "{options}: {error}");
        }
    }

    #[test]
    fn every_column_of_every_style_exists() {
        for style in [FULL, EXTRA_FULL, USER, LONG, JOBS, BSD, PLAIN] {
            for (name, _) in style {
                assert!(find(name).is_some(), "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_options_are_read_or_refused(options in "[-a-z,= ]{0,20}|.{0,20}") {
            let _ = titles(&options);
        }
    }
}

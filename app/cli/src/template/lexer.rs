//! From text to pieces: what is copied, and the tokens between `{{` and `}}`.

/// One piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// Copied as it is.
    Text(String),
    /// The inside of `{{…}}`.
    Action(Vec<Token>),
}

/// One token of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `.`, or `.A.B` as its parts.
    Field(Vec<String>),
    /// `$`, `$x`, and the path right after it.
    Variable(String, Vec<String>),
    /// A keyword, a constant or a function.
    Word(String),
    /// A quoted string, unquoted.
    Text(String),
    /// A number.
    Number(serde_json::Number),
    /// `|`
    Pipe,
    /// `(`
    Open,
    /// `)`, and the path right after it.
    Close(Vec<String>),
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// Cuts a template into pieces. `{{- ` and ` -}}` trim the text next to them.
pub(super) fn lex(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut trim_next = false;
    loop {
        let (text, action) = match rest.find("{{") {
            Some(start) => (&rest[..start], Some(&rest[start + 2..])),
            None => (rest, None),
        };
        let mut text = if trim_next { text.trim_start() } else { text };
        let Some(mut action) = action else {
            push_text(&mut pieces, text);
            return Ok(pieces);
        };
        if action.starts_with('-') && action[1..].starts_with(char::is_whitespace) {
            text = text.trim_end();
            action = &action[1..];
        }
        push_text(&mut pieces, text);
        if let Some(comment) = action.trim_start().strip_prefix("/*") {
            let end = comment.find("*/").ok_or("unclosed comment")?;
            (rest, trim_next) =
                close(&comment[end + 2..])?.ok_or("comment ends before closing delimiter")?;
            continue;
        }
        let (tokens, after, trim) = lex_action(action)?;
        pieces.push(Piece::Action(tokens));
        (rest, trim_next) = (after, trim);
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// What follows the end of an action, and whether it is trimmed; `None` when the
/// action does not end here.
fn close(text: &str) -> Result<Option<(&str, bool)>, String> {
    let blank = text.trim_start();
    if blank.is_empty() {
        return Err("unclosed action".into());
    }
    if let Some(rest) = blank.strip_prefix("}}") {
        return Ok(Some((rest, false)));
    }
    if blank.len() < text.len()
        && let Some(rest) = blank.strip_prefix("-}}")
    {
        return Ok(Some((rest, true)));
    }
    Ok(None)
}

fn lex_action(mut text: &str) -> Result<(Vec<Token>, &str, bool), String> {
    let mut tokens = Vec::new();
    loop {
        if let Some((rest, trim)) = close(text)? {
            return Ok((tokens, rest, trim));
        }
        text = text.trim_start();
        let first = text.chars().next().ok_or("unclosed action")?;
        let (token, length) = match first {
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => {
                let (path, length) = path(&text[1..]);
                (Token::Close(path), 1 + length)
            }
            ',' => (Token::Comma, 1),
            '=' => (Token::Assign, 1),
            ':' if text.starts_with(":=") => (Token::Declare, 2),
            '"' => quoted(text)?,
            '`' => {
                let end = text[1..]
                    .find('`')
                    .ok_or("unterminated raw quoted string")?;
                (Token::Text(text[1..=end].to_owned()), end + 2)
            }
            '.' if !text[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let (path, length) = path(text);
                (Token::Field(path), length.max(1))
            }
            '$' => {
                let name = 1 + word_length(&text[1..]);
                let (path, length) = path(&text[name..]);
                (
                    Token::Variable(text[..name].to_owned(), path),
                    name + length,
                )
            }
            '0'..='9' | '-' | '+' => {
                let length = text[1..]
                    .find(|c: char| !c.is_ascii_digit() && c != '.')
                    .map_or(text.len(), |end| end + 1);
                let number = text[..length].trim_start_matches('+');
                let number = number
                    .parse()
                    .map_err(|_| format!("bad number syntax: \"{}\"", &text[..length]))?;
                (Token::Number(number), length)
            }
            c if c.is_alphabetic() || c == '_' => {
                let length = word_length(text);
                (Token::Word(text[..length].to_owned()), length)
            }
            c => return Err(format!("unexpected {c:?} in an action")),
        };
        tokens.push(token);
        text = &text[length..];
    }
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// The parts of `.A.B` at the beginning of `text`, and its length.
fn path(text: &str) -> (Vec<String>, usize) {
    let mut parts = Vec::new();
    let mut length = 0;
    while let Some(rest) = text[length..].strip_prefix('.') {
        let word = word_length(rest);
        if word == 0 {
            break;
        }
        parts.push(rest[..word].to_owned());
        length += 1 + word;
    }
    (parts, length)
}

/// A string as Go and JSON both write it.
fn quoted(text: &str) -> Result<(Token, usize), String> {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => {
                let quoted = &text[..=index];
                return serde_json::from_str(quoted)
                    .map(|text| (Token::Text(text), quoted.len()))
                    .map_err(|_| format!("bad string {quoted}"));
            }
            '\n' => break,
            _ => {}
        }
    }
    Err("unterminated quoted string".into())
}

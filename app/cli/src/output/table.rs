//! Lists: as a table, as JSON, or through a template.

use serde_json::{Map, Value};

use crate::template::Template;

/// Padding after a cell, and the least width of one, padding included.
const PADDING: usize = 3;
const MIN_WIDTH: usize = 10;

/// A column of a list: the name of its field in templates, and its heading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Such as `RunningFor`.
    pub(crate) field: &'static str,
    /// Such as `CREATED`.
    pub(crate) heading: &'static str,
}

/// One thing in a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// Its fields, for columns, JSON and templates.
    pub(crate) fields: Map<String, Value>,
    /// What `.Label "name"` finds.
    pub(crate) labels: Map<String, Value>,
}

impl Row {
    /// Sets a field.
    pub(crate) fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.fields.insert(field.to_owned(), value.into());
    }
}

/// How a list is to be shown.
#[derive(Debug, Clone)]
pub(crate) enum Format {
    /// Aligned columns under headings.
    Table(Vec<Column>),
    /// One JSON object a line.
    Json,
    /// One line from a template for each row.
    Template(Template),
    /// Aligned columns from a template, with headings from `Vec<Column>`.
    TemplateTable(Template, Vec<Column>),
}

impl Format {
    /// What `--format` says; `columns` when it says nothing, `all` for headings in
    /// `table TEMPLATE`.
    pub(crate) fn parse(
        format: Option<&str>,
        columns: &[Column],
        all: &[Column],
    ) -> Result<Self, String> {
        let format = format.unwrap_or("table").trim();
        // Docker's client takes these two escapes on a command line.
        let unescaped = format.replace("\\t", "\t").replace("\\n", "\n");
        match format {
            "table" | "" => Ok(Self::Table(columns.to_vec())),
            "json" => Ok(Self::Json),
            _ => match unescaped.strip_prefix("table ") {
                Some(template) => Ok(Self::TemplateTable(
                    Template::parse(template.trim())?,
                    all.to_vec(),
                )),
                None => Ok(Self::Template(Template::parse(&unescaped)?)),
            },
        }
    }

    /// The rows as text, with a line break at the end of each line.
    pub(crate) fn render(&self, rows: Vec<Row>) -> Result<String, String> {
        match self {
            Self::Table(columns) => {
                let headings = columns.iter().map(|column| column.heading.to_owned());
                let mut lines = vec![headings.collect::<Vec<_>>()];
                for row in &rows {
                    let cell = |column: &Column| match row.fields.get(column.field) {
                        Some(Value::String(text)) => text.clone(),
                        Some(other) => other.to_string(),
                        None => String::new(),
                    };
                    lines.push(columns.iter().map(cell).collect());
                }
                Ok(align(&lines))
            }
            Self::Json => {
                let lines = rows
                    .into_iter()
                    .map(|row| Ok(serde_json::to_string(&row.fields)? + "\n"));
                lines
                    .collect::<Result<_, serde_json::Error>>()
                    .map_err(|error| error.to_string())
            }
            Self::Template(template) => rows
                .into_iter()
                .map(|row| {
                    let line = template.render(&Value::Object(row.fields), Some(&row.labels))?;
                    Ok(line + "\n")
                })
                .collect(),
            Self::TemplateTable(template, columns) => {
                let headings = columns
                    .iter()
                    .map(|column| (column.field.to_owned(), Value::from(column.heading)))
                    .collect();
                let headings = template.render(&Value::Object(headings), Some(&Map::new()))?;
                let mut lines = vec![cells(&headings)];
                for row in rows {
                    let line = template.render(&Value::Object(row.fields), Some(&row.labels))?;
                    lines.push(cells(&line));
                }
                Ok(align(&lines))
            }
        }
    }
}

fn cells(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

/// Pads all cells but the last of each line to the width of their column.
pub(crate) fn align(lines: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        let padded = line.len().saturating_sub(1);
        for (index, cell) in line.iter().take(padded).enumerate() {
            let width = (cell.chars().count() + PADDING).max(MIN_WIDTH);
            match widths.get_mut(index) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for line in lines {
        if let Some((last, cells)) = line.split_last() {
            for (cell, width) in cells.iter().zip(&widths) {
                text.push_str(cell);
                let missing = width.saturating_sub(cell.chars().count());
                text.extend(std::iter::repeat_n(' ', missing));
            }
            text.push_str(last);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: [Column; 2] = [
        Column {
            field: "ID",
            heading: "CONTAINER ID",
        },
        Column {
            field: "Names",
            heading: "NAMES",
        },
    ];

    fn rows() -> Vec<Row> {
        [("0123456789ab", "web"), ("ab", "database")]
            .into_iter()
            .map(|(id, name)| {
                let mut row = Row::default();
                row.set("ID", id);
                row.set("Names", name);
                row.labels.insert("tier".into(), json!("x"));
                row
            })
            .collect()
    }

    fn render(format: Option<&str>) -> String {
        Format::parse(format, &COLUMNS, &COLUMNS)
            .unwrap()
            .render(rows())
            .unwrap()
    }

    #[test]
    fn all_formats() {
        let table = "CONTAINER ID   NAMES\n0123456789ab   web\nab             database\n";
        assert_eq!(render(None), table);
        assert_eq!(render(Some("table {{.ID}}\\t{{.Names}}")), table);
        assert_eq!(
            render(Some("json")),
            "{\"ID\":\"0123456789ab\",\"Names\":\"web\"}\n{\"ID\":\"ab\",\"Names\":\"database\"}\n"
        );
        assert_eq!(
            render(Some("{{.Names}} {{.Label \"tier\"}}")),
            "web x\ndatabase x\n"
        );
        assert!(Format::parse(Some("{{.ID"), &COLUMNS, &COLUMNS).is_err());
        let wrong = Format::parse(Some("{{.Nope}}"), &COLUMNS, &COLUMNS).unwrap();
        assert!(wrong.render(rows()).is_err());
    }

    #[test]
    fn short_columns_have_a_least_width() {
        let lines = [vec!["A".into(), "B".into(), "C".into()], vec!["1".into()]];
        assert_eq!(align(&lines), "A         B         C\n1\n");
    }
}

//! From tree and value to text.

use serde_json::{Map, Value};

use super::{
    datum::{Datum, display},
    docker_types, functions,
    parser::{Node, Operand, Pipeline},
};

/// How many parts are applied at most, and how much they print: ranges in ranges
/// could go on for longer than anybody waits.
const MAX_STEPS: usize = 1_000_000;
const MAX_OUTPUT: usize = 64 * 1024 * 1024;

/// Fields that are maps in Docker's types: a key that is not there is no mistake.
const MAPS: [&str; 12] = [
    "Annotations",
    "Data",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// How a list of nodes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// At its end.
    On,
    /// With `break`.
    Break,
    /// With `continue`.
    Continue,
}

/// Applies nodes to a value.
pub(super) fn render(
    nodes: &[Node],
    root: &Value,
    labels: Option<&Map<String, Value>>,
) -> Result<String, String> {
    let mut renderer = Renderer {
        output: String::new(),
        variables: vec![("$".to_owned(), root.clone())],
        labels,
        steps: 0,
    };
    renderer.nodes(nodes, root)?;
    Ok(renderer.output)
}

struct Renderer<'a> {
    output: String,
    /// Innermost last.
    variables: Vec<(String, Value)>,
    labels: Option<&'a Map<String, Value>>,
    steps: usize,
}

impl Renderer<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        for node in nodes {
            self.steps += 1;
            if self.steps > MAX_STEPS || self.output.len() > MAX_OUTPUT {
                return Err("the template does not come to an end".into());
            }
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.output.push_str(text),
            Node::Output(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                let is_nil = matches!(value, Datum::Nil(Value::Null));
                let value = value.required()?;
                if pipeline.assigns {
                    self.assign(&pipeline.declared, &value)?;
                } else if is_nil && pipeline.declared.is_empty() {
                    self.output.push_str("<nil>");
                } else if pipeline.declared.is_empty() {
                    self.output.push_str(&display(&value));
                } else {
                    self.declare(&pipeline.declared, &[value]);
                }
            }
            Node::If {
                condition,
                then,
                otherwise,
            } => {
                return self.scope(|this| {
                    let value = this.pipeline(condition, dot)?;
                    let nodes = if value.is_true() { then } else { otherwise };
                    this.declare_present(&condition.declared, value);
                    this.nodes(nodes, dot)
                });
            }
            Node::With {
                value,
                then,
                otherwise,
            } => {
                return self.scope(|this| {
                    let declared = &value.declared;
                    let value = this.pipeline(value, dot)?;
                    if !value.is_true() {
                        return this.nodes(otherwise, dot);
                    }
                    let value = value.required()?;
                    this.declare(declared, std::slice::from_ref(&value));
                    this.nodes(then, &value)
                });
            }
            Node::Range {
                over,
                each,
                otherwise,
            } => return self.range(over, each, otherwise, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        over: &Pipeline,
        each: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, String> {
        let elements: Vec<(Value, Value)> = match self.pipeline(over, dot)?.required()? {
            Value::Null => Vec::new(),
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (Value::from(index), item))
                .collect(),
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.into_iter().collect();
                fields.sort_by(|(a, _), (b, _)| a.cmp(b));
                fields
                    .into_iter()
                    .map(|(name, value)| (Value::from(name), value))
                    .collect()
            }
            other => {
                return Err(format!("range can't iterate over {}", display(&other)));
            }
        };
        if elements.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, value) in elements {
            let flow = self.scope(|this| {
                match over.declared.as_slice() {
                    [only] => {
                        this.declare(std::slice::from_ref(only), std::slice::from_ref(&value));
                    }
                    both => this.declare(both, &[key, value.clone()]),
                }
                this.nodes(each, &value)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    /// Runs `inside`, then forgets the variables that it declared.
    fn scope(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<Flow, String>,
    ) -> Result<Flow, String> {
        let outer = self.variables.len();
        let result = inside(self);
        self.variables.truncate(outer);
        result
    }

    fn declare(&mut self, names: &[String], values: &[Value]) {
        for (name, value) in names.iter().zip(values) {
            self.variables.push((name.clone(), value.clone()));
        }
    }

    /// Gives a variable that there is another value.
    fn assign(&mut self, names: &[String], value: &Value) -> Result<(), String> {
        for name in names {
            let variable = self.variables.iter_mut().rfind(|(known, _)| known == name);
            match variable {
                Some((_, slot)) => slot.clone_from(value),
                None => return Err(format!("undefined variable \"{name}\"")),
            }
        }
        Ok(())
    }

    fn declare_present(&mut self, names: &[String], value: Datum) {
        if let Ok(value) = value.required() {
            self.declare(names, std::slice::from_ref(&value));
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Datum, String> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value, dot)?);
        }
        value.ok_or_else(|| "missing value for command".into())
    }

    fn command(
        &mut self,
        operands: &[Operand],
        piped: Option<Datum>,
        dot: &Value,
    ) -> Result<Datum, String> {
        let Some((first, rest)) = operands.split_first() else {
            return Err("missing value for command".into());
        };
        if let Operand::Function(name) = first
            && (name == "and" || name == "or")
        {
            return self.first_that_is(name == "or", rest, piped, dot);
        }
        let mut arguments = rest
            .iter()
            .map(|operand| self.operand(operand, dot))
            .collect::<Result<Vec<_>, _>>()?;
        arguments.extend(piped);
        match first {
            Operand::Function(name) => functions::call(name, arguments),
            Operand::Field(path) if path == &["Label"] && arguments.len() == 1 => {
                self.label(arguments)
            }
            value if arguments.is_empty() => self.operand(value, dot),
            _ => Err("can't give an argument to what is not a function".into()),
        }
    }

    /// `and` and `or`: the first argument that decides, or the last. Those after it
    /// are not looked at, so that they may name what is not there.
    fn first_that_is(
        &mut self,
        wanted: bool,
        operands: &[Operand],
        piped: Option<Datum>,
        dot: &Value,
    ) -> Result<Datum, String> {
        let mut last = None;
        for operand in operands {
            let value = self.operand(operand, dot)?;
            if value.is_true() == wanted {
                return Ok(value);
            }
            last = Some(value);
        }
        piped.or(last).ok_or_else(|| {
            let name = if wanted { "or" } else { "and" };
            format!("{name} needs an argument")
        })
    }

    fn label(&self, arguments: Vec<Datum>) -> Result<Datum, String> {
        let labels = self.labels.ok_or("there is no field .Label")?;
        let name = arguments
            .into_iter()
            .next()
            .map(Datum::required)
            .transpose()?;
        let value = name
            .as_ref()
            .and_then(Value::as_str)
            .and_then(|name| labels.get(name))
            .cloned();
        Ok(Datum::Present(value.unwrap_or_else(|| Value::from(""))))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Datum, String> {
        match operand {
            Operand::Constant(value) => Ok(Datum::Present(value.clone())),
            Operand::Field(path) => Ok(follow(dot, path)),
            Operand::Variable(name, path) => {
                let (_, value) = self
                    .variables
                    .iter()
                    .rfind(|(known, _)| known == name)
                    .ok_or_else(|| format!("undefined variable \"{name}\""))?;
                Ok(follow(value, path))
            }
            Operand::Function(name) => functions::call(name, Vec::new()),
            Operand::Group(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                if path.is_empty() {
                    Ok(value)
                } else {
                    Ok(follow(&value.required()?, path))
                }
            }
        }
    }
}

/// Follows a path of fields. Names that differ only in case are found too:
/// Docker's Go fields (`.ID`) and its JSON (`Id`) differ that way.
fn follow(value: &Value, path: &[String]) -> Datum {
    let mut value = value;
    for (depth, name) in path.iter().enumerate() {
        let found = value.as_object().and_then(|fields| {
            fields.get(name).or_else(|| {
                fields
                    .iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value)
            })
        });
        let empty = || {
            let parent = depth.checked_sub(1).map(|above| path[above].as_str());
            docker_types::empty(value.as_object()?, parent, name)
        };
        match found {
            Some(Value::Null) if depth + 1 == path.len() => {
                return empty().unwrap_or(Datum::Present(Value::Null));
            }
            Some(found) => value = found,
            None if depth + 1 == path.len()
                && let Some(empty) = empty() =>
            {
                return empty;
            }
            // As in Go, any key may be asked of a map.
            None if depth > 0 && MAPS.contains(&path[depth - 1].as_str()) => {
                return Datum::Present(Value::Null);
            }
            None => return Datum::Missing(format!(".{}", path[..=depth].join("."))),
        }
    }
    Datum::Present(value.clone())
}

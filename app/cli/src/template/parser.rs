//! From pieces to a tree.

use serde_json::Value;

use super::{
    functions,
    lexer::{Piece, Token},
};

/// How deep blocks and parentheses may nest.
const MAX_DEPTH: usize = 64;

/// A part of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Copied as it is.
    Text(String),
    /// The value of a pipeline is printed.
    Output(Pipeline),
    /// `if` and `else if`, and `else`.
    If {
        /// The condition.
        condition: Pipeline,
        /// When it holds.
        then: Vec<Node>,
        /// When it does not.
        otherwise: Vec<Node>,
    },
    /// `with`: as `if`, and the value becomes the dot.
    With {
        /// The value.
        value: Pipeline,
        /// When there is one.
        then: Vec<Node>,
        /// When it is empty.
        otherwise: Vec<Node>,
    },
    /// `range`.
    Range {
        /// What to go over.
        over: Pipeline,
        /// For each element, which becomes the dot.
        each: Vec<Node>,
        /// When there is none.
        otherwise: Vec<Node>,
    },
    /// `break`: the range is over.
    Break,
    /// `continue`: the range goes on with the next element.
    Continue,
}

/// `$x := a | b | c`.
#[derive(Debug, Clone, Default)]
pub(super) struct Pipeline {
    /// The variables that are set to the value.
    pub(super) declared: Vec<String>,
    /// They are there already (`$x = a`).
    pub(super) assigns: bool,
    /// Each gets the value before it as its last argument.
    pub(super) commands: Vec<Vec<Operand>>,
}

/// A part of a command.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    /// A path from the dot.
    Field(Vec<String>),
    /// A path from a variable.
    Variable(String, Vec<String>),
    /// A constant.
    Constant(Value),
    /// A function to call.
    Function(String),
    /// `(pipeline)`, and a path from its value.
    Group(Pipeline, Vec<String>),
}

/// How a block of nodes ended.
enum Stop {
    Template,
    End,
    Else(Vec<Token>),
}

/// Parses all pieces.
pub(super) fn parse(pieces: &[Piece]) -> Result<Vec<Node>, String> {
    let mut parser = Parser {
        pieces,
        next: 0,
        ranges: 0,
    };
    match parser.block(0)? {
        (nodes, Stop::Template) => Ok(nodes),
        (_, Stop::End) => Err("unexpected {{end}}".into()),
        (_, Stop::Else(_)) => Err("unexpected {{else}}".into()),
    }
}

struct Parser<'a> {
    pieces: &'a [Piece],
    next: usize,
    /// How many ranges are open.
    ranges: usize,
}

impl Parser<'_> {
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, Stop), String> {
        if depth > MAX_DEPTH {
            return Err("blocks are nested too deep".into());
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.next) {
            self.next += 1;
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let (keyword, rest) = match tokens.split_first() {
                Some((Token::Word(word), rest)) => (word.as_str(), rest),
                _ => ("", tokens.as_slice()),
            };
            match keyword {
                "end" if rest.is_empty() => return Ok((nodes, Stop::End)),
                "else" => return Ok((nodes, Stop::Else(rest.to_vec()))),
                "break" | "continue" if rest.is_empty() => {
                    if self.ranges == 0 {
                        return Err(format!("{{{{{keyword}}}}} outside {{{{range}}}}"));
                    }
                    nodes.push(if keyword == "break" {
                        Node::Break
                    } else {
                        Node::Continue
                    });
                }
                "if" | "with" | "range" => nodes.push(self.control(keyword, rest, depth)?),
                _ => nodes.push(Node::Output(pipeline(tokens)?)),
            }
        }
        Ok((nodes, Stop::Template))
    }

    fn control(&mut self, keyword: &str, tokens: &[Token], depth: usize) -> Result<Node, String> {
        let pipeline = pipeline(tokens)?;
        if pipeline.assigns {
            return Err(format!("unexpected \"=\" in {{{{{keyword}}}}}"));
        }
        let range = usize::from(keyword == "range");
        self.ranges += range;
        let (then, end) = self.block(depth + 1)?;
        self.ranges -= range;
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::Template => {
                return Err(format!(
                    "unexpected end of the template in {{{{{keyword}}}}}"
                ));
            }
            Stop::Else(rest) => match rest.split_first() {
                None => match self.block(depth + 1)? {
                    (nodes, Stop::End) => nodes,
                    (_, Stop::Template) => {
                        return Err("unexpected end of the template in {{else}}".into());
                    }
                    (_, Stop::Else(_)) => return Err("unexpected {{else}}".into()),
                },
                // `else if` and `else with` end with the same `end`.
                Some((Token::Word(next), rest))
                    if (next == "if" || next == "with") && keyword != "range" =>
                {
                    vec![self.control(next, rest, depth + 1)?]
                }
                Some(_) => return Err("unexpected words after {{else".into()),
            },
        };
        if pipeline.declared.len() > 1 && keyword != "range" {
            return Err(format!("too many declarations in {{{{{keyword}}}}}"));
        }
        Ok(match keyword {
            "if" => Node::If {
                condition: pipeline,
                then,
                otherwise,
            },
            "with" => Node::With {
                value: pipeline,
                then,
                otherwise,
            },
            _ => Node::Range {
                over: pipeline,
                each: then,
                otherwise,
            },
        })
    }
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, String> {
    let mut rest = tokens;
    let pipeline = parse_pipeline(&mut rest, 0)?;
    match rest.first() {
        None => Ok(pipeline),
        Some(Token::Close(_)) => Err("unexpected right paren".into()),
        Some(_) => Err("unexpected words in an action".into()),
    }
}

fn parse_pipeline(rest: &mut &[Token], depth: usize) -> Result<Pipeline, String> {
    if depth > MAX_DEPTH {
        return Err("parentheses are nested too deep".into());
    }
    let mut pipeline = Pipeline::default();
    match rest {
        [Token::Variable(name, path), Token::Declare, tail @ ..] if path.is_empty() => {
            pipeline.declared = vec![name.clone()];
            *rest = tail;
        }
        [Token::Variable(name, path), Token::Assign, tail @ ..] if path.is_empty() => {
            pipeline.declared = vec![name.clone()];
            pipeline.assigns = true;
            *rest = tail;
        }
        [
            Token::Variable(first, _),
            Token::Comma,
            Token::Variable(second, _),
            Token::Declare,
            tail @ ..,
        ] => {
            pipeline.declared = vec![first.clone(), second.clone()];
            *rest = tail;
        }
        _ => {}
    }
    loop {
        let command = command(rest, depth)?;
        if command.is_empty() {
            return Err("missing value for command".into());
        }
        pipeline.commands.push(command);
        match rest.split_first() {
            Some((Token::Pipe, tail)) => *rest = tail,
            _ => return Ok(pipeline),
        }
    }
}

fn command(rest: &mut &[Token], depth: usize) -> Result<Vec<Operand>, String> {
    let mut operands = Vec::new();
    while let Some((token, tail)) = rest.split_first() {
        let operand = match token {
            Token::Pipe | Token::Close(_) => break,
            Token::Field(path) => Operand::Field(path.clone()),
            Token::Text(text) => Operand::Constant(Value::from(text.as_str())),
            Token::Number(number) => Operand::Constant(Value::Number(number.clone())),
            Token::Word(word) => match word.as_str() {
                "true" => Operand::Constant(Value::Bool(true)),
                "false" => Operand::Constant(Value::Bool(false)),
                "nil" => Operand::Constant(Value::Null),
                name if functions::exists(name) => Operand::Function(name.to_owned()),
                name => return Err(format!("function \"{name}\" is not supported")),
            },
            Token::Variable(name, path) => Operand::Variable(name.clone(), path.clone()),
            Token::Open => {
                *rest = tail;
                let inner = parse_pipeline(rest, depth + 1)?;
                let Some((Token::Close(path), tail)) = rest.split_first() else {
                    return Err("unclosed left paren".into());
                };
                *rest = tail;
                operands.push(Operand::Group(inner, path.clone()));
                continue;
            }
            Token::Comma | Token::Declare | Token::Assign => {
                return Err("unexpected \",\", \":=\" or \"=\"".into());
            }
        };
        operands.push(operand);
        *rest = tail;
    }
    Ok(operands)
}

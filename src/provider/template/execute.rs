//! A parsed template is walked, and its output collected.
//!
//! Owns the variables and the bounds on work, output and nesting. Every error carries the line of its node.
//! Read next: `function.rs`.

use std::fmt::Write;

use super::parse::{Argument, Kind, Node, Pipe, Tree};
use super::value::Value;
use super::{DEPTH_MAX, OUTPUT_BYTES_MAX, STEPS_MAX, TemplateError};

/// Bytes or elements that a function handles in the time of one step.
const WEIGHT_PER_STEP: usize = 16;

pub(super) fn run(tree: &Tree) -> Result<String, TemplateError> {
    // What the reference gives its templates is the value false.
    let data = Value::Bool(false);
    let mut walk = Walk {
        tree,
        output: String::new(),
        variables: Vec::new(),
        steps: 0,
        depth: 0,
    };
    walk.variables.push(("$".to_owned(), data.clone()));
    walk.nodes(&tree.root, &data)?;
    Ok(walk.output)
}

/// How a list of nodes was left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Walk<'a> {
    tree: &'a Tree,
    output: String,
    variables: Vec<(String, Value)>,
    steps: u64,
    depth: usize,
}

type Done<T> = Result<T, TemplateError>;

impl Walk<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Done<Flow> {
        self.depth += 1;
        for node in nodes {
            let fail = |message: String| TemplateError {
                line: node.line,
                message,
            };
            if self.depth > DEPTH_MAX {
                return Err(fail(format!("nested deeper than {DEPTH_MAX}")));
            }
            self.step(1).map_err(fail)?;
            let mark = self.variables.len();
            let flow = match &node.kind {
                Kind::Text(text) => {
                    self.output.push_str(text);
                    Flow::Next
                }
                Kind::Action(pipe) => {
                    let value = self.pipe(pipe, dot).map_err(fail)?;
                    if pipe.variables.is_empty() {
                        match value {
                            Value::Nil => self.output.push_str("<no value>"),
                            // Writing into a string cannot fail.
                            value => drop(write!(self.output, "{value}")),
                        }
                    }
                    // What it declared is seen by the nodes after it.
                    if self.output.len() > OUTPUT_BYTES_MAX {
                        return Err(fail(format!("produces more than {OUTPUT_BYTES_MAX} bytes")));
                    }
                    continue;
                }
                Kind::If {
                    pipe,
                    then,
                    otherwise,
                } => {
                    let value = self.pipe(pipe, dot).map_err(fail)?;
                    self.nodes(if value.is_true() { then } else { otherwise }, dot)?
                }
                Kind::With {
                    pipe,
                    then,
                    otherwise,
                } => {
                    let value = self.pipe(pipe, dot).map_err(fail)?;
                    if value.is_true() {
                        self.nodes(then, &value)?
                    } else {
                        self.nodes(otherwise, dot)?
                    }
                }
                Kind::Range {
                    pipe,
                    each,
                    otherwise,
                } => self.range(pipe, each, otherwise, dot, node.line)?,
                Kind::Template { name, pipe } => {
                    let value = pipe
                        .as_ref()
                        .map_or(Ok(Value::Nil), |pipe| self.pipe(pipe, dot))
                        .map_err(fail)?;
                    let Some(body) = self.tree.defined.get(name) else {
                        return Err(fail(format!("template \"{name}\" not defined")));
                    };
                    let outside = std::mem::replace(
                        &mut self.variables,
                        vec![("$".to_owned(), value.clone())],
                    );
                    self.nodes(body, &value)?;
                    self.variables = outside;
                    Flow::Next
                }
                Kind::Break => Flow::Break,
                Kind::Continue => Flow::Continue,
            };
            self.variables.truncate(mark);
            if self.output.len() > OUTPUT_BYTES_MAX {
                return Err(fail(format!("produces more than {OUTPUT_BYTES_MAX} bytes")));
            }
            if flow != Flow::Next {
                self.depth -= 1;
                return Ok(flow);
            }
        }
        self.depth -= 1;
        Ok(Flow::Next)
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        each: &[Node],
        otherwise: &[Node],
        dot: &Value,
        line: usize,
    ) -> Done<Flow> {
        let fail = |message: String| TemplateError { line, message };
        let over = self.pipe(pipe, dot).map_err(fail)?;
        let items: Vec<(Value, Value)> = match &over {
            Value::List(list) => (0..)
                .map(Value::Int)
                .zip(list.items().iter().map(Value::copy))
                .collect(),
            Value::Map(map) => map
                .borrow()
                .entries()
                .iter()
                .map(|(key, value)| (Value::Text(key.clone()), value.copy()))
                .collect(),
            Value::Nil => Vec::new(),
            other => return Err(fail(format!("range cannot go over {}", other.kind()))),
        };
        self.step(items.len() / WEIGHT_PER_STEP).map_err(fail)?;
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            self.step(1).map_err(fail)?;
            let mark = self.variables.len();
            match pipe.variables.as_slice() {
                [] => {}
                [one] => self.assign(one, &item),
                [index, element, ..] => {
                    self.assign(index, &key);
                    self.assign(element, &item);
                }
            }
            let flow = self.nodes(each, &item)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    /// The value of a pipe; its variables take it.
    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, last, dot)?);
        }
        self.depth -= 1;
        let value = last.unwrap_or(Value::Nil);
        for name in &pipe.variables {
            if pipe.is_assignment {
                self.assign(name, &value);
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn assign(&mut self, name: &str, value: &Value) {
        if let Some((_, place)) = self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| known == name)
        {
            *place = value.clone();
        }
    }

    fn command(
        &mut self,
        arguments: &[Argument],
        last: Option<Value>,
        dot: &Value,
    ) -> Result<Value, String> {
        if let Some((Argument::Function(function, path), given)) = arguments.split_first() {
            let mut values = Vec::with_capacity(given.len() + 1);
            for argument in given {
                values.push(self.argument(argument, dot)?);
            }
            values.extend(last);
            let weight = |values: &[Value]| values.iter().map(Value::weight).sum::<usize>();
            self.step(function.steps + weight(&values) / WEIGHT_PER_STEP)?;
            let value = function.call(&values)?;
            self.step(value.weight() / WEIGHT_PER_STEP)?;
            return fields(value, path);
        }
        match arguments {
            [value] if last.is_none() => self.argument(value, dot),
            _ => Err("arguments are given to a value that is no function".to_owned()),
        }
    }

    fn argument(&mut self, argument: &Argument, dot: &Value) -> Result<Value, String> {
        match argument {
            Argument::Dot => Ok(dot.clone()),
            Argument::Constant(value) => Ok(value.clone()),
            Argument::Field(path) => fields(dot.clone(), path),
            Argument::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                fields(found.map_or(Value::Nil, |(_, value)| value.clone()), path)
            }
            Argument::Function(function, path) => {
                self.step(function.steps)?;
                fields(function.call(&[])?, path)
            }
            Argument::Pipe(pipe, path) => {
                let mark = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                self.variables.truncate(mark);
                fields(value, path)
            }
        }
    }

    fn step(&mut self, steps: usize) -> Result<(), String> {
        self.steps += steps as u64;
        if self.steps > STEPS_MAX {
            return Err(format!("takes more than {STEPS_MAX} steps"));
        }
        Ok(())
    }
}

fn fields(value: Value, path: &[String]) -> Result<Value, String> {
    path.iter().try_fold(value, |value, name| match &value {
        Value::Map(map) => Ok(map.borrow().get(name)),
        Value::Nil => Err(format!("no value has a field \"{name}\"")),
        other => Err(format!("{} has no field \"{name}\"", other.kind())),
    })
}

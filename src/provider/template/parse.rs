//! The text of a template becomes a tree.
//!
//! Owns the grammar: every function and variable is known here or the template is refused. Never expands anything.
//! Read next: `execute.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::function::{self, Function};
use super::value::Value;
use super::{DEPTH_MAX, TemplateError};

/// A parsed template and those it defines.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: Vec<Node>,
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Text(String),
    Action(Pipe),
    If {
        pipe: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        pipe: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        pipe: Pipe,
        each: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Template {
        name: String,
        pipe: Option<Pipe>,
    },
    Break,
    Continue,
}

/// Commands, each given the value of the one before as its last argument.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Variables that take the value.
    pub(super) variables: Vec<String>,
    /// `=` instead of `:=`.
    pub(super) is_assignment: bool,
    pub(super) commands: Vec<Vec<Argument>>,
}

#[derive(Debug)]
pub(super) enum Argument {
    Dot,
    Constant(Value),
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(&'static Function, Vec<String>),
    Pipe(Pipe, Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Field(String),
    Variable(String),
    Word(String),
    Open,
    Close,
    Bar,
    Comma,
    Declare,
    Assign,
}

/// A token, its line, and whether it touches the one before it.
#[derive(Debug)]
struct Lexeme {
    token: Token,
    line: usize,
    is_adjacent: bool,
}

#[derive(Debug)]
enum Piece {
    Text(usize, String),
    Action(usize, Vec<Lexeme>),
}

fn error<T>(line: usize, message: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError {
        line,
        message: message.into(),
    })
}

pub(super) fn parse(text: &str) -> Result<Tree, TemplateError> {
    let mut pieces = pieces(text)?.into_iter();
    let mut parser = Parser {
        defined: BTreeMap::new(),
        variables: vec!["$".to_owned()],
        depth: 0,
        loops: 0,
    };
    let (root, end) = parser.nodes(&mut pieces)?;
    match end {
        End::Text => Ok(Tree {
            root,
            defined: parser.defined,
        }),
        End::Closed(line) => error(line, "unexpected end"),
        End::Else(line, _) => error(line, "unexpected else"),
    }
}

/// How a list of nodes ended.
enum End {
    Text,
    Closed(usize),
    Else(usize, Vec<Lexeme>),
}

struct Parser {
    defined: BTreeMap<String, Vec<Node>>,
    variables: Vec<String>,
    depth: usize,
    loops: usize,
}

type Pieces = std::vec::IntoIter<Piece>;
type Lexemes = VecDeque<Lexeme>;

impl Parser {
    fn deeper(&mut self, line: usize) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return error(line, format!("nested deeper than {DEPTH_MAX}"));
        }
        Ok(())
    }

    fn nodes(&mut self, pieces: &mut Pieces) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = pieces.next() {
            let (line, lexemes) = match piece {
                Piece::Text(line, text) => {
                    nodes.push(Node {
                        line,
                        kind: Kind::Text(text),
                    });
                    continue;
                }
                Piece::Action(line, lexemes) => (line, lexemes),
            };
            let keyword = match lexemes.first().map(|lexeme| &lexeme.token) {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            let is_keyword = matches!(
                keyword.as_str(),
                "if" | "with"
                    | "range"
                    | "else"
                    | "end"
                    | "define"
                    | "block"
                    | "template"
                    | "break"
                    | "continue"
            );
            let mut rest = lexemes.into_iter();
            if is_keyword {
                rest.next();
            }
            let rest: Vec<Lexeme> = rest.collect();
            let kind = match keyword.as_str() {
                "end" => {
                    nothing_more(&rest)?;
                    return Ok((nodes, End::Closed(line)));
                }
                "else" => return Ok((nodes, End::Else(line, rest))),
                "if" | "with" | "range" => self.control(&keyword, line, rest, pieces)?,
                "define" => {
                    self.define(line, rest, pieces)?;
                    continue;
                }
                "block" => {
                    let (name, pipe) = self.name_and_pipe("block", line, rest)?;
                    if pipe.is_none() {
                        return error(line, "missing value for block");
                    }
                    let body = self.body("block", line, pieces)?;
                    self.defined.entry(name.clone()).or_insert(body);
                    Kind::Template { name, pipe }
                }
                "template" => {
                    let (name, pipe) = self.name_and_pipe("template", line, rest)?;
                    Kind::Template { name, pipe }
                }
                "break" | "continue" => {
                    nothing_more(&rest)?;
                    if self.loops == 0 {
                        return error(line, format!("{keyword} outside of range"));
                    }
                    if keyword == "break" {
                        Kind::Break
                    } else {
                        Kind::Continue
                    }
                }
                _ => Kind::Action(self.whole_pipe(line, rest, "an action")?),
            };
            nodes.push(Node { line, kind });
        }
        Ok((nodes, End::Text))
    }

    fn control(
        &mut self,
        keyword: &str,
        line: usize,
        lexemes: Vec<Lexeme>,
        pieces: &mut Pieces,
    ) -> Result<Kind, TemplateError> {
        self.deeper(line)?;
        let mark = self.variables.len();
        let pipe = self.whole_pipe(line, lexemes, keyword)?;
        self.loops += usize::from(keyword == "range");
        let inner = self.variables.len();
        let (then, end) = self.nodes(pieces)?;
        self.variables.truncate(inner);
        self.loops -= usize::from(keyword == "range");
        let otherwise = match end {
            End::Closed(_) => Vec::new(),
            End::Text => return error(line, format!("{keyword} without end")),
            End::Else(line, rest) if rest.is_empty() => {
                let (otherwise, end) = self.nodes(pieces)?;
                match end {
                    End::Closed(_) => otherwise,
                    End::Text => return error(line, "else without end"),
                    End::Else(line, _) => return error(line, "expected end, found a second else"),
                }
            }
            End::Else(line, mut rest) => {
                // "else if" is an if inside of the else, and shares its end.
                let word = rest.remove(0);
                match &word.token {
                    Token::Word(next) if next == keyword && keyword != "range" => {
                        let kind = self.control(keyword, line, rest, pieces)?;
                        vec![Node { line, kind }]
                    }
                    _ => return error(line, "unexpected word after else"),
                }
            }
        };
        self.variables.truncate(mark);
        self.depth -= 1;
        Ok(match keyword {
            "if" => Kind::If {
                pipe,
                then,
                otherwise,
            },
            "with" => Kind::With {
                pipe,
                then,
                otherwise,
            },
            _ => Kind::Range {
                pipe,
                each: then,
                otherwise,
            },
        })
    }

    fn define(
        &mut self,
        line: usize,
        lexemes: Vec<Lexeme>,
        pieces: &mut Pieces,
    ) -> Result<(), TemplateError> {
        let mut lexemes = lexemes.into_iter();
        let Some(Lexeme {
            token: Token::Text(name),
            ..
        }) = lexemes.next()
        else {
            return error(line, "define needs a quoted name");
        };
        if lexemes.next().is_some() {
            return error(line, "unexpected word after the name of a define");
        }
        let body = self.body("define", line, pieces)?;
        self.defined.insert(name, body);
        Ok(())
    }

    /// The nodes up to the end of a define or block. Variables from outside are not seen inside.
    fn body(
        &mut self,
        keyword: &str,
        line: usize,
        pieces: &mut Pieces,
    ) -> Result<Vec<Node>, TemplateError> {
        self.deeper(line)?;
        let outside = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let loops = std::mem::take(&mut self.loops);
        let (body, end) = self.nodes(pieces)?;
        self.variables = outside;
        self.loops = loops;
        self.depth -= 1;
        match end {
            End::Closed(_) => Ok(body),
            End::Text => error(line, format!("{keyword} without end")),
            End::Else(line, _) => error(line, "unexpected else"),
        }
    }

    fn name_and_pipe(
        &mut self,
        keyword: &str,
        line: usize,
        lexemes: Vec<Lexeme>,
    ) -> Result<(String, Option<Pipe>), TemplateError> {
        let mut lexemes = lexemes.into_iter();
        let Some(Lexeme {
            token: Token::Text(name),
            ..
        }) = lexemes.next()
        else {
            return error(line, format!("{keyword} needs a quoted name"));
        };
        let rest: Vec<Lexeme> = lexemes.collect();
        let pipe = if rest.is_empty() {
            None
        } else {
            Some(self.whole_pipe(line, rest, keyword)?)
        };
        Ok((name, pipe))
    }

    fn whole_pipe(
        &mut self,
        line: usize,
        lexemes: Vec<Lexeme>,
        place: &str,
    ) -> Result<Pipe, TemplateError> {
        let mut lexemes = Lexemes::from(lexemes);
        let pipe = self.pipe(line, &mut lexemes, place)?;
        match lexemes.pop_front() {
            None => Ok(pipe),
            Some(Lexeme { line, .. }) => error(line, "unexpected right parenthesis"),
        }
    }

    /// A pipe up to the end of the action or to a right parenthesis, which is left.
    fn pipe(
        &mut self,
        line: usize,
        lexemes: &mut Lexemes,
        place: &str,
    ) -> Result<Pipe, TemplateError> {
        self.deeper(line)?;
        let (variables, is_assignment) = self.variables(line, lexemes, place)?;
        let mut commands = Vec::new();
        loop {
            let command = self.command(lexemes)?;
            let Some(first) = command.first() else {
                return error(line, format!("missing value in {place}"));
            };
            if !commands.is_empty() && !matches!(first, Argument::Function(..)) {
                return error(
                    line,
                    "a value that is no function stands in a pipeline after the first",
                );
            }
            commands.push(command);
            if lexemes
                .pop_front_if(|lexeme| lexeme.token == Token::Bar)
                .is_none()
            {
                break;
            }
        }
        if is_assignment {
            if let Some(unknown) = variables.iter().find(|name| !self.variables.contains(name)) {
                return error(line, format!("undefined variable \"{unknown}\""));
            }
        } else {
            self.variables.extend(variables.iter().cloned());
        }
        self.depth -= 1;
        Ok(Pipe {
            variables,
            is_assignment,
            commands,
        })
    }

    /// `$x :=`, `$x =`, and in a range `$i, $e :=`.
    fn variables(
        &self,
        line: usize,
        lexemes: &mut Lexemes,
        place: &str,
    ) -> Result<(Vec<String>, bool), TemplateError> {
        let names_max = if place == "range" { 2 } else { 1 };
        let mut ahead = lexemes.iter().map(|lexeme| &lexeme.token);
        let mut names = Vec::new();
        let mut used = 0;
        let mut is_assignment = None;
        while let Some(Token::Variable(name)) = ahead.next() {
            names.push(name.clone());
            used += 2;
            match ahead.next() {
                Some(Token::Comma) => {}
                Some(Token::Declare) => {
                    is_assignment = Some(false);
                    break;
                }
                Some(Token::Assign) => {
                    is_assignment = Some(true);
                    break;
                }
                _ => break,
            }
        }
        let Some(is_assignment) = is_assignment else {
            return Ok((Vec::new(), false));
        };
        if names.len() > names_max {
            return error(line, format!("too many variables in {place}"));
        }
        lexemes.drain(..used);
        Ok((names, is_assignment))
    }

    fn command(&mut self, lexemes: &mut Lexemes) -> Result<Vec<Argument>, TemplateError> {
        let mut arguments = Vec::new();
        while let Some(Lexeme { token, line, .. }) =
            lexemes.pop_front_if(|lexeme| !matches!(lexeme.token, Token::Bar | Token::Close))
        {
            let argument = match token {
                Token::Dot => Argument::Dot,
                Token::Nil => Argument::Constant(Value::Nil),
                Token::Bool(value) => Argument::Constant(Value::Bool(value)),
                Token::Int(value) => Argument::Constant(Value::Int(value)),
                Token::Float(value) => Argument::Constant(Value::Float(value)),
                Token::Text(text) => Argument::Constant(Value::text(Rc::from(text))),
                Token::Field(name) => {
                    let mut path = vec![name];
                    path.extend(fields(lexemes));
                    Argument::Field(path)
                }
                Token::Variable(name) => {
                    if !self.variables.contains(&name) {
                        return error(line, format!("undefined variable \"{name}\""));
                    }
                    Argument::Variable(name, fields(lexemes))
                }
                Token::Word(name) => match function::find(&name) {
                    Some(function) => Argument::Function(function, fields(lexemes)),
                    None => return error(line, format!("function \"{name}\" not defined")),
                },
                Token::Open => {
                    let pipe = self.pipe(line, lexemes, "parentheses")?;
                    if lexemes.pop_front().is_none() {
                        return error(line, "unclosed left parenthesis");
                    }
                    Argument::Pipe(pipe, fields(lexemes))
                }
                Token::Comma => return error(line, "unexpected ',' in an action"),
                Token::Declare => return error(line, "unexpected ':=' in an action"),
                Token::Assign => return error(line, "unexpected '=' in an action"),
                Token::Bar | Token::Close => break,
            };
            if let Some(Lexeme {
                token: Token::Field(_) | Token::Dot,
                line,
                is_adjacent: true,
            }) = lexemes.front()
            {
                return error(*line, "unexpected '.' in an action");
            }
            arguments.push(argument);
        }
        Ok(arguments)
    }
}

/// Fields that touch what was before them.
fn fields(lexemes: &mut Lexemes) -> Vec<String> {
    let mut path = Vec::new();
    while let Some(lexeme) =
        lexemes.pop_front_if(|lexeme| lexeme.is_adjacent && matches!(lexeme.token, Token::Field(_)))
    {
        if let Token::Field(name) = lexeme.token {
            path.push(name);
        }
    }
    path
}

fn nothing_more(rest: &[Lexeme]) -> Result<(), TemplateError> {
    rest.first().map_or(Ok(()), |lexeme| {
        error(lexeme.line, "unexpected word in an action")
    })
}

/// Cuts the text into plain parts and the tokens of actions.
fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut line = 1;
    let mut trims_left = false;
    loop {
        let open = rest.find("{{");
        let (mut plain, after) =
            open.map_or((rest, None), |at| (&rest[..at], Some(&rest[at + 2..])));
        let plain_line = line;
        line += newlines(plain);
        if trims_left {
            plain = plain.trim_start_matches(SPACE);
        }
        let Some(mut after) = after else {
            if !plain.is_empty() {
                pieces.push(Piece::Text(plain_line, plain.to_owned()));
            }
            return Ok(pieces);
        };
        if after.starts_with('-') && after[1..].starts_with(SPACE) {
            plain = plain.trim_end_matches(SPACE);
            line += newlines(&after[..2]);
            after = &after[2..];
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain_line, plain.to_owned()));
        }
        if let Some(comment) = after.strip_prefix("/*") {
            let Some(end) = comment.find("*/") else {
                return error(line, "unclosed comment");
            };
            line += newlines(&comment[..end]);
            after = &comment[end + 2..];
            let Some(closed) = close(after) else {
                return error(line, "a comment must be closed by */}}");
            };
            line += newlines(&after[..closed.length]);
            trims_left = closed.trims;
            rest = &after[closed.length..];
        } else {
            let action_line = line;
            let mut lexer = Lexer {
                rest: after,
                line,
                lexemes: Vec::new(),
            };
            let closed = lexer.run(action_line)?;
            line = lexer.line;
            trims_left = closed.trims;
            rest = lexer.rest;
            pieces.push(Piece::Action(action_line, lexer.lexemes));
        }
    }
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

fn newlines(text: &str) -> usize {
    text.bytes().filter(|&byte| byte == b'\n').count()
}

/// The end of an action.
struct Closed {
    length: usize,
    /// ` -}}`: white space after it is cut.
    trims: bool,
}

fn close(rest: &str) -> Option<Closed> {
    if rest.starts_with("}}") {
        return Some(Closed {
            length: 2,
            trims: false,
        });
    }
    (rest.starts_with(SPACE) && rest[1..].starts_with("-}}")).then_some(Closed {
        length: 4,
        trims: true,
    })
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    lexemes: Vec<Lexeme>,
}

impl<'a> Lexer<'a> {
    fn run(&mut self, opened: usize) -> Result<Closed, TemplateError> {
        let mut is_adjacent = false;
        let mut parentheses = 0_usize;
        loop {
            if let Some(closed) = close(self.rest) {
                if parentheses > 0 {
                    return error(self.line, "unclosed left parenthesis");
                }
                self.line += newlines(&self.rest[..closed.length]);
                self.rest = &self.rest[closed.length..];
                return Ok(closed);
            }
            let Some(first) = self.rest.chars().next() else {
                return error(opened, "unclosed action");
            };
            if SPACE.contains(&first) {
                self.line += usize::from(first == '\n');
                self.rest = &self.rest[1..];
                is_adjacent = false;
                continue;
            }
            let line = self.line;
            let token = self.token(first)?;
            match token {
                Token::Open => parentheses += 1,
                Token::Close if parentheses == 0 => {
                    return error(line, "unexpected right parenthesis");
                }
                Token::Close => parentheses -= 1,
                _ => {}
            }
            self.lexemes.push(Lexeme {
                token,
                line,
                is_adjacent,
            });
            is_adjacent = true;
        }
    }

    fn token(&mut self, first: char) -> Result<Token, TemplateError> {
        let simple = match first {
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            '|' => Some(Token::Bar),
            ',' => Some(Token::Comma),
            '=' => Some(Token::Assign),
            _ => None,
        };
        if let Some(token) = simple {
            self.rest = &self.rest[1..];
            return Ok(token);
        }
        if let Some(rest) = self.rest.strip_prefix(":=") {
            self.rest = rest;
            return Ok(Token::Declare);
        }
        match first {
            '"' | '\'' => self.quoted(first),
            '`' => {
                let Some(end) = self.rest[1..].find('`') else {
                    return error(self.line, "unterminated raw string");
                };
                let text = &self.rest[1..=end];
                self.line += newlines(text);
                self.rest = &self.rest[end + 2..];
                Ok(Token::Text(text.replace('\r', "")))
            }
            '$' => {
                self.rest = &self.rest[1..];
                Ok(Token::Variable(format!("${}", self.word())))
            }
            '.' if self.rest[1..].starts_with(|next: char| next.is_ascii_digit()) => self.number(),
            '.' => {
                self.rest = &self.rest[1..];
                let name = self.word();
                Ok(if name.is_empty() {
                    Token::Dot
                } else {
                    Token::Field(name.to_owned())
                })
            }
            '+' | '-' => self.number(),
            digit if digit.is_ascii_digit() => self.number(),
            letter if letter.is_alphabetic() || letter == '_' => Ok(match self.word() {
                "true" => Token::Bool(true),
                "false" => Token::Bool(false),
                "nil" => Token::Nil,
                word => Token::Word(word.to_owned()),
            }),
            other => error(self.line, format!("unexpected '{other}' in an action")),
        }
    }

    fn word(&mut self) -> &'a str {
        let end = self
            .rest
            .find(|next: char| !(next.is_alphanumeric() || next == '_'))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn number(&mut self) -> Result<Token, TemplateError> {
        let is_exponent = |before: Option<char>| matches!(before, Some('e' | 'E'));
        let mut before = None;
        let end = self.rest.char_indices().find(|&(at, next)| {
            let belongs = next.is_alphanumeric()
                || matches!(next, '.' | '_')
                || (matches!(next, '+' | '-')
                    && (at == 0 || (is_exponent(before) && !self.rest[..at].contains('x'))));
            before = Some(next);
            !belongs
        });
        let (text, rest) = self
            .rest
            .split_at(end.map_or(self.rest.len(), |(at, _)| at));
        self.rest = rest;
        let (sign, digits) = match text.strip_prefix(['+', '-']) {
            Some(digits) if text.starts_with('-') => ("-", digits),
            Some(digits) => ("", digits),
            None => ("", text),
        };
        let lower = digits.to_ascii_lowercase().replace('_', "");
        let radix =
            |digits: &str, radix| i64::from_str_radix(&format!("{sign}{digits}"), radix).ok();
        let int = if let Some(digits) = lower.strip_prefix("0x") {
            radix(digits, 16)
        } else if let Some(digits) = lower.strip_prefix("0b") {
            radix(digits, 2)
        } else if let Some(digits) = lower.strip_prefix("0o") {
            radix(digits, 8)
        } else if lower.len() > 1 && lower.starts_with('0') {
            radix(&lower, 8)
        } else {
            radix(&lower, 10)
        };
        if let Some(int) = int {
            return Ok(Token::Int(int));
        }
        let is_decimal = lower.bytes().any(|byte| byte.is_ascii_digit())
            && lower
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b".e+-".contains(&byte));
        match format!("{sign}{lower}").parse::<f64>() {
            Ok(float) if is_decimal && float.is_finite() => Ok(Token::Float(float)),
            _ => error(self.line, format!("bad number \"{text}\"")),
        }
    }

    /// A quoted string, or the number of a quoted character.
    fn quoted(&mut self, quote: char) -> Result<Token, TemplateError> {
        let unterminated = if quote == '"' {
            "unterminated quoted string"
        } else {
            "unterminated character constant"
        };
        let mut text: Vec<u8> = Vec::new();
        let mut characters = self.rest[1..].char_indices();
        while let Some((at, character)) = characters.next() {
            let mut push = |character: char| {
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes())
            };
            match character {
                '\n' => break,
                end if end == quote => {
                    self.rest = &self.rest[1 + at + quote.len_utf8()..];
                    let Ok(text) = String::from_utf8(text) else {
                        return error(self.line, "a string that is not UTF-8");
                    };
                    if quote == '"' {
                        return Ok(Token::Text(text));
                    }
                    let mut one = text.chars();
                    return match (one.next(), one.next()) {
                        (Some(character), None) => Ok(Token::Int(i64::from(u32::from(character)))),
                        _ => error(self.line, "a character constant must hold one character"),
                    };
                }
                '\\' => {
                    let Some((_, escape)) = characters.next() else {
                        break;
                    };
                    let digits = match escape {
                        'a' => Err('\x07'),
                        'b' => Err('\x08'),
                        'f' => Err('\x0c'),
                        'n' => Err('\n'),
                        'r' => Err('\r'),
                        't' => Err('\t'),
                        'v' => Err('\x0b'),
                        '\\' | '\'' | '"' => Err(escape),
                        'x' => Ok(2),
                        'u' => Ok(4),
                        'U' => Ok(8),
                        _ => {
                            return error(
                                self.line,
                                format!("unknown escape \\{escape} in a string"),
                            );
                        }
                    };
                    match digits {
                        Err(character) => push(character),
                        Ok(count) => {
                            let hex: String = characters
                                .by_ref()
                                .take(count)
                                .map(|(_, digit)| digit)
                                .collect();
                            let number = u32::from_str_radix(&hex, 16)
                                .ok()
                                .filter(|_| hex.len() == count);
                            match (count, number, number.and_then(char::from_u32)) {
                                (2, Some(byte), _) => text.extend(u8::try_from(byte)),
                                (_, _, Some(character)) => push(character),
                                _ => {
                                    return error(
                                        self.line,
                                        format!("bad escape \\{escape}{hex} in a string"),
                                    );
                                }
                            }
                        }
                    }
                }
                plain => push(plain),
            }
        }
        error(self.line, unterminated)
    }
}

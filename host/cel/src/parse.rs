//! From text to tree. The grammar and its error texts are those of ANTLR, by the parser of the `cel` crate; macros that it
//! does not know (two-variable comprehensions, `optMap`, `sortBy`) are expanded here.

use cel::common::ast::{self as theirs, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo};

use crate::ast::{
    Comprehension, Element, Entry, FieldInit, Kind, Literal, MAP_INSERT, NOT_STRICTLY_FALSE, Node,
};
use crate::source::{CompileErrors, Issue, Source};

/// cel-go's limit of the size of an expression.
const MAX_CODE_POINTS: usize = 100_000;
/// cel-go's limit of nesting.
const MAX_DEPTH: usize = 250;
/// Macros make trees deeper than their text.
const MAX_TREE_DEPTH: usize = 4 * MAX_DEPTH;
/// The generated parser needs a deep stack for each level of nesting, in builds without optimization above all.
const STACK_BYTES: usize = 64 << 20;
/// An expression that is no longer than this cannot nest deeply enough to need a stack of its own.
const SHALLOW_BYTES: usize = 64;

/// The tree, and how many nodes it has.
pub(crate) fn parse(text: &str) -> Result<(Node, usize), CompileErrors> {
    let source = Source::new(text);
    let one = |message: String| {
        CompileErrors::new(
            source.clone(),
            vec![Issue {
                line: 1,
                column: 0,
                message,
            }],
        )
    };
    let size = text.chars().count();
    if size > MAX_CODE_POINTS {
        return Err(one(format!(
            "expression code point size exceeds limit: size: {size}, limit {MAX_CODE_POINTS}"
        )));
    }
    if depth_bound(text) > MAX_DEPTH {
        return Err(one(format!(
            "expression recursion limit exceeded: {MAX_DEPTH}"
        )));
    }
    if text.len() <= SHALLOW_BYTES {
        return parse_here(text);
    }
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || parse_here(text));
        match spawned.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(parsed)) => parsed,
            Ok(Err(_)) | Err(_) => Err(one("the parser failed".to_owned())),
        }
    })
}

fn parse_here(text: &str) -> Result<(Node, usize), CompileErrors> {
    let source = Source::new(text);
    let parser = cel::parser::Parser::new()
        .max_recursion_depth(MAX_DEPTH as u16)
        .enable_optional_syntax(true)
        .enable_ident_escape_syntax(true);
    let (tree, info) = parser.parse_with_source_info(text).map_err(|errors| {
        let issues = errors
            .errors
            .into_iter()
            // What the crate adds about trees that the grammar has complained about already.
            .filter(|e| !e.msg.starts_with("Incomplete `") && !e.msg.starts_with("No `"))
            .map(|e| Issue {
                line: usize::try_from(e.pos.0).unwrap_or(1).max(1),
                column: if text.is_empty() { -1 } else { e.pos.1 - 1 },
                message: e.msg,
            })
            .collect();
        CompileErrors::new(source.clone(), issues)
    })?;
    let mut reader = Reader {
        text,
        info,
        nodes: 0,
        depth: 0,
        macros: 0,
        issues: Vec::new(),
        source: &source,
    };
    let node = reader.node(tree);
    if reader.issues.is_empty() {
        Ok((node, reader.nodes))
    } else {
        let issues = reader.issues;
        Err(CompileErrors::new(source, issues))
    }
}

/// An upper bound of how deep the tree of a text can be: operators and brackets of a nesting level add up, commas and the
/// operators whose trees are balanced begin anew.
fn depth_bound(text: &str) -> usize {
    let (mut stack, mut here, mut deepest) = (Vec::new(), 0usize, 0usize);
    let mut outer = 0usize;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'\'' => {
                at = string_end(bytes, at);
                continue;
            }
            b'/' if bytes[at..].starts_with(b"//") => {
                at += line_length(&bytes[at..]);
                continue;
            }
            // A name in backticks may have slashes and dots in it.
            b'`' => {
                let name = bytes[at + 1..].iter().position(|b| *b == b'`');
                at += name.map_or(1, |length| length + 2);
                continue;
            }
            b'(' | b'[' | b'{' => {
                here += 1;
                stack.push(here);
                outer += here;
                here = 0;
            }
            b')' | b']' | b'}' => {
                here = stack.pop().unwrap_or(0);
                outer -= here;
            }
            b',' | b'&' | b'|' => here = 0,
            b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' | b'!' | b'?' | b'i' => {
                // `i`: an `in`; other words with an i make the bound no worse than their length.
                let is_operator = bytes[at] != b'i' || bytes[at..].starts_with(b"in ");
                let doubled = at > 0 && bytes[at] == b'=';
                here += usize::from(is_operator && !doubled);
            }
            _ => {}
        }
        deepest = deepest.max(outer + here);
        at += 1;
    }
    deepest
}

fn line_length(bytes: &[u8]) -> usize {
    let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r'));
    end.unwrap_or(bytes.len())
}

/// Where the string ends whose first quote is at `at`: behind its last one.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let is_letter = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let prefix = bytes[..at].iter().rev().take_while(|b| is_letter(b));
    let raw = prefix.take(2).any(|b| matches!(b, b'r' | b'R'));
    let quote = bytes[at];
    let triple = bytes[at..].starts_with(&[quote; 3]);
    let ends = |at: usize| !triple || bytes[at..].starts_with(&[quote; 3]);
    let width = if triple { 3 } else { 1 };
    let mut at = at + width;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if !raw => at += 2,
            b'\n' | b'\r' if !triple => return at,
            byte if byte == quote && ends(at) => return at + width,
            _ => at += 1,
        }
    }
    bytes.len()
}

struct Reader<'a> {
    text: &'a str,
    info: SourceInfo,
    nodes: usize,
    /// Where in the tree we are.
    depth: usize,
    macros: usize,
    issues: Vec<Issue>,
    source: &'a Source,
}

impl Reader<'_> {
    fn make(&mut self, at: usize, kind: Kind) -> Node {
        let id = self.nodes;
        self.nodes += 1;
        Node { id, at, kind }
    }

    fn position(&self, id: u64) -> usize {
        let start = self
            .info
            .offset_for(id)
            .map_or(0, |(start, _)| start as usize);
        self.text.get(..start).unwrap_or(self.text).chars().count()
    }

    fn complain(&mut self, at: usize, message: &str) {
        let (line, column) = self.source.location(at);
        self.issues.push(Issue {
            line,
            column,
            message: message.to_owned(),
        });
    }

    fn nodes(&mut self, all: Vec<IdedExpr>) -> Vec<Node> {
        all.into_iter().map(|one| self.node(one)).collect()
    }

    /// A tree that is deeper than the bound of its text said is refused: those who walk it have less of a stack.
    fn node(&mut self, from: IdedExpr) -> Node {
        let at = self.position(from.id);
        if self.depth > MAX_TREE_DEPTH {
            if self.issues.is_empty() {
                let message = format!("expression recursion limit exceeded: {MAX_DEPTH}");
                self.complain(at, &message);
            }
            return self.make(at, Kind::Literal(Literal::Null));
        }
        self.depth += 1;
        let node = self.node_at(at, from);
        self.depth -= 1;
        node
    }

    fn node_at(&mut self, at: usize, from: IdedExpr) -> Node {
        let kind = match from.expr {
            Expr::Unspecified => Kind::Literal(Literal::Null),
            Expr::Literal(value) => Kind::Literal(literal(value)),
            Expr::Ident(name) => Kind::Ident(name),
            Expr::Select(select) => Kind::Select {
                operand: Box::new(self.node(*select.operand)),
                field: select.field,
                test: select.test,
            },
            Expr::List(list) => {
                let optional = list.optional_indices;
                let elements = self.nodes(list.elements);
                Kind::List(
                    elements
                        .into_iter()
                        .enumerate()
                        .map(|(index, value)| Element {
                            value,
                            optional: optional.contains(&index),
                        })
                        .collect(),
                )
            }
            Expr::Map(map) => Kind::Map(self.entries(map.entries)),
            Expr::Struct(made) => Kind::Struct {
                name: made.type_name,
                fields: self.fields(made.entries),
            },
            Expr::Call(call) => return self.call(at, call),
            Expr::Comprehension(all) => {
                let all = *all;
                Kind::Comprehension(Box::new(Comprehension {
                    range: self.node(all.iter_range),
                    variable: all.iter_var,
                    second: all.iter_var2,
                    accumulator: all.accu_var,
                    init: self.node(all.accu_init),
                    condition: self.node(all.loop_cond),
                    step: self.node(all.loop_step),
                    result: self.node(all.result),
                }))
            }
        };
        self.make(at, kind)
    }

    fn entries(&mut self, all: Vec<theirs::IdedEntryExpr>) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(all.len());
        for one in all {
            if let EntryExpr::MapEntry(entry) = one.expr {
                entries.push(Entry {
                    key: self.node(entry.key),
                    value: self.node(entry.value),
                    optional: entry.optional,
                });
            }
        }
        entries
    }

    fn fields(&mut self, all: Vec<theirs::IdedEntryExpr>) -> Vec<FieldInit> {
        let mut fields = Vec::with_capacity(all.len());
        for one in all {
            let at = self.position(one.id);
            if let EntryExpr::StructField(field) = one.expr {
                fields.push(FieldInit {
                    at,
                    name: field.field,
                    value: self.node(field.value),
                    optional: field.optional,
                });
            }
        }
        fields
    }

    fn call(&mut self, at: usize, call: theirs::CallExpr) -> Node {
        let function = call.func_name;
        let Some(target) = call.target else {
            let args = self.nodes(call.args);
            let target = None;
            return self.make(
                at,
                Kind::Call {
                    function,
                    target,
                    args,
                },
            );
        };
        let target = self.node(*target);
        let args = self.nodes(call.args);
        match (function.as_str(), args.len()) {
            (
                "all" | "exists" | "existsOne" | "exists_one" | "transformList" | "transformMap"
                | "transformMapEntry",
                3,
            )
            | ("transformList" | "transformMap" | "transformMapEntry", 4) => {
                self.two_variables(at, &function, target, args)
            }
            ("optMap" | "optFlatMap", 2) => self.opt_map(at, &function, target, args),
            ("sortBy", 2) => self.sort_by(at, target, args),
            _ => self.make(
                at,
                Kind::Call {
                    function,
                    target: Some(Box::new(target)),
                    args,
                },
            ),
        }
    }

    fn ident(&mut self, at: usize, name: &str) -> Node {
        self.make(at, Kind::Ident(name.to_owned()))
    }

    fn literal(&mut self, at: usize, value: Literal) -> Node {
        self.make(at, Kind::Literal(value))
    }

    fn global(&mut self, at: usize, function: &str, args: Vec<Node>) -> Node {
        let (function, target) = (function.to_owned(), None);
        self.make(
            at,
            Kind::Call {
                function,
                target,
                args,
            },
        )
    }

    fn list(&mut self, at: usize, of: Vec<Node>) -> Node {
        let elements = of.into_iter().map(|value| Element {
            value,
            optional: false,
        });
        let elements = elements.collect();
        self.make(at, Kind::List(elements))
    }

    /// The name that a macro binds; a complaint if the argument is no plain name.
    fn variable(&mut self, node: &Node, message: &str) -> String {
        match &node.kind {
            Kind::Ident(name) if !name.starts_with('.') => name.clone(),
            _ => {
                self.complain(node.at, message);
                "_".to_owned()
            }
        }
    }

    /// `x.all(i, v, …)` and its kin. Source: github.com/google/cel-go/ext, comprehensions (documented expansions).
    fn two_variables(
        &mut self,
        at: usize,
        function: &str,
        range: Node,
        mut args: Vec<Node>,
    ) -> Node {
        const ACCUMULATOR: &str = "@result";
        let last = args.pop();
        let filter = if args.len() == 3 { args.pop() } else { None };
        let variable = self.variable(&args[0], "argument must be a simple name");
        let second = self.variable(&args[1], "argument must be a simple name");
        if variable == second {
            self.complain(args[1].at, &format!("duplicate variable name: {variable}"));
        }
        let body = match last {
            Some(body) => body,
            None => self.literal(at, Literal::Null),
        };
        let accu = |this: &mut Self| this.ident(at, ACCUMULATOR);
        let (init, condition, step, result);
        match function {
            "all" => {
                init = self.literal(at, Literal::Bool(true));
                let so_far = accu(self);
                condition = self.global(at, NOT_STRICTLY_FALSE, vec![so_far]);
                let so_far = accu(self);
                step = self.global(at, "_&&_", vec![so_far, body]);
                result = accu(self);
            }
            "exists" => {
                init = self.literal(at, Literal::Bool(false));
                let so_far = accu(self);
                let not = self.global(at, "!_", vec![so_far]);
                condition = self.global(at, NOT_STRICTLY_FALSE, vec![not]);
                let so_far = accu(self);
                step = self.global(at, "_||_", vec![so_far, body]);
                result = accu(self);
            }
            "existsOne" | "exists_one" => {
                init = self.literal(at, Literal::Int(0));
                condition = self.literal(at, Literal::Bool(true));
                let (so_far, one) = (accu(self), self.literal(at, Literal::Int(1)));
                let more = self.global(at, "_+_", vec![so_far, one]);
                let same = accu(self);
                step = self.global(at, "_?_:_", vec![body, more, same]);
                let (so_far, one) = (accu(self), self.literal(at, Literal::Int(1)));
                result = self.global(at, "_==_", vec![so_far, one]);
            }
            _ => {
                condition = self.literal(at, Literal::Bool(true));
                let so_far = accu(self);
                let grown = if function == "transformList" {
                    init = self.list(at, Vec::new());
                    let one = self.list(at, vec![body]);
                    self.global(at, "_+_", vec![so_far, one])
                } else {
                    init = self.make(at, Kind::Map(Vec::new()));
                    if function == "transformMap" {
                        let key = self.ident(at, &variable);
                        self.global(at, MAP_INSERT, vec![so_far, key, body])
                    } else {
                        self.global(at, MAP_INSERT, vec![so_far, body])
                    }
                };
                step = match filter {
                    None => grown,
                    Some(filter) => {
                        let same = accu(self);
                        self.global(at, "_?_:_", vec![filter, grown, same])
                    }
                };
                result = accu(self);
            }
        }
        let all = Comprehension {
            range,
            variable,
            second: Some(second),
            accumulator: ACCUMULATOR.to_owned(),
            init,
            condition,
            step,
            result,
        };
        self.make(at, Kind::Comprehension(Box::new(all)))
    }

    /// A name bound to a value while an expression is evaluated.
    fn bind(&mut self, at: usize, name: &str, value: Node, inside: Node) -> Node {
        let range = self.list(at, Vec::new());
        let condition = self.literal(at, Literal::Bool(false));
        let step = self.ident(at, name);
        let all = Comprehension {
            range,
            variable: "#unused".to_owned(),
            second: None,
            accumulator: name.to_owned(),
            init: value,
            condition,
            step,
            result: inside,
        };
        self.make(at, Kind::Comprehension(Box::new(all)))
    }

    /// `x.optMap(v, e)`: `x.hasValue() ? optional.of(e with v = x.value()) : optional.none()`; `optFlatMap` without the `of`.
    fn opt_map(&mut self, at: usize, function: &str, target: Node, mut args: Vec<Node>) -> Node {
        let body = args.pop();
        let name = format!("{function}() variable name must be a simple identifier");
        let name = self.variable(&args[0], &name);
        let body = match body {
            Some(body) => body,
            None => self.literal(at, Literal::Null),
        };
        self.macros += 1;
        let held = format!("@opt{}", self.macros);
        let member = |this: &mut Self, function: &str| {
            let target = Some(Box::new(this.ident(at, &held)));
            let function = function.to_owned();
            let args = Vec::new();
            this.make(
                at,
                Kind::Call {
                    function,
                    target,
                    args,
                },
            )
        };
        let has = member(self, "hasValue");
        let value = member(self, "value");
        let bound = self.bind(at, &name, value, body);
        let some = if function == "optMap" {
            self.global(at, "optional.of", vec![bound])
        } else {
            bound
        };
        let none = self.global(at, "optional.none", Vec::new());
        let choice = self.global(at, "_?_:_", vec![has, some, none]);
        self.bind(at, &held, target, choice)
    }

    /// `x.sortBy(v, key)`: `x` in the order of its keys.
    fn sort_by(&mut self, at: usize, target: Node, mut args: Vec<Node>) -> Node {
        let key = args.pop();
        let name = self.variable(&args[0], "argument must be a simple name");
        let key = match key {
            Some(key) => key,
            None => self.literal(at, Literal::Null),
        };
        self.macros += 1;
        let held = format!("@sort{}", self.macros);
        let (range, init) = (self.ident(at, &held), self.list(at, Vec::new()));
        let condition = self.literal(at, Literal::Bool(true));
        let so_far = self.ident(at, "@result");
        let one = self.list(at, vec![key]);
        let step = self.global(at, "_+_", vec![so_far, one]);
        let result = self.ident(at, "@result");
        let keys = Comprehension {
            range,
            variable: name,
            second: None,
            accumulator: "@result".to_owned(),
            init,
            condition,
            step,
            result,
        };
        let keys = self.make(at, Kind::Comprehension(Box::new(keys)));
        let list = self.ident(at, &held);
        let sorted = self.make(
            at,
            Kind::Call {
                function: "@sortByAssociatedKeys".to_owned(),
                target: Some(Box::new(list)),
                args: vec![keys],
            },
        );
        self.bind(at, &held, target, sorted)
    }
}

fn literal(value: LiteralValue) -> Literal {
    match value {
        LiteralValue::Boolean(v) => Literal::Bool(v.into_inner()),
        LiteralValue::Bytes(v) => Literal::Bytes(v.into_inner()),
        LiteralValue::Double(v) => Literal::Double(v.into_inner()),
        LiteralValue::Int(v) => Literal::Int(v.into_inner()),
        LiteralValue::Null => Literal::Null,
        LiteralValue::String(v) => Literal::String(v.into_inner()),
        LiteralValue::UInt(v) => Literal::Uint(v.into_inner()),
    }
}

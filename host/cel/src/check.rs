//! The type checker, by cel-go's rules and in its words.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Comprehension, Kind, Literal, Node};
use crate::decl::{self, Function, Implementation, Overload};
use crate::env::Env;
use crate::source::{CompileErrors, Issue, Source};
use crate::types::{Fields, Type};
use crate::unify::{self, Mapping};

/// What the checker found out about each node.
#[derive(Debug)]
pub(crate) struct Checked {
    pub types: Vec<Type>,
    /// What computes a call's node; in the order of declarations, several if the types of arguments are known only later.
    pub calls: Vec<Vec<Implementation>>,
}

pub(crate) fn check(
    env: &Env,
    text: &str,
    root: &mut Node,
    nodes: usize,
) -> Result<Checked, CompileErrors> {
    let mut checker = Checker {
        env,
        source: Source::new(text),
        types: vec![Type::Error; nodes],
        calls: vec![Vec::new(); nodes],
        mapping: Mapping::default(),
        variables: 0,
        scopes: Vec::new(),
        issues: Vec::new(),
    };
    checker.node(root);
    if !checker.issues.is_empty() {
        return Err(CompileErrors::new(checker.source, checker.issues));
    }
    let mapping = &checker.mapping;
    let types = checker
        .types
        .iter()
        .map(|ty| mapping.substitute(ty, true))
        .collect();
    Ok(Checked {
        types,
        calls: checker.calls,
    })
}

struct Checker<'a> {
    env: &'a Env,
    source: Source,
    types: Vec<Type>,
    calls: Vec<Vec<Implementation>>,
    mapping: Mapping,
    variables: usize,
    /// Names that comprehensions bind, the innermost last.
    scopes: Vec<(String, Type)>,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn complain(&mut self, at: usize, message: String) {
        let (line, column) = self.source.location(at);
        let issue = Issue {
            line,
            column,
            message,
        };
        if !self.issues.contains(&issue) {
            self.issues.push(issue);
        }
    }

    fn undeclared(&mut self, at: usize, name: &str) {
        self.complain(
            at,
            format!("undeclared reference to '{name}' (in container '')"),
        );
    }

    fn mismatch(&mut self, at: usize, expected: &Type, found: &Type) {
        let (expected, found) = (
            self.mapping.substitute(expected, true),
            self.mapping.substitute(found, true),
        );
        self.complain(
            at,
            format!("expected type '{expected}' but found '{found}'"),
        );
    }

    fn assignable(&mut self, to: &Type, from: &Type) -> bool {
        unify::assignable(
            &mut self.mapping,
            std::slice::from_ref(to),
            std::slice::from_ref(from),
        )
    }

    fn fresh(&mut self) -> Type {
        self.variables += 1;
        Type::Param(format!("_var{}", self.variables - 1).into())
    }

    fn ty(&self, node: &Node) -> Type {
        self.types[node.id].clone()
    }

    fn node(&mut self, node: &mut Node) -> Type {
        let ty = self.infer(node);
        self.types[node.id] = ty.clone();
        ty
    }

    fn infer(&mut self, node: &mut Node) -> Type {
        let (id, at) = (node.id, node.at);
        if let Kind::Select { test: false, .. } = node.kind
            && let Some(name) = qualified_name(node)
            && let Some((ty, value)) = self.lookup(&name)
        {
            node.kind = value.map_or(Kind::Ident(name), Kind::Literal);
            return ty;
        }
        match &mut node.kind {
            Kind::Literal(literal) => match literal {
                Literal::Null => Type::Null,
                Literal::Bool(_) => Type::Bool,
                Literal::Int(_) => Type::Int,
                Literal::Uint(_) => Type::Uint,
                Literal::Double(_) => Type::Double,
                Literal::String(_) => Type::String,
                Literal::Bytes(_) => Type::Bytes,
                Literal::Type(ty) => Type::Type(Some(Arc::new(ty.clone()))),
            },
            Kind::Ident(name) => match self.lookup(name.trim_start_matches('.')) {
                Some((ty, value)) => {
                    if let Some(value) = value {
                        node.kind = Kind::Literal(value);
                    } else if name.starts_with('.') {
                        *name = name.trim_start_matches('.').to_owned();
                    }
                    ty
                }
                None => {
                    let name = name.clone();
                    self.undeclared(at, &name);
                    Type::Error
                }
            },
            Kind::Select {
                operand,
                field,
                test,
            } => {
                let (field, test) = (field.clone(), *test);
                let ty = self.select(at, operand, &field, false);
                if test { Type::Bool } else { ty }
            }
            Kind::List(elements) => {
                let mut all = None;
                for element in elements {
                    let mut ty = self.node(&mut element.value);
                    if element.optional {
                        ty = self.unwrap_optional(element.value.at, ty);
                    }
                    all = Some(self.join(element.value.at, all, ty));
                }
                Type::list(all.unwrap_or_else(|| self.fresh()))
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for entry in entries {
                    let key = self.node(&mut entry.key);
                    keys = Some(self.join(entry.key.at, keys, key));
                    let mut value = self.node(&mut entry.value);
                    if entry.optional {
                        value = self.unwrap_optional(entry.value.at, value);
                    }
                    values = Some(self.join(entry.value.at, values, value));
                }
                let keys = keys.unwrap_or_else(|| self.fresh());
                Type::map(keys, values.unwrap_or_else(|| self.fresh()))
            }
            Kind::Struct { name, fields } => {
                let result = self.struct_type(at, name);
                for field in fields {
                    let mut given = self.node(&mut field.value);
                    if field.optional {
                        given = self.unwrap_optional(field.value.at, given);
                    }
                    let wanted = self.field_type(field.at, &result, &field.name);
                    if !self.assignable(&wanted, &given) {
                        let name = &field.name;
                        self.complain(field.at, format!(
                            "expected type of field '{name}' is '{wanted}' but provided type is '{given}'"
                        ));
                    }
                }
                result
            }
            Kind::Comprehension(all) => self.comprehension(all),
            Kind::Call {
                function,
                target,
                args,
            } => {
                if function == "_?._"
                    && let [operand, name] = args.as_mut_slice()
                {
                    let Kind::Literal(Literal::String(field)) = &name.kind else {
                        let message = "unsupported optional field selection: not a name";
                        self.complain(name.at, message.to_owned());
                        return Type::Error;
                    };
                    let field = field.clone();
                    self.types[name.id] = Type::String;
                    self.calls[id] = vec![crate::library::optional::select];
                    return self.select(at, operand, &field, true);
                }
                for arg in args.iter_mut() {
                    self.node(arg);
                }
                if let Some(object) = target {
                    let qualified = qualified_name(object).map(|of| format!("{of}.{function}"));
                    if let Some(found) = qualified.as_deref().and_then(decl::function) {
                        found.name.clone_into(function);
                        *target = None;
                        return self.resolve(id, at, found, None, args);
                    }
                    self.node(object);
                }
                match decl::function(function.trim_start_matches('.')) {
                    Some(found) => self.resolve(id, at, found, target.as_deref(), args),
                    None => {
                        let name = function.clone();
                        self.undeclared(at, &name);
                        Type::Error
                    }
                }
            }
        }
    }

    fn lookup(&self, name: &str) -> Option<(Type, Option<Literal>)> {
        if let Some((_, ty)) = self.scopes.iter().rev().find(|(bound, _)| bound == name) {
            return Some((ty.clone(), None));
        }
        if let Some(ty) = self.env.variable(name) {
            return Some((ty.clone(), None));
        }
        let ty = self.env.named_type(name)?;
        let of = Type::Type(Some(Arc::new(ty.clone())));
        Some((of, Some(Literal::Type(ty))))
    }

    fn unwrap_optional(&mut self, at: usize, ty: Type) -> Type {
        match ty.inside_optional() {
            Some(inside) => inside.clone(),
            None if ty.is_dyn_or_error() => ty,
            None => {
                let wanted = Type::optional(ty.clone());
                self.mismatch(at, &wanted, &ty);
                ty
            }
        }
    }

    fn join(&mut self, at: usize, so_far: Option<Type>, next: Type) -> Type {
        let Some(so_far) = so_far else {
            return next;
        };
        if self.assignable(&so_far, &next) {
            return unify::most_general(&so_far, &next);
        }
        self.mismatch(at, &so_far, &next);
        Type::Error
    }

    fn select(&mut self, at: usize, operand: &mut Node, field: &str, optional: bool) -> Type {
        let operand = self.node(operand);
        let operand = self.mapping.substitute(&operand, false);
        let (target, was_optional) = match operand.inside_optional() {
            Some(inside) => (inside.clone(), true),
            None => (operand, false),
        };
        let found = match &target {
            Type::Map(of) => of.1.clone(),
            Type::Object(_) => self.field_type(at, &target, field),
            Type::Param(_) => {
                self.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.complain(
                        at,
                        format!("type '{other}' does not support field selection"),
                    );
                }
                Type::Dyn
            }
        };
        if was_optional || optional {
            Type::optional(found)
        } else {
            found
        }
    }

    fn field_type(&mut self, at: usize, of: &Type, field: &str) -> Type {
        let Type::Object(object) = of else {
            return Type::Error;
        };
        let found = match &object.fields {
            Fields::Known(all) => all.get(field).cloned(),
            Fields::Open => Some(Type::Dyn),
        };
        found.unwrap_or_else(|| {
            self.complain(at, format!("undefined field '{field}'"));
            Type::Error
        })
    }

    fn struct_type(&mut self, at: usize, name: &str) -> Type {
        match self.lookup(name) {
            None => {
                self.undeclared(at, name);
                Type::Error
            }
            Some((_, Some(Literal::Type(ty @ Type::Object(_))))) => ty,
            Some((_, Some(Literal::Type(ty)))) => {
                self.complain(at, format!("'{ty}' is not a message type"));
                Type::Error
            }
            Some((ty, _)) => {
                self.complain(at, format!("'{ty}' is not a type"));
                Type::Error
            }
        }
    }

    fn comprehension(&mut self, all: &mut Comprehension) -> Type {
        let range = self.node(&mut all.range);
        let accumulated = self.node(&mut all.init);
        let range = self.mapping.substitute(&range, false);
        let two = all.second.is_some();
        let (first, second) = match &range {
            Type::List(of) if two => (Type::Int, (**of).clone()),
            Type::List(of) => ((**of).clone(), Type::Dyn),
            Type::Map(of) => of.as_ref().clone(),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                self.complain(all.range.at, format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                ));
                (Type::Error, Type::Error)
            }
        };
        let outside = self.scopes.len();
        self.scopes
            .push((all.accumulator.clone(), accumulated.clone()));
        self.scopes.push((all.variable.clone(), first));
        if let Some(name) = &all.second {
            self.scopes.push((name.clone(), second));
        }
        self.node(&mut all.condition);
        self.expect(&Type::Bool, &all.condition);
        self.node(&mut all.step);
        self.expect(&accumulated, &all.step);
        self.scopes.truncate(outside + 1);
        let result = self.node(&mut all.result);
        self.scopes.truncate(outside);
        self.mapping.substitute(&result, false)
    }

    fn expect(&mut self, wanted: &Type, node: &Node) {
        let found = self.ty(node);
        if !self.assignable(wanted, &found) {
            self.mismatch(node.at, wanted, &found);
        }
    }

    fn resolve(
        &mut self,
        id: usize,
        at: usize,
        function: &'static Function,
        target: Option<&Node>,
        args: &[Node],
    ) -> Type {
        let given: Vec<Type> = target
            .into_iter()
            .chain(args)
            .map(|arg| self.ty(arg))
            .collect();
        if matches!(function.name, "_&&_" | "_||_") {
            for (arg, ty) in args.iter().zip(&given) {
                if !self.assignable(ty, &Type::Bool) {
                    self.mismatch(arg.at, &Type::Bool, ty);
                }
            }
            return Type::Bool;
        }
        let mut result: Option<Type> = None;
        let style = |overload: &&Overload| {
            overload.member == target.is_some() && overload.args.len() == given.len()
        };
        for overload in function.overloads.iter().filter(style) {
            let (args, returns) = self.instantiate(overload);
            if !unify::assignable(&mut self.mapping, &given, &args) {
                continue;
            }
            let known = &mut self.calls[id];
            if !known
                .iter()
                .any(|f| std::ptr::fn_addr_eq(*f, overload.implementation))
            {
                known.push(overload.implementation);
            }
            let returns = self.mapping.substitute(&returns, false);
            result = Some(match result {
                None => returns,
                Some(Type::Dyn) => Type::Dyn,
                Some(before) if before == returns => before,
                Some(_) => Type::Dyn,
            });
        }
        result.unwrap_or_else(|| {
            let texts: Vec<String> = given
                .iter()
                .map(|ty| self.mapping.substitute(ty, true).to_string())
                .collect();
            let (receiver, texts) = match (target, texts.split_first()) {
                (Some(_), Some((receiver, texts))) => (format!("{receiver}."), texts),
                _ => (String::new(), texts.as_slice()),
            };
            let (name, args) = (function.name, texts.join(", "));
            self.complain(
                at,
                format!("found no matching overload for '{name}' applied to '{receiver}({args})'"),
            );
            Type::Error
        })
    }

    /// The types of an overload, with type parameters that nothing is known of yet.
    fn instantiate(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        if !overload.generic {
            return (overload.args.clone(), overload.result.clone());
        }
        let mut fresh: HashMap<Arc<str>, Type> = HashMap::new();
        let mut of = |ty: &Type| {
            rename(ty, &mut |name| {
                fresh
                    .entry(Arc::clone(name))
                    .or_insert_with(|| {
                        self.variables += 1;
                        Type::Param(format!("_var{}", self.variables - 1).into())
                    })
                    .clone()
            })
        };
        let args = overload.args.iter().map(&mut of).collect();
        (args, of(&overload.result))
    }
}

fn rename(ty: &Type, to: &mut dyn FnMut(&Arc<str>) -> Type) -> Type {
    match ty {
        Type::Param(name) => to(name),
        other => other.with_parameters(|part| rename(part, to)),
    }
}

/// `a.b.c` of a chain of selections on a name.
fn qualified_name(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Ident(name) => Some(name.trim_start_matches('.').to_owned()),
        Kind::Select {
            operand,
            field,
            test: false,
        } => Some(format!("{}.{field}", qualified_name(operand)?)),
        _ => None,
    }
}

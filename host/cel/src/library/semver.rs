//! Semantic versions: `semver("1.2.3-rc.1").isLessThan(semver("1.2.3"))`.

use std::cmp::Ordering;

use super::{Opaque, no_overload, opaque};
use crate::decl::Library;
use crate::value::{EvalError, Value};

/// A version without its build metadata, which orders nothing.
#[derive(Clone, Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Identifier>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    /// Numbers are lower than words.
    Number(u64),
    Word(String),
}

pub(super) const LIBRARY: Library = &[
    (
        "isSemver(string) -> bool\nisSemver(string, bool) -> bool",
        |args| match args {
            [Value::String(text)] => Ok(Value::Bool(Semver::parse(text).is_ok())),
            [Value::String(text), Value::Bool(normalize)] => {
                Ok(Value::Bool(normalized(text, *normalize).is_ok()))
            }
            _ => no_overload(),
        },
    ),
    (
        "semver(string) -> kubernetes.Semver
        semver(string, bool) -> kubernetes.Semver",
        |args| {
            let parsed = match args {
                [Value::String(text)] => Semver::parse(text),
                [Value::String(text), Value::Bool(normalize)] => normalized(text, *normalize),
                _ => return no_overload(),
            };
            match parsed {
                Ok(version) => Ok(opaque(Opaque::Semver(version))),
                Err(why) => Err(EvalError::new(why)),
            }
        },
    ),
    ("kubernetes.Semver: major() -> int", |args| {
        Ok(Value::Int(of(args, 0)?.numbers[0] as i64))
    }),
    ("kubernetes.Semver: minor() -> int", |args| {
        Ok(Value::Int(of(args, 0)?.numbers[1] as i64))
    }),
    ("kubernetes.Semver: patch() -> int", |args| {
        Ok(Value::Int(of(args, 0)?.numbers[2] as i64))
    }),
    (
        "kubernetes.Semver: isLessThan(kubernetes.Semver) -> bool",
        |args| Ok(Value::Bool(of(args, 0)?.compare(&of(args, 1)?).is_lt())),
    ),
    (
        "kubernetes.Semver: isGreaterThan(kubernetes.Semver) -> bool",
        |args| Ok(Value::Bool(of(args, 0)?.compare(&of(args, 1)?).is_gt())),
    ),
    (
        "kubernetes.Semver: compareTo(kubernetes.Semver) -> int",
        |args| Ok(Value::Int(of(args, 0)?.compare(&of(args, 1)?) as i64)),
    ),
];

fn of(args: &[Value<'_>], at: usize) -> Result<Semver, EvalError> {
    match args.get(at) {
        Some(Value::Opaque(value)) => match &**value {
            Opaque::Semver(version) => Ok(version.clone()),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

/// With `normalize`, a `v` before, missing numbers and leading zeros are forgiven.
fn normalized(text: &str, normalize: bool) -> Result<Semver, String> {
    if !normalize {
        return Semver::parse(text);
    }
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let mut parts: Vec<&str> = numbers
        .split('.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0",
            part => part,
        })
        .collect();
    if rest.is_empty() {
        while parts.len() < 3 {
            parts.push("0");
        }
    }
    Semver::parse(&format!("{}{rest}", parts.join(".")))
}

impl Semver {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let mut parts = text.splitn(3, '.');
        let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let (rest, build) = match rest.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (rest, None),
        };
        let (patch, pre) = match rest.split_once('-') {
            Some((patch, pre)) => (patch, Some(pre)),
            None => (rest, None),
        };
        let number = |part: &str, name: &str| -> Result<u64, String> {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!(
                    "Invalid character(s) found in {name} number \"{part}\""
                ));
            }
            if part.len() > 1 && part.starts_with('0') {
                let name = name[..1].to_uppercase() + &name[1..];
                return Err(format!(
                    "{name} number must not contain leading zeroes \"{part}\""
                ));
            }
            part.parse()
                .map_err(|_| format!("{name} number is too large \"{part}\""))
        };
        let numbers = [
            number(major, "major")?,
            number(minor, "minor")?,
            number(patch, "patch")?,
        ];
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if let Some(build) = build
            && !build.split('.').all(word)
        {
            return Err(format!(
                "Invalid character(s) found in build meta data \"{build}\""
            ));
        }
        let mut identifiers = Vec::new();
        for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
            if !word(part) {
                return Err(format!(
                    "Invalid character(s) found in prerelease \"{part}\""
                ));
            }
            let is_number = part.bytes().all(|b| b.is_ascii_digit());
            if is_number && part.len() > 1 && part.starts_with('0') {
                return Err(format!(
                    "Numeric PreRelease version must not contain leading zeroes \"{part}\""
                ));
            }
            identifiers.push(match part.parse() {
                Ok(number) if is_number => Identifier::Number(number),
                _ => Identifier::Word(part.to_owned()),
            });
        }
        Ok(Self {
            numbers,
            pre: identifiers,
        })
    }

    pub fn compare(&self, other: &Self) -> Ordering {
        // A release is higher than what comes before it.
        self.numbers
            .cmp(&other.numbers)
            .then(self.pre.is_empty().cmp(&other.pre.is_empty()))
            .then_with(|| self.pre.cmp(&other.pre))
    }
}

//! How error texts print structured values: by the names and in the order that the fields have in upstream's own types,
//! which are facts of the interface, kept in `data/faces.txt`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::Value;

static TEXT: &str = include_str!("../../data/faces.txt");

#[derive(Debug)]
enum Kind {
    Text,
    Number,
    Flag,
    Amount,
    Nullable,
    Omitted,
    Of(&'static str),
    Embedded(&'static str),
    List(&'static str),
    OmittedList(&'static str),
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    /// Where it stands in objects.
    path: Vec<String>,
    kind: Kind,
}

static FACES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    TEXT.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.filter_map(field).collect()))
        })
        .collect()
});

/// `NAME[=FIELD]:KIND`
fn field(word: &'static str) -> Option<Field> {
    let (name, kind) = word.split_once(':')?;
    let (name, path) = match name.split_once('=') {
        Some((name, path)) => (name, path.to_owned()),
        None => {
            let mut letters = name.chars();
            let first = letters.next()?.to_ascii_lowercase();
            (name, format!("{first}{}", letters.as_str()))
        }
    };
    let kind = match kind {
        "s" => Kind::Text,
        "i" => Kind::Number,
        "b" => Kind::Flag,
        "q" => Kind::Amount,
        "n" => Kind::Nullable,
        "o" => Kind::Omitted,
        _ => {
            if let Some(of) = kind.strip_prefix("[?") {
                Kind::OmittedList(of)
            } else if let Some(of) = kind.strip_prefix('[') {
                Kind::List(of)
            } else if let Some(of) = kind.strip_prefix('{') {
                Kind::Embedded(of)
            } else {
                Kind::Of(kind)
            }
        }
    };
    let path = path.split('.').map(str::to_owned).collect();
    Some(Field { name, path, kind })
}

/// The value as error texts print it.
pub fn show(face: &str, value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, face, value, None);
    out
}

/// A pod spec, whose security context holds fields that objects have one level up.
fn security_context(spec: &Value) -> Option<Value> {
    let own = spec.get("securityContext").filter(|c| !c.is_null());
    let lifted = [
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "shareProcessNamespace",
        "hostUsers",
    ];
    let mut context = own.cloned();
    for field in lifted {
        if let Some(value) = spec.get(field).filter(|v| !v.is_null()) {
            let context = context.get_or_insert_with(|| Value::Object(serde_json::Map::new()));
            context[field] = value.clone();
        }
    }
    context
}

/// Compact, or with one field a line if `depth` is given.
fn write(out: &mut String, face: &str, value: &Value, depth: Option<usize>) {
    let Some(fields) = FACES.get(face) else {
        plain(out, value, depth);
        return;
    };
    out.push('{');
    let inner = depth.map(|d| d + 1);
    let mut first = true;
    for field in fields {
        let lifted;
        let mut found = field
            .path
            .iter()
            .try_fold(value, |at, part| at.get(part))
            .filter(|v| !v.is_null());
        if face == "PodSpec" && field.name == "SecurityContext" {
            lifted = security_context(value);
            found = lifted.as_ref();
        }
        let is_empty = found.is_none_or(|v| {
            v.as_array().is_some_and(Vec::is_empty)
                || v.as_object().is_some_and(serde_json::Map::is_empty)
        });
        if is_empty && matches!(field.kind, Kind::Omitted | Kind::OmittedList(_)) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        new_line(out, inner);
        let _ = write!(out, "{:?}:", field.name);
        if depth.is_some() {
            out.push(' ');
        }
        match (&field.kind, found) {
            (Kind::Text, None) => out.push_str("\"\""),
            (Kind::Number, None) => out.push('0'),
            (Kind::Flag, None) => out.push_str("false"),
            (Kind::Amount, None) => out.push_str("\"0\""),
            (Kind::Embedded(of), None) => write(out, of, &Value::Null, inner),
            (_, None) => out.push_str("null"),
            (Kind::Of(of) | Kind::Embedded(of), Some(value)) => write(out, of, value, inner),
            (Kind::List(of) | Kind::OmittedList(of), Some(value)) => {
                write_list(out, of, value, inner);
            }
            (_, Some(value)) => plain(out, value, inner),
        }
    }
    if !first {
        new_line(out, depth);
    }
    out.push('}');
}

fn write_list(out: &mut String, of: &str, value: &Value, depth: Option<usize>) {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    out.push('[');
    let inner = depth.map(|d| d + 1);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        new_line(out, inner);
        write(out, of, item, inner);
    }
    if !items.is_empty() {
        new_line(out, depth);
    }
    out.push(']');
}

fn new_line(out: &mut String, depth: Option<usize>) {
    if let Some(depth) = depth {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', depth));
    }
}

/// A value that is printed as it stands; keys of maps in order.
fn plain(out: &mut String, value: &Value, depth: Option<usize>) {
    let inner = depth.map(|d| d + 1);
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for (i, key) in keys.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                new_line(out, inner);
                plain(out, &Value::String((*key).clone()), None);
                out.push_str(if depth.is_some() { ": " } else { ":" });
                plain(out, &map[*key], inner);
            }
            if !keys.is_empty() {
                new_line(out, depth);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                new_line(out, inner);
                plain(out, item, inner);
            }
            if !items.is_empty() {
                new_line(out, depth);
            }
            out.push(']');
        }
        other => {
            let text = other.to_string();
            let escaped = text
                .replace('&', "\\u0026")
                .replace('<', "\\u003c")
                .replace('>', "\\u003e");
            out.push_str(&escaped);
        }
    }
}

/// Lines around a change that are told with it.
const CONTEXT: usize = 3;

/// What an update changed, line by line, as `diff -u` shows it.
pub fn difference(face: &str, old: &Value, new: &Value) -> String {
    let lines = |value: &Value| {
        let mut text = String::new();
        write(&mut text, face, value, Some(0));
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (old, new) = (lines(old), lines(new));
    let edits = edits(&old, &new);
    let mut out = String::new();
    for hunk in hunks(&edits) {
        let of = |sign: char| {
            edits[hunk.clone()]
                .iter()
                .filter(|e| e.sign != sign)
                .count()
        };
        let (removed, added) = (of('+'), of('-'));
        let start = |number: usize, count: usize| if count == 0 { number } else { number + 1 };
        let (old_at, new_at) = (edits[hunk.start].old, edits[hunk.start].new);
        let _ = writeln!(
            out,
            "@@ -{} +{} @@",
            range(start(old_at, removed), removed),
            range(start(new_at, added), added)
        );
        for edit in &edits[hunk] {
            let _ = writeln!(out, "{}{}", edit.sign, edit.line);
        }
    }
    out
}

fn range(start: usize, count: usize) -> String {
    if count == 1 {
        start.to_string()
    } else {
        format!("{start},{count}")
    }
}

struct Edit<'a> {
    sign: char,
    line: &'a str,
    /// How many lines of each text are before this one.
    old: usize,
    new: usize,
}

const MAX_COMPARISONS: usize = 4_000_000;

fn whole<'a>(old: &'a [String], new: &'a [String]) -> Vec<Edit<'a>> {
    let removed = old.iter().enumerate().map(|(i, line)| Edit {
        sign: '-',
        line,
        old: i,
        new: 0,
    });
    let added = new.iter().enumerate().map(|(j, line)| Edit {
        sign: '+',
        line,
        old: old.len(),
        new: j,
    });
    removed.chain(added).collect()
}

/// The edits of a longest common subsequence; removals before additions.
fn edits<'a>(old: &'a [String], new: &'a [String]) -> Vec<Edit<'a>> {
    let common = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[common..]
        .iter()
        .rev()
        .zip(new[common..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (a, b) = (
        &old[common..old.len() - tail],
        &new[common..new.len() - tail],
    );
    // What is too long to compare line by line is told as a whole.
    if a.len().saturating_mul(b.len()) > MAX_COMPARISONS {
        return whole(old, new);
    }
    let mut longest = vec![vec![0_u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i][j] = if a[i] == b[j] {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let mut out = Vec::with_capacity(old.len() + new.len());
    let push = |out: &mut Vec<Edit<'a>>, sign, line: &'a str, old, new| {
        out.push(Edit {
            sign,
            line,
            old,
            new,
        });
    };
    for (i, line) in old[..common].iter().enumerate() {
        push(&mut out, ' ', line, i, i);
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let (x, y) = (common + i, common + j);
        if i < a.len() && j < b.len() && a[i] == b[j] {
            push(&mut out, ' ', &a[i], x, y);
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || longest[i + 1][j] >= longest[i][j + 1]) {
            push(&mut out, '-', &a[i], x, y);
            i += 1;
        } else {
            push(&mut out, '+', &b[j], x, y);
            j += 1;
        }
    }
    let (x, y) = (old.len() - tail, new.len() - tail);
    for (k, line) in old[x..].iter().enumerate() {
        push(&mut out, ' ', line, x + k, y + k);
    }
    out
}

/// Runs of changes with the lines around them.
fn hunks(edits: &[Edit<'_>]) -> Vec<std::ops::Range<usize>> {
    let mut hunks: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, _) in edits.iter().enumerate().filter(|(_, e)| e.sign != ' ') {
        let start = at.saturating_sub(CONTEXT);
        let end = (at + CONTEXT + 1).min(edits.len());
        match hunks.last_mut() {
            Some(last) if start <= last.end => last.end = end,
            _ => hunks.push(start..end),
        }
    }
    hunks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_printed_by_their_types() {
        let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}});
        assert_eq!(
            show("VolumeNodeAffinity", &affinity),
            r#"{"Required":{"NodeSelectorTerms":[{"MatchExpressions":[{"Key":"a","Operator":"Exists","Values":null}],"MatchFields":null}]}}"#
        );
        assert_eq!(
            show("VolumeNodeAffinity", &json!({})),
            r#"{"Required":null}"#
        );
        let named = TEXT.lines().filter(|l| !l.starts_with('#')).count();
        assert_eq!(FACES.len(), named, "a type is named twice");
        for field in FACES.values().flatten() {
            if let Kind::Of(of) | Kind::Embedded(of) | Kind::List(of) | Kind::OmittedList(of) =
                field.kind
            {
                assert!(FACES.contains_key(of), "{of} is not in the table");
            }
        }
    }

    #[test]
    fn changes_are_told_with_the_lines_around_them() {
        let spec = |a: &str| json!({"accessModes": ["ReadWriteOnce"], "selector": {"matchLabels": {"a": a}}, "volumeName": "v"});
        assert_eq!(
            difference("PersistentVolumeClaimSpec", &spec("x"), &spec("y")),
            "@@ -4,7 +4,7 @@\n  ],\n  \"Selector\": {\n   \"matchLabels\": {\n-   \"a\": \"x\"\n+   \"a\": \"y\"\n   }\n  },\n  \"Resources\": {\n"
        );
    }
}

//! Regular expressions as Go writes them. Almost the same syntax; classes such as `\d` are ASCII there, and a `[` inside a
//! class is a plain letter.

use oarlock_model::pattern;
use regex::Regex;

/// Patterns beyond this size are not compiled (bytes of the compiled program).
const MAX_PROGRAM_BYTES: usize = 1 << 20;

pub fn compile(pattern: &str) -> Option<Regex> {
    if pattern::is_too_large(pattern) {
        return None;
    }
    regex::RegexBuilder::new(&translated(pattern))
        .size_limit(MAX_PROGRAM_BYTES)
        .build()
        .ok()
}

fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut letters = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('s') => out.push_str("[\\t\\n\\x0c\\r ]"),
                Some('S') => out.push_str("[^\\t\\n\\x0c\\r ]"),
                Some('b') if !in_class => out.push_str("(?-u:\\b)"),
                Some('B') if !in_class => out.push_str("(?-u:\\B)"),
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            '[' if in_class && letters.peek() != Some(&':') => out.push_str("\\["),
            '[' => {
                out.push('[');
                if !in_class {
                    in_class = true;
                    if letters.next_if_eq(&'^').is_some() {
                        out.push('^');
                    }
                    if letters.next_if_eq(&']').is_some() {
                        out.push_str("\\]");
                    }
                } else {
                    // A named class: up to its own end.
                    for inner in letters.by_ref() {
                        out.push(inner);
                        if inner == ']' {
                            break;
                        }
                    }
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(letter);
            }
            other => out.push(other),
        }
    }
    out
}

/// What Go says of a pattern that is none; `None`: it is one.
pub fn go_syntax_error(pattern: &str) -> Option<String> {
    if compile(pattern).is_some() {
        return None;
    }
    if pattern::is_too_large(pattern) {
        let why = pattern::TOO_LARGE;
        return Some(format!("error parsing regexp: {why}: `{pattern}`"));
    }
    Some(format!("error parsing regexp: {}", fault(pattern)))
}

/// The first fault of a pattern that is known to have one, in Go's words.
fn fault(pattern: &str) -> String {
    let told = |what: &str, part: &str| format!("{what}: `{part}`");
    let mut depth = 0usize;
    let mut at = 0;
    // What a repetition can repeat; and where a repetition began, if the last thing was one.
    let (mut operand, mut repeated): (bool, Option<usize>) = (false, None);
    while let Some(letter) = pattern[at..].chars().next() {
        let next = at + letter.len_utf8();
        match letter {
            '\\' => {
                let Some(escaped) = pattern[next..].chars().next() else {
                    return told("trailing backslash at end of expression", "");
                };
                let fine = !escaped.is_alphanumeric()
                    || "aftnrvxpPdDsSwWbBAzQECG0123456789".contains(escaped);
                if !fine || ('1'..='9').contains(&escaped) {
                    return told(
                        "invalid escape sequence",
                        &pattern[at..next + escaped.len_utf8()],
                    );
                }
                (operand, repeated) = (true, None);
                at = next + escaped.len_utf8();
                continue;
            }
            '[' => match class_end(pattern, at) {
                Ok(end) => {
                    (operand, repeated) = (true, None);
                    at = end;
                    continue;
                }
                Err(text) => return text,
            },
            '(' => {
                let rest = &pattern[next..];
                if rest.starts_with("?=")
                    || rest.starts_with("?!")
                    || rest.starts_with("?<=")
                    || rest.starts_with("?<!")
                {
                    let length = if rest.starts_with("?<") { 3 } else { 2 };
                    return told(
                        "invalid or unsupported Perl syntax",
                        &pattern[at..next + length],
                    );
                }
                depth += 1;
                (operand, repeated) = (false, None);
                if rest.starts_with('?') {
                    let end = rest
                        .find([':', '>', ')'])
                        .map_or(pattern.len(), |e| next + e);
                    at = end + usize::from(!pattern[end..].starts_with(')'));
                    at = at.min(pattern.len());
                    continue;
                }
            }
            ')' => {
                if depth == 0 {
                    return told("unexpected )", pattern);
                }
                depth -= 1;
                (operand, repeated) = (true, None);
            }
            '|' | '^' => (operand, repeated) = (letter == '^', None),
            '*' | '+' | '?' => match (operand, repeated) {
                (false, None) => {
                    return told(
                        "missing argument to repetition operator",
                        &pattern[at..next],
                    );
                }
                (_, Some(start)) if letter != '?' || at - start > 1 => {
                    return told("invalid nested repetition operator", &pattern[start..next]);
                }
                (_, Some(_)) => {}
                (true, None) => repeated = Some(at),
            },
            _ => (operand, repeated) = (true, None),
        }
        at = next;
    }
    if depth > 0 {
        return told("missing closing )", pattern);
    }
    told("invalid regexp", pattern)
}

/// Behind a class that begins at `start`, or what is wrong with it.
fn class_end(pattern: &str, start: usize) -> Result<usize, String> {
    let mut letters = pattern[start + 1..].char_indices().peekable();
    letters.next_if(|(_, c)| *c == '^');
    let mut first = true;
    let mut low: Option<(usize, char)> = None;
    while let Some((at, letter)) = letters.next() {
        let here = start + 1 + at;
        match letter {
            ']' if !first => return Ok(here + 1),
            '\\' => {
                letters.next();
                low = None;
            }
            '-' if low.is_some() => {
                if let (Some((from, low_letter)), Some((to, high))) = (low, letters.peek().copied())
                    && high != ']'
                    && high < low_letter
                {
                    let end = start + 1 + to + high.len_utf8();
                    return Err(format!(
                        "invalid character class range: `{}`",
                        &pattern[from..end]
                    ));
                }
                low = None;
            }
            other => low = Some((here, other)),
        }
        first = false;
    }
    Err(format!("missing closing ]: `{}`", &pattern[start..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_syntax() {
        let check = |pattern: &str, text: &str, fits: bool| {
            let regex = compile(pattern).unwrap_or_else(|| panic!("{pattern}"));
            assert_eq!(regex.is_match(text), fits, "{pattern} {text}");
        };
        check(r"^\d+$", "12", true);
        check(r"^\d+$", "١٢", false);
        check(r"^[\w.]+$", "a_b.c", true);
        check(r"^[[]$", "[", true);
        check(r"^[[:alpha:]]$", "x", true);
        check(r"^[]a]$", "]", true);
        check(r"\bfoo\b", "a foo b", true);
        assert_eq!(go_syntax_error("a.b"), None);
        for (pattern, expect) in [
            ("(", "missing closing ): `(`"),
            ("a)", "unexpected ): `a)`"),
            ("*a", "missing argument to repetition operator: `*`"),
            ("[a", "missing closing ]: `[a`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            (r"\y", r"invalid escape sequence: `\y`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("a\\", "trailing backslash at end of expression: ``"),
        ] {
            assert_eq!(
                go_syntax_error(pattern),
                Some(format!("error parsing regexp: {expect}")),
                "{pattern}"
            );
        }
    }
}

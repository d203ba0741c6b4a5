//! Source text, positions in it, and complaints as cel-go frames them.

use std::fmt;

/// An expression's text, by characters.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    text: String,
}

/// One complaint: 1-based line, 0-based column (-1: before the text).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    pub line: usize,
    pub column: isize,
    pub message: String,
}

/// Why an expression does not compile. Displays as cel-go's `Issues`: one framed message after another.
#[derive(Clone, Debug)]
pub struct CompileErrors {
    source: Source,
    issues: Vec<Issue>,
}

const MAX_REPORTED: usize = 100;

impl Source {
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
        }
    }

    /// Line (from 1) and column (from 0) of a position in characters.
    pub fn location(&self, at: usize) -> (usize, isize) {
        let (mut line, mut column) = (1, 0);
        for c in self.text.chars().take(at) {
            if c == '\n' {
                line += 1;
                column = 0;
            } else {
                column += 1;
            }
        }
        (line, column)
    }

    fn line(&self, number: usize) -> Option<&str> {
        self.text.split('\n').nth(number - 1)
    }
}

impl CompileErrors {
    pub(crate) fn new(source: Source, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| (issue.line, issue.column));
        Self { source, issues }
    }

    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }
}

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().take(MAX_REPORTED).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let Issue {
                line,
                column,
                message,
            } = issue;
            write!(f, "ERROR: <input>:{line}:{}: {message}", column + 1)?;
            let (Ok(column), Some(text)) = (usize::try_from(*column), self.source.line(*line))
            else {
                continue;
            };
            if text.is_empty() {
                continue;
            }
            write!(f, "\n | {}\n | ", text.replace('\t', " "))?;
            // A wide character takes a wide dot, and a wide caret if it is the one meant.
            let mut chars = text.chars();
            for c in chars.by_ref().take(column) {
                f.write_str(if is_wide(c) { "．" } else { "." })?;
            }
            f.write_str(if chars.next().is_some_and(is_wide) {
                "＾"
            } else {
                "^"
            })?;
        }
        let more = self.issues.len().saturating_sub(MAX_REPORTED);
        if more > 0 {
            write!(f, "\n{more} more errors were truncated")?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileErrors {}

fn is_wide(c: char) -> bool {
    c.len_utf8() > 1
}

//! The grammar of label selectors, and the words for what does not fit it, which clients match on.
//!
//! `a=b,c!=d,e in (x,y),f notin (z),!g,h,i>1,j<2`

use super::{Operator, Requirement, SelectorError};
use crate::names::{label_value, qualified_name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    Open,
    Close,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
    Word,
}

/// The text up to a NUL as tokens and what they were; the last one is `End`.
fn tokens(text: &str) -> Vec<(Token, &str)> {
    let text = text.split('\0').next().unwrap_or_default();
    let is_space = |b: u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let is_special = |b: u8| matches!(b, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<');
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if is_space(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        let token = if is_special(bytes[at]) {
            let second = bytes.get(at + 1) == Some(&b'=');
            let (token, length) = match bytes[at] {
                b'(' => (Token::Open, 1),
                b')' => (Token::Close, 1),
                b',' => (Token::Comma, 1),
                b'>' => (Token::Greater, 1),
                b'<' => (Token::Less, 1),
                b'!' if second => (Token::NotEquals, 2),
                b'!' => (Token::Not, 1),
                _ if second => (Token::DoubleEquals, 2),
                _ => (Token::Equals, 1),
            };
            at += length;
            token
        } else {
            while at < bytes.len() && !is_space(bytes[at]) && !is_special(bytes[at]) {
                at += 1;
            }
            match &text[start..at] {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Word,
            }
        };
        out.push((token, &text[start..at]));
    }
    out.push((Token::End, ""));
    out
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    at: usize,
}

type Parsed<T> = Result<T, String>;

/// The requirements of a selector text, in their order.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser {
        tokens: tokens(text),
        at: 0,
    };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            (Token::Word | Token::Not, _) => {
                let requirement = parser
                    .requirement()
                    .map_err(|why| SelectorError(format!("unable to parse requirement: {why}")))?;
                requirements.push(requirement);
                match parser.next() {
                    (Token::End, _) => return Ok(requirements),
                    (Token::Comma, _) => match parser.peek() {
                        (Token::Word | Token::Not, _) => {}
                        (_, found) => {
                            return Err(SelectorError(format!(
                                "found '{found}', expected: identifier after ','"
                            )));
                        }
                    },
                    (_, found) => {
                        return Err(SelectorError(format!(
                            "found '{found}', expected: ',' or 'end of string'"
                        )));
                    }
                }
            }
            (Token::End, _) => return Ok(requirements),
            (_, found) => {
                return Err(SelectorError(format!(
                    "found '{found}', expected: !, identifier, or 'end of string'"
                )));
            }
        }
    }
}

impl<'a> Parser<'a> {
    /// The token here, where an operator's name is a word like any other.
    fn peek(&self) -> (Token, &'a str) {
        let (token, text) = self.raw();
        match token {
            Token::In | Token::NotIn => (Token::Word, text),
            _ => (token, text),
        }
    }

    fn raw(&self) -> (Token, &'a str) {
        self.tokens
            .get(self.at)
            .copied()
            .unwrap_or((Token::End, ""))
    }

    fn next(&mut self) -> (Token, &'a str) {
        let found = self.peek();
        self.at += 1;
        found
    }

    fn requirement(&mut self) -> Parsed<Requirement> {
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Word {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let faults = qualified_name(key);
        if !faults.is_empty() {
            let faults = faults.join("; ");
            return Err(format!("<nil>: Invalid value: {key:?}: {faults}"));
        }
        let make = |operator| Requirement {
            key: key.to_owned(),
            operator,
        };
        if negated {
            return Ok(make(Operator::DoesNotExist));
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(make(Operator::Exists));
        }
        let (token, found) = self.raw();
        self.at += 1;
        let mut values = match token {
            Token::In | Token::NotIn => self.values()?,
            Token::Equals
            | Token::DoubleEquals
            | Token::NotEquals
            | Token::Greater
            | Token::Less => vec![self.value()?],
            _ => {
                return Err(format!(
                    "found '{found}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        values.sort_unstable();
        values.dedup();
        let operator = match token {
            Token::In | Token::Equals | Token::DoubleEquals => {
                Operator::In(values.iter().map(|&v| v.to_owned()).collect())
            }
            Token::Greater => Operator::GreaterThan(bound(&values).unwrap_or_default()),
            Token::Less => Operator::LessThan(bound(&values).unwrap_or_default()),
            _ => Operator::NotIn(values.iter().map(|&v| v.to_owned()).collect()),
        };
        let faults = value_faults(key, token, &values);
        match faults.as_slice() {
            [] => Ok(make(operator)),
            [one] => Err(one.clone()),
            all => Err(format!("[{}]", all.join(", "))),
        }
    }

    /// `(a,b)`: an empty place between commas is the empty value.
    fn values(&mut self) -> Parsed<Vec<&'a str>> {
        let (token, found) = self.next();
        if token != Token::Open {
            return Err(format!("found '{found}' expected: '('"));
        }
        let (token, first) = self.peek();
        match token {
            Token::Word | Token::Comma => {
                let values = self.list()?;
                if self.next().0 == Token::Close {
                    return Ok(values);
                }
                Err(format!("found '{first}', expected: ')'"))
            }
            Token::Close => {
                self.at += 1;
                Ok(Vec::new())
            }
            _ => Err(format!("found '{first}', expected: ',', ')' or identifier")),
        }
    }

    fn list(&mut self) -> Parsed<Vec<&'a str>> {
        let mut values = Vec::new();
        loop {
            match self.next() {
                (Token::Word, text) => {
                    values.push(text);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, found) => return Err(format!("found '{found}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push("");
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.push("");
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.at += 1;
                            values.push("");
                        }
                        _ => {}
                    }
                }
                (_, found) => return Err(format!("found '{found}', expected: ',', or identifier")),
            }
        }
    }

    fn value(&mut self) -> Parsed<&'a str> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok("");
        }
        match self.next() {
            (Token::Word, text) => Ok(text),
            (_, found) => Err(format!("found '{found}', expected: identifier")),
        }
    }
}

fn bound(values: &[&str]) -> Option<i64> {
    values.first()?.parse().ok()
}

/// What is wrong with the values of an operator.
fn value_faults(key: &str, token: Token, values: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    match token {
        Token::In | Token::NotIn if values.is_empty() => {
            faults.push(
                "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
                    .to_owned(),
            );
        }
        Token::Greater | Token::Less if bound(values).is_none() => {
            let value = values.first().copied().unwrap_or_default();
            faults.push(format!(
                "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ));
        }
        _ => {}
    }
    for (i, value) in values.iter().enumerate() {
        let wrong = label_value(value);
        if !wrong.is_empty() {
            let wrong = wrong.join("; ");
            faults.push(format!(
                "values[{i}][{key}]: Invalid value: {value:?}: {wrong}"
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).expect_err(text).0
    }

    #[test]
    fn the_words_for_what_does_not_fit() {
        for (text, expect) in [
            (
                "a===b",
                "unable to parse requirement: found '=', expected: identifier",
            ),
            (
                "!",
                "unable to parse requirement: found '', expected: identifier",
            ),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("a,", "found '', expected: identifier after ','"),
            (
                ",a",
                "found ',', expected: !, identifier, or 'end of string'",
            ),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
            (
                "a in b",
                "unable to parse requirement: found 'b' expected: '('",
            ),
            (
                "a in (b c)",
                "unable to parse requirement: found 'c', expected: ',' or ')'",
            ),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(error(text), expect, "{text}");
        }
        assert!(error("a=b_").starts_with(
            "unable to parse requirement: values[0][a]: Invalid value: \"b_\": a valid label must"
        ));
        assert!(error("_a").starts_with(
            "unable to parse requirement: <nil>: Invalid value: \"_a\": name part must consist"
        ));
    }

    #[test]
    fn names_of_operators_are_words_elsewhere() {
        let found = parse("in in (in,notin), notin != in").expect("a selector");
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0].operator,
            Operator::In(vec!["in".to_owned(), "notin".to_owned()])
        );
        assert_eq!(found[1].operator, Operator::NotIn(vec!["in".to_owned()]));
    }

    #[test]
    fn empty_values_stand_between_commas() {
        let values = |text: &str| match parse(text).expect(text).remove(0).operator {
            Operator::In(values) => values,
            other => panic!("{other:?}"),
        };
        assert_eq!(values("a in (,b,)"), ["", "b"]);
        assert_eq!(values("a="), [""]);
        assert_eq!(values("a = "), [""]);
        assert!(parse("  ").expect("nothing").is_empty());
    }
}

//! The text form of label selectors: words and signs, and what may follow what. Errors read as upstream's.

use super::{Operator, Requirement, SelectorError, check_key, check_value};

const BINARY_OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'a str),
    End,
}

impl Token<'_> {
    fn literal(self) -> String {
        match self {
            Self::Word(text) | Self::Sign(text) => text.to_owned(),
            Self::End => String::new(),
        }
    }

    fn is(self, sign: &str) -> bool {
        matches!(self, Self::Sign(text) if text == sign)
    }

    fn ends_requirement(self) -> bool {
        self == Self::End || self.is(",")
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_sign(byte: u8) -> bool {
    b"=!(),><".contains(&byte)
}

/// A text on the way through it, with one token seen ahead.
struct Parser<'a> {
    rest: &'a str,
    ahead: Token<'a>,
}

/// All requirements of a text, in its order.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser {
        rest: text,
        ahead: Token::End,
    };
    parser.next();
    let mut all = Vec::new();
    loop {
        match parser.ahead {
            Token::End => return Ok(all),
            ahead if matches!(ahead, Token::Word(_)) || ahead.is("!") => {}
            other => {
                return Err(found(
                    other,
                    ", expected: !, identifier, or 'end of string'",
                ));
            }
        }
        let requirement = parser
            .requirement()
            .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
        all.push(requirement);
        match parser.next() {
            Token::End => return Ok(all),
            comma if comma.is(",") => {
                let ahead = parser.ahead;
                if !matches!(ahead, Token::Word(_)) && !ahead.is("!") {
                    return Err(found(ahead, ", expected: identifier after ','"));
                }
            }
            other => return Err(found(other, ", expected: ',' or 'end of string'")),
        }
    }
}

fn found(token: Token<'_>, rest: &str) -> SelectorError {
    SelectorError(format!("found '{}'{rest}", token.literal()))
}

impl<'a> Parser<'a> {
    /// The token ahead, and on to the one behind it.
    fn next(&mut self) -> Token<'a> {
        let text = self
            .rest
            .trim_start_matches(|c: char| c.is_ascii() && is_space(c as u8));
        let bytes = text.as_bytes();
        let (token, length) = match bytes.first() {
            None => (Token::End, 0),
            Some(byte) if is_sign(*byte) => {
                let length = match (bytes.first(), bytes.get(1)) {
                    (Some(b'=' | b'!'), Some(b'=')) => 2,
                    _ => 1,
                };
                (Token::Sign(&text[..length]), length)
            }
            Some(_) => {
                let length = bytes
                    .iter()
                    .position(|b| is_sign(*b) || is_space(*b))
                    .unwrap_or(bytes.len());
                (Token::Word(&text[..length]), length)
            }
        };
        self.rest = &text[length..];
        std::mem::replace(&mut self.ahead, token)
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = self.ahead.is("!");
        if absent {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key.to_owned(),
            other => return Err(found(other, ", expected: identifier")),
        };
        check_key(&key)?;
        let operator = if absent {
            Operator::DoesNotExist
        } else if self.ahead.ends_requirement() {
            Operator::Exists
        } else {
            self.operator(&key)?
        };
        Ok(Requirement { key, operator })
    }

    fn operator(&mut self, key: &str) -> Result<Operator, SelectorError> {
        let sign = self.next();
        let operator = match sign {
            Token::Word(word @ ("in" | "notin")) => {
                let values = self.values()?;
                if values.is_empty() {
                    let text = "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty";
                    return Err(SelectorError(text.to_owned()));
                }
                for (at, value) in values.iter().enumerate() {
                    check_value(key, at, value)?;
                }
                return Ok(match word {
                    "in" => Operator::In(values),
                    _ => Operator::NotIn(values),
                });
            }
            Token::Sign(text @ ("=" | "==" | "!=" | ">" | "<")) => text,
            other => return Err(found(other, &format!(", expected: {BINARY_OPERATORS}"))),
        };
        let value = self.exact_value()?;
        if let ">" | "<" = operator {
            let bound = value.parse().map_err(|_| {
                SelectorError(format!(
                    "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                ))
            })?;
            return Ok(match operator {
                ">" => Operator::GreaterThan(bound),
                _ => Operator::LessThan(bound),
            });
        }
        check_value(key, 0, &value)?;
        Ok(match operator {
            "!=" => Operator::NotIn(vec![value]),
            _ => Operator::In(vec![value]),
        })
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        if self.ahead.ends_requirement() {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(value) => Ok(value.to_owned()),
            other => Err(found(other, ", expected: identifier")),
        }
    }

    /// `(a, b,,)`: sorted, each once; a place with nothing in it is the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let open = self.next();
        if !open.is("(") {
            return Err(found(open, " expected: '('"));
        }
        let mut values = Vec::new();
        if self.ahead.is(")") {
            self.next();
            return Ok(values);
        }
        if !matches!(self.ahead, Token::Word(_)) && !self.ahead.is(",") {
            return Err(found(self.ahead, ", expected: ',', ')' or identifier"));
        }
        loop {
            match self.next() {
                Token::Word(value) => {
                    values.push(value.to_owned());
                    if !self.ahead.is(",") && !self.ahead.is(")") {
                        return Err(found(self.ahead, ", expected: ',' or ')'"));
                    }
                }
                comma if comma.is(",") => {
                    if values.is_empty() || self.ahead.is(")") || self.ahead.is(",") {
                        values.push(String::new());
                    }
                }
                other => return Err(found(other, ", expected: ',', or identifier")),
            }
            if self.ahead.is(")") {
                self.next();
                values.sort();
                values.dedup();
                return Ok(values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_upstream() {
        for (text, expect) in [
            (
                "!",
                "unable to parse requirement: found '', expected: identifier",
            ),
            (
                "a===b",
                "unable to parse requirement: found '=', expected: identifier",
            ),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "a in b",
                "unable to parse requirement: found 'b' expected: '('",
            ),
            (
                "a in (b",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            ("a,", "found '', expected: identifier after ','"),
            (
                ",a",
                "found ',', expected: !, identifier, or 'end of string'",
            ),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ] {
            assert_eq!(requirements(text).unwrap_err().0, expect, "{text}");
        }
    }

    #[test]
    fn values_with_holes() {
        let values = |text: &str| requirements(text).unwrap().remove(0).operator;
        let of = |items: &[&str]| Operator::In(items.iter().map(|i| (*i).to_owned()).collect());
        assert_eq!(values("a in (c,b,b)"), of(&["b", "c"]));
        assert_eq!(values("a in (,b)"), of(&["", "b"]));
        assert_eq!(values("a in (b,,)"), of(&["", "b"]));
        assert_eq!(values("in in (in,notin)"), of(&["in", "notin"]));
        assert_eq!(values("a="), of(&[""]));
    }
}

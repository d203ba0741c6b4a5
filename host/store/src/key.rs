//! Keys and prefixes: which collection a key belongs to, and where a prefix ends.

use std::ops::Bound;

/// The collection of a key or of a prefix: its first segment with the slash (`pods/`). A text without a slash belongs to
/// the collection with the empty name.
pub(crate) fn collection(key: &str) -> &str {
    match key.find('/') {
        Some(slash) => &key[..=slash],
        None => "",
    }
}

/// The smallest text greater than every text with this prefix; `None` if there is no such text.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            char::MAX => None,
            other => char::from_u32(other as u32 + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// The keys with a prefix that come after `after`, as bounds; owns the text of the upper one.
pub(crate) struct KeyRange<'a> {
    lower: Bound<&'a str>,
    upper: Option<String>,
}

impl<'a> KeyRange<'a> {
    pub(crate) fn new(prefix: &'a str, after: Option<&'a str>) -> Self {
        let lower = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        Self {
            lower,
            upper: prefix_end(prefix),
        }
    }

    /// No key can be in the range: its lower bound is at or behind its upper one.
    pub(crate) fn is_empty(&self) -> bool {
        match (self.lower, &self.upper) {
            (Bound::Included(lower) | Bound::Excluded(lower), Some(upper)) => {
                lower >= upper.as_str()
            }
            _ => false,
        }
    }

    pub(crate) fn bounds(&self) -> (Bound<&str>, Bound<&str>) {
        let upper = match &self.upper {
            Some(upper) => Bound::Excluded(upper.as_str()),
            None => Bound::Unbounded,
        };
        (self.lower, upper)
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        let above = match self.lower {
            Bound::Included(lower) => key >= lower,
            Bound::Excluded(lower) => key > lower,
            Bound::Unbounded => true,
        };
        above && self.upper.as_deref().is_none_or(|upper| key < upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_of_its_keys() {
        let check = |prefix: &str, expect: Option<&str>| {
            assert_eq!(prefix_end(prefix).as_deref(), expect, "{prefix:?}");
        };
        check("pods/", Some("pods0"));
        check("a", Some("b"));
        check("a\u{D7FF}", Some("a\u{E000}"));
        check("a\u{10FFFF}", Some("b"));
        check("\u{10FFFF}", None);
        check("", None);
    }

    #[test]
    fn a_page_begins_behind_the_last_key() {
        let check = |prefix: &str, after: Option<&str>, key: &str, expect: bool| {
            assert_eq!(
                KeyRange::new(prefix, after).contains(key),
                expect,
                "{prefix} {after:?} {key}"
            );
        };
        check("pods/", None, "pods/a", true);
        check("pods/", Some("pods/a"), "pods/a", false);
        check("pods/", Some("pods/a"), "pods/a/b", true);
        check("pods/", Some("a"), "pods/a", true);
        check("pods/", None, "podsx/a", false);
        assert!(KeyRange::new("pods/", Some("pods0")).is_empty());
        assert!(!KeyRange::new("pods/", Some("pods/zz")).is_empty());
    }
}

//! How large a regular expression may be before it is compiled.

/// Classes of characters (`\\pL`) in one pattern. Each is hundreds of ranges, however short its text: a pattern of nothing
/// else would take gigabytes before the compiler's own bound is looked at.
const MAX_CLASSES: usize = 1000;

/// What Go says of a pattern that is too large, and so do we.
pub const TOO_LARGE: &str = "expression too large";

pub fn is_too_large(pattern: &str) -> bool {
    let mut bytes = pattern.bytes();
    let mut classes = 0;
    while let Some(byte) = bytes.next() {
        if byte == b'\\'
            && matches!(
                bytes.next(),
                Some(b'p' | b'P' | b'w' | b'W' | b's' | b'S' | b'd' | b'D')
            )
        {
            classes += 1;
        }
    }
    classes > MAX_CLASSES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_count() {
        assert!(!is_too_large(&"\\pL".repeat(1000)) && is_too_large(&"\\pL".repeat(1001)));
        assert!(!is_too_large(&"\\\\pL".repeat(5000)));
    }
}

//! Names that keys, values and selectors share: what they must look like, and what is said if they do not.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

pub const MAX_LABEL: usize = 63;
pub const MAX_SUBDOMAIN: usize = 253;

/// Not empty, made of `inner` and `end` bytes, with an `end` byte at both ends.
pub fn is_alphanumeric_at_ends(
    text: &str,
    inner: impl Fn(u8) -> bool,
    end: impl Fn(u8) -> bool,
) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            end(*first) && end(*last) && bytes.iter().all(|b| inner(*b) || end(*b))
        }
        _ => false,
    }
}

/// A lower-case letter or a digit.
pub fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whether a text has the form of an RFC 1123 label, whatever its length.
pub fn is_label(text: &str) -> bool {
    is_alphanumeric_at_ends(text, |b| b == b'-', lower)
}

/// Whether a text has the form of the name in a qualified name.
pub fn is_name_part(text: &str) -> bool {
    is_alphanumeric_at_ends(
        text,
        |b| matches!(b, b'-' | b'_' | b'.'),
        |b| b.is_ascii_alphanumeric(),
    )
}

/// What is said of a text that is too long, or does not fit.
pub fn checked(text: &str, most: usize, unit: &str, fits: bool, message: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > most {
        errors.push(format!("must be no more than {most} {unit}"));
    }
    if !fits {
        errors.push(message.to_owned());
    }
    errors
}

/// An RFC 1123 label.
pub fn dns_label(text: &str) -> Vec<String> {
    let fits = is_label(text);
    let message = if !fits && text.split('.').all(is_label) {
        "must not contain dots"
    } else {
        LABEL
    };
    checked(text, MAX_LABEL, "characters", fits, message)
}

/// An RFC 1123 subdomain.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    checked(
        text,
        MAX_SUBDOMAIN,
        "characters",
        text.split('.').all(is_label),
        SUBDOMAIN,
    )
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    checked(
        text,
        MAX_LABEL,
        "bytes",
        text.is_empty() || is_name_part(text),
        LABEL_VALUE,
    )
}

/// `name` or `prefix/name`: keys of labels, annotations and taints, resource names, condition types.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(
                    dns_subdomain(prefix)
                        .into_iter()
                        .map(|e| format!("prefix part {e}")),
                );
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > MAX_LABEL {
        errors.push(format!("name part must be no more than {MAX_LABEL} bytes"));
    }
    if !is_name_part(name) {
        errors.push(format!("name part {QUALIFIED}"));
    }
    errors
}

//! The formats of strings that Kubernetes knows; others are not looked at.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

/// By names without hyphens.
const TEXT_FORMATS: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

fn plain(format: &str) -> String {
    format.replace('-', "")
}

/// Whether this format means anything for values of this type (empty: of any).
pub fn is_known_format(format: &str, ty: &str) -> bool {
    match ty {
        "" | "string" => TEXT_FORMATS.contains(&plain(format).as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

pub(super) fn applies(format: &str, ty: &str) -> bool {
    !format.is_empty() && is_known_format(format, ty)
}

/// A pattern of the table below, made on first use.
macro_rules! pattern {
    ($text:expr) => {{
        static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($text).ok());
        PATTERN.as_ref()
    }};
}

/// True for formats that are not known.
pub fn matches_format(format: &str, text: &str) -> bool {
    let fits = |pattern: Option<&Regex>| pattern.is_some_and(|p| p.is_match(text));
    match plain(format).as_str() {
        "bsonobjectid" => fits(pattern!("^[0-9a-fA-F]{24}$")),
        "byte" => !text.is_empty() && STANDARD.decode(text).is_ok(),
        "cidr" => is_cidr(text),
        "creditcard" => is_credit_card(text),
        "date" => is_date(text),
        "datetime" => is_date_time(text),
        "duration" => is_duration(text),
        "email" => is_email(text),
        "hexcolor" => fits(pattern!("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$")),
        "hostname" => is_hostname(text),
        "ipv4" => is_ipv4(text),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8sshortname" => text.len() <= 63 && is_label(text),
        "k8slongname" => text.len() <= 253 && text.split('.').all(is_label),
        "mac" => is_mac(text),
        "rgbcolor" => fits(pattern!(
            r"^rgb\(\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*\)$"
        )),
        "ssn" => fits(pattern!("^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$")),
        "uri" => is_request_uri(text),
        "uuid" => fits(pattern!(
            "(?i-u)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"
        )),
        "uuid3" => fits(pattern!(
            "(?i-u)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"
        )),
        "uuid4" => fits(pattern!(
            "(?i-u)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"
        )),
        "uuid5" => fits(pattern!(
            "(?i-u)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"
        )),
        _ => true,
    }
}

fn is_label(text: &str) -> bool {
    let end = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(end)
        && bytes.last().is_some_and(end)
        && bytes.iter().all(|b| end(b) || *b == b'-')
}

/// Leading zeros are fine, as they were to Go before 1.17.
fn is_ipv4(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let part = |p: &&str| {
        !p.is_empty()
            && p.bytes().all(|b| b.is_ascii_digit())
            && p.parse::<u32>().is_ok_and(|n| n < 256)
    };
    (parts.len() == 4 && parts.iter().all(part))
        // An IPv6 address that ends in an IPv4 one has a dot too, and that is all that is looked for.
        || (text.contains('.') && text.parse::<Ipv6Addr>().is_ok())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let most = if !address.contains(':') && is_ipv4(address) {
        32
    } else if address.parse::<Ipv6Addr>().is_ok() {
        128
    } else {
        return false;
    };
    !bits.is_empty()
        && bits.bytes().all(|b| b.is_ascii_digit())
        && bits.parse::<u32>().is_ok_and(|b| b <= most)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts
                .iter()
                .all(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let number: String = digits.iter().map(ToString::to_string).collect();
    let brands = pattern!(
        "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|(222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11}|6[27][0-9]{14})$"
    );
    if !brands.is_some_and(|b| b.is_match(&number)) {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, &d)| match (i % 2, d * 2) {
            (0, _) => d,
            (_, twice) if twice > 9 => twice - 9,
            (_, twice) => twice,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn isbn_digits(text: &str) -> String {
    text.chars()
        .filter(|c| *c != '-' && !c.is_whitespace())
        .collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = isbn_digits(text);
    if text.len() != 10 || !text.is_ascii() {
        return false;
    }
    let mut sum = 0;
    for (weight, letter) in (1..).zip(text.chars()) {
        let digit = match (weight, letter) {
            (10, 'X') => 10,
            (_, c) => match c.to_digit(10) {
                Some(digit) => digit,
                None => return false,
            },
        };
        sum += weight * digit;
    }
    sum.is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let text = isbn_digits(text);
    let digits: Vec<u32> = text.chars().map_while(|c| c.to_digit(10)).collect();
    if digits.len() != 13 || text.len() != 13 {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .take(12)
        .enumerate()
        .map(|(i, d)| if i % 2 == 0 { *d } else { d * 3 })
        .sum();
    (10 - sum % 10) % 10 == digits[12]
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.is_ascii() && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else {
        return false;
    };
    let form = pattern!("^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$");
    let Some(found) = form.and_then(|f| f.captures(time)) else {
        return false;
    };
    let at_most = |part: usize, most: &str| found.get(part).is_some_and(|m| m.as_str() <= most);
    is_date(date) && at_most(1, "23") && at_most(2, "59") && at_most(3, "59")
}

/// A Go duration, or numbers with units such as `3 days`.
fn is_duration(text: &str) -> bool {
    let go = pattern!(r"^[-+]?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$");
    if go.is_some_and(|g| g.is_match(text)) {
        return true;
    }
    let Some(parts) = pattern!("[0-9]+[\\t\\n\\x0c\\r ]*([A-Za-zµ]+)") else {
        return false;
    };
    let exact = ["ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk"];
    let starts = [
        "nano", "micro", "milli", "sec", "min", "hour", "day", "week",
    ];
    parts.captures_iter(text).any(|found| {
        let unit = found
            .get(1)
            .map(|m| m.as_str().to_lowercase())
            .unwrap_or_default();
        exact.contains(&unit.as_str()) || starts.iter().any(|s| unit.starts_with(s))
    })
}

fn is_hostname(text: &str) -> bool {
    let form = pattern!(
        r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$"
    );
    form.is_some_and(|f| f.is_match(text))
        && text.len() <= 255
        && text.split('.').all(|p| p.len() <= 63)
}

/// An address, with or without a name in front: `a@b`, `A <a@b>`.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match text.strip_suffix('>') {
        Some(rest) => match rest.rsplit_once('<') {
            Some((_, address)) => address,
            None => return false,
        },
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let atom =
        |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii();
    let dotted = |t: &str| t.split('.').all(|p| !p.is_empty() && p.chars().all(atom));
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']'));
    let domain_fits = match literal {
        Some(ip) => ip.parse::<Ipv4Addr>().is_ok() || ip.parse::<Ipv6Addr>().is_ok(),
        None => dotted(domain),
    };
    (quoted || dotted(local)) && domain_fits
}

/// What Go's `url.ParseRequestURI` takes: an absolute path, or a scheme with something behind it.
fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return false;
    }
    let escapes_fit = |part: &str| {
        let bytes = part.as_bytes();
        bytes
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'%')
            .all(|(i, _)| {
                bytes
                    .get(i + 1..i + 3)
                    .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
            })
    };
    if text == "*" {
        return true;
    }
    let (before_query, _) = text.split_once('?').unwrap_or((text, ""));
    if text.starts_with('/') {
        return escapes_fit(before_query);
    }
    let Some((scheme, rest)) = before_query.split_once(':') else {
        return false;
    };
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let host_fits = match rest.strip_prefix("//") {
        Some(authority) => {
            let host = authority.split('/').next().unwrap_or_default();
            let port = match host.rsplit_once(':') {
                Some((_, port)) if !host.ends_with(']') => port.bytes().all(|b| b.is_ascii_digit()),
                _ => true,
            };
            port && !host.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '}', '|'])
        }
        None => true,
    };
    scheme_fits && host_fits && escapes_fit(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        for (format, good, bad) in [
            ("date", "2024-01-02", "2024-13-01"),
            ("date-time", "2024-01-02T03:04:05Z", "2024-01-02 03:04:05"),
            (
                "datetime",
                "2024-01-02t03:04:05.5+01:00",
                "2024-01-02T24:04:05Z",
            ),
            ("duration", "1h30m", "1x"),
            ("duration", "3 days", "days"),
            ("duration", "0", ""),
            ("cidr", "192.0.2.0/24", "192.0.2.0"),
            ("cidr", "2001:db8::/64", "2001:db8::/129"),
            ("ipv4", "192.0.2.1", "::1"),
            ("ipv4", "010.0.0.1", "256.0.0.1"),
            ("ipv6", "::1", "192.0.2.1"),
            ("mac", "00:00:5e:00:53:01", "00:00:5e"),
            ("mac", "0000.5e00.5301", "0000-5e00-5301"),
            ("hostname", "a.example", "-bad-"),
            ("email", "a@b.example", "a b"),
            ("email", "Some One <a@b>", "@b"),
            ("uri", "https://a.example/x?y=1", "a b"),
            ("uri", "/x", "x"),
            ("uuid", "F47AC10B-58CC-4372-A567-0E02B2C3D479", "f47ac10b"),
            (
                "uuid4",
                "f47ac10b-58cc-4372-a567-0e02b2c3d479",
                "f47ac10b-58cc-3372-a567-0e02b2c3d479",
            ),
            ("isbn", "0321751043", "1"),
            ("isbn13", "978-0-321-75104-1", "978-0-321-75104-2"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "123-45-6789", "1-2-3"),
            ("hexcolor", "#fff", "#ffff"),
            ("rgbcolor", "rgb(0, 10, 255)", "rgb(0, 10, 256)"),
            ("byte", "YWJj", "YWJ!"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
            ("k8s-short-name", "abc", "A_B"),
            ("k8s-long-name", "a.b-c", "a..b"),
        ] {
            assert!(matches_format(format, good), "{format} {good}");
            assert!(!matches_format(format, bad), "{format} {bad}");
            assert!(is_known_format(format, "string"), "{format}");
        }
        assert!(matches_format("password", "") && matches_format("nonsense", "x"));
        assert!(!is_known_format("int32", "string") && is_known_format("int32", "integer"));
    }
}

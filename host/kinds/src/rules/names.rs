//! Names and other short texts: what they must look like, and what is said if they do not.

use std::net::IpAddr;

use oarlock_model::names::{
    MAX_LABEL, MAX_SUBDOMAIN, checked, is_alphanumeric_at_ends, is_label, lower,
};
pub use oarlock_model::names::{dns_label, dns_subdomain, label_value, qualified_name};

use super::path::{Causes, Path};

const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const BAD_HTTP_PATH: &str =
    "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
pub const BAD_C_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
const SEARCH: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

pub const BAD_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
pub const BAD_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// A label that starts with a letter.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let fits = is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    checked(text, MAX_LABEL, "characters", fits, LABEL_1035)
}

/// The name of a storage or device driver; capitals are fine.
pub fn driver_name(out: &mut Causes, name: &str, at: &Path<'_>) {
    if name.is_empty() {
        return at.required(out, "");
    }
    if name.len() > MAX_LABEL {
        out.push(oarlock_model::Cause::too_long(at.to_string(), MAX_LABEL));
    }
    at.all_invalid(out, name, dns_subdomain(&name.to_lowercase()));
}

/// `acme.io/foo`
pub fn domain_prefixed_path(out: &mut Causes, text: &str, at: &Path<'_>) {
    match text.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            at.all_invalid(out, host, dns_subdomain(host));
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !path.bytes().all(fits) {
                at.invalid_text(out, path, BAD_HTTP_PATH);
            }
        }
        _ => at.invalid_text(
            out,
            text,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
    }
}

pub fn is_c_identifier(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.bytes().all(word) && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// A search domain: underscores are fine.
pub fn search_domain(name: &str) -> Vec<String> {
    let part = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        is_alphanumeric_at_ends(part, |b| matches!(b, b'-' | b'_'), lower)
    };
    checked(
        name,
        MAX_SUBDOMAIN,
        "characters",
        name.split('.').all(part),
        SEARCH,
    )
}

/// For names that become parts of URLs only.
pub fn path_segment(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text == "." || text == ".." {
        errors.push(format!("may not be '{text}'"));
    }
    for bad in ['/', '%'] {
        if text.contains(bad) {
            errors.push(format!("may not contain '{bad}'"));
        }
    }
    errors
}

pub fn config_map_key(text: &str) -> Vec<String> {
    let fits = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let mut errors = checked(text, MAX_SUBDOMAIN, "characters", fits, CONFIG_KEY);
    if text == "." {
        errors.push("must not be '.'".to_owned());
    } else if text == ".." {
        errors.push("must not be '..'".to_owned());
    } else if text.starts_with("..") {
        errors.push("must not start with '..'".to_owned());
    }
    errors
}

/// A port's name (IANA service name).
pub fn port_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 15 {
        errors.push("must be no more than 15 characters".to_owned());
    }
    if text.is_empty() || !text.bytes().all(|b| lower(b) || b == b'-') {
        errors.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// The name of an environment variable: anything printable but `=`.
pub fn env_name(text: &str) -> Vec<String> {
    let fits = !text.is_empty()
        && text
            .bytes()
            .all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    if fits {
        Vec::new()
    } else {
        vec!["a valid environment variable name must consist only of printable ASCII characters other than '=' (e.g. 'my-name',  or 'MY_NAME',  or 'MyName', regex used for validation is '^[ -<>-~]+$')".to_owned()]
    }
}

pub fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// What is wrong with an address that is none, or is one to lenient readers only.
pub fn bad_ip(text: &str) -> &'static str {
    let octets: Vec<&str> = text.split('.').collect();
    let plain: Vec<&str> = octets
        .iter()
        .map(|octet| match octet.trim_start_matches('0') {
            "" if !octet.is_empty() => "0",
            rest => rest,
        })
        .collect();
    if plain != octets && is_ip(&plain.join(".")) {
        "must not have leading 0s"
    } else {
        BAD_IP
    }
}

/// `10.9.8.0/24`
pub fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(ip, bits)| {
        let most = match ip.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        !bits.is_empty()
            && bits.bytes().all(|b| b.is_ascii_digit())
            && bits.parse::<u32>().is_ok_and(|b| b <= most)
    })
}

/// A percentage such as `25%`.
pub fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    let fits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if fits { digits.parse().ok() } else { None }
}

pub const BAD_PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

//! Requests for certificates.

use base64::Engine as _;
use oarlock_model::Cause;
use serde_json::Value;

use super::metadata::{meta_of, object_meta};
use super::names::{dns_label, dns_subdomain};
use super::path::{Causes, Path, items, list, some, text};

const GROUP: &str = "certificates.k8s.io";
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const LEAST_SECONDS: i64 = 600;
const MAX_DOMAIN: usize = 253;
const MAX_SIGNER_NAME: usize = 253 + 253 + 63 + 1 + 1;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub fn request(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    object_meta(out, new, GROUP, "CertificateSigningRequest");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let request = text(spec, "request");
    if let Err(why) = certificate_request(request) {
        let shown = match request {
            "" => Value::Null,
            text => Value::String(text.to_owned()),
        };
        at.field("request").invalid(out, &shown, &why);
    }
    let usages = list(spec, "usages");
    let usages_at = at.field("usages");
    if usages.is_empty() {
        usages_at.required(out, "");
    }
    if old.is_none_or(|old| old["spec"].get("usages") != spec.get("usages")) {
        for (i, usage) in usages.iter().enumerate() {
            usages_at
                .index(i)
                .one_of(out, usage.as_str().unwrap_or(""), &USAGES);
        }
        for (i, usage) in usages.iter().enumerate() {
            if usages[..i].contains(usage) {
                usages_at
                    .index(i)
                    .duplicate(out, usage.as_str().unwrap_or(""));
            }
        }
    }
    let signer = text(spec, "signerName");
    let was_legacy = old.is_some_and(|old| text(&old["spec"], "signerName") == LEGACY_SIGNER);
    if signer == LEGACY_SIGNER && !was_legacy {
        at.field("signerName").invalid_text(
            out,
            signer,
            "the legacy signerName is not allowed via this API version",
        );
    } else {
        signer_name(out, signer, &at.field("signerName"));
    }
    let seconds = spec.get("expirationSeconds").and_then(Value::as_i64);
    if let Some(seconds) = seconds.filter(|s| *s < LEAST_SECONDS) {
        at.field("expirationSeconds").invalid(
            out,
            &Value::from(seconds),
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    status(out, new, old);
    if let Some(old) = old {
        removed_conditions(out, new, old);
        meta_of(out, new, Some(old), GROUP, "CertificateSigningRequest");
    }
    std::mem::take(out)
}

/// Is it a PEM block with a PKCS #10 request? The outer frame alone is looked at; signers check the rest.
fn certificate_request(encoded: &str) -> Result<(), String> {
    let not_pem = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let begin = "-----BEGIN CERTIFICATE REQUEST-----";
    let body = text.split_once(begin).ok_or_else(not_pem)?.1;
    let body = body
        .split_once("-----END CERTIFICATE REQUEST-----")
        .ok_or_else(not_pem)?
        .0;
    let inner: String = body.split_whitespace().collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(inner)
        .map_err(|_| not_pem())?;
    if is_sequence(&der) {
        Ok(())
    } else {
        Err("asn1: structure error: tags don't match".to_owned())
    }
}

/// One DER sequence that fills the bytes.
fn is_sequence(der: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = der else {
        return false;
    };
    let first = usize::from(*first);
    if first < 0x80 {
        return rest.len() == first;
    }
    let digits = first - 0x80;
    rest.len() >= digits && digits <= 4 && {
        let length = rest[..digits]
            .iter()
            .fold(0_usize, |length, b| (length << 8) | usize::from(*b));
        rest.len() - digits == length
    }
}

/// `DOMAIN/NAME`
pub fn signer_name(out: &mut Causes, name: &str, at: &Path<'_>) {
    if name.is_empty() {
        return at.required(out, "");
    }
    let segments: Vec<&str> = name.split('/').collect();
    let &[domain, path] = segments.as_slice() else {
        return at.invalid_text(
            out,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
    };
    if domain.len() > MAX_DOMAIN {
        out.push(Cause::too_long(at.to_string(), MAX_DOMAIN));
    }
    labels(out, domain, dns_label, at);
    if !domain.contains('.') {
        at.invalid_text(
            out,
            domain,
            "should be a domain with at least two segments separated by dots",
        );
    }
    labels(out, path, dns_subdomain, at);
    if name.len() > MAX_SIGNER_NAME {
        out.push(Cause::too_long(at.to_string(), MAX_SIGNER_NAME));
    }
}

/// The first bad label of a dotted name.
fn labels(out: &mut Causes, whole: &str, check: fn(&str) -> Vec<String>, at: &Path<'_>) {
    let mut checked = whole.split('.').map(|label| (label, check(label)));
    if let Some((label, errors)) = checked.find(|(_, errors)| !errors.is_empty()) {
        for why in errors {
            at.invalid_text(out, whole, &format!("validating label {label:?}: {why}"));
        }
    }
}

fn status(out: &mut Causes, new: &Value, old: Option<&Value>) {
    let at = Path::new("status");
    let list_at = at.field("conditions");
    if old.is_some_and(|old| old["status"].get("conditions") == new["status"].get("conditions")) {
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in items(&new["status"], "conditions") {
        let at = list_at.index(i);
        let kind = text(condition, "type");
        if kind.is_empty() {
            at.field("type").required(out, "");
        }
        let allowed: &[&str] = if matches!(kind, "Approved" | "Denied" | "Failed") {
            &["True"]
        } else {
            &["False", "True", "Unknown"]
        };
        match text(condition, "status") {
            "" => at.field("status").required(out, ""),
            value => {
                at.field("status").one_of(out, value, allowed);
            }
        }
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !other.is_empty() && seen.contains(&other) {
            at.field("type").invalid_text(
                out,
                kind,
                "Approved and Denied conditions are mutually exclusive",
            );
        }
        if seen.contains(&kind) {
            at.field("type").duplicate(out, kind);
        }
        seen.push(kind);
    }
}

fn removed_conditions(out: &mut Causes, new: &Value, old: &Value) {
    let at = Path::new("status");
    for kind in ["Approved", "Denied", "Failed"] {
        let count = |object: &Value| {
            list(&object["status"], "conditions")
                .iter()
                .filter(|c| text(c, "type") == kind)
                .count()
        };
        if count(new) < count(old) {
            at.field("conditions").forbidden(
                out,
                &format!("updates may not remove a condition of type {kind:?}"),
            );
        }
    }
    let certificate = |object: &Value| some(&object["status"], "certificate").cloned();
    if certificate(old).is_some() && certificate(new) != certificate(old) {
        at.field("certificate")
            .forbidden(out, "updates may not modify existing certificate content");
    }
}

//! Projected volumes: files of several sources in one folder.

use std::collections::HashSet;

use oarlock_model::Cause;
use serde_json::{Value, json};

use super::metadata::label_selector;
use super::names::dns_subdomain;
use super::path::{Causes, Path, items, list, some, text};
use super::volume::{downward_file, key_to_path, need, non_reserved_path};

pub fn projected(out: &mut Causes, source: &Value, at: &Path<'_>) {
    let list_at = at.field("sources");
    let mut paths = HashSet::new();
    let mut conflict = |out: &mut Causes, path: &str, shown: &str| {
        if !paths.insert(path.to_owned()) {
            at.invalid_text(out, shown, "conflicting duplicate paths");
        }
    };
    for (i, one) in items(source, "sources") {
        let source_at = list_at.index(i);
        let mut count = 0;
        for kind in [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ] {
            let Some(projection) = some(one, kind) else {
                continue;
            };
            count += 1;
            let kind_at = source_at.field(kind);
            match kind {
                "secret" | "configMap" => {
                    need(out, projection, &["name"], &kind_at);
                    let list_at = kind_at.field("items");
                    for (j, item) in items(projection, "items") {
                        key_to_path(out, item, &list_at.index(j));
                        let path = text(item, "path");
                        if !path.is_empty() {
                            conflict(out, path, text(projection, "name"));
                        }
                    }
                }
                "downwardAPI" => {
                    for item in list(projection, "items") {
                        downward_file(out, item, &kind_at);
                        let path = text(item, "path");
                        if !path.is_empty() {
                            conflict(out, path, path);
                        }
                    }
                }
                "serviceAccountToken" => token(out, projection, &kind_at, at),
                "clusterTrustBundle" => {
                    trust_bundle(out, projection, &kind_at);
                    let path = text(projection, "path");
                    conflict(out, path, path);
                }
                _ => {
                    pod_certificate(out, projection, &kind_at);
                    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                        let path = text(projection, field);
                        if !path.is_empty() {
                            conflict(out, path, path);
                        }
                    }
                }
            }
        }
        if count > 1 {
            source_at.forbidden(out, "may not specify more than 1 volume type per source");
        }
    }
}

/// Ten minutes.
const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;

fn token(out: &mut Causes, projection: &Value, at: &Path<'_>, volume_at: &Path<'_>) {
    let seconds = projection.get("expirationSeconds").and_then(Value::as_i64);
    let seconds = seconds.unwrap_or(3600);
    let seconds_at = at.field("expirationSeconds");
    if seconds < MIN_TOKEN_SECONDS {
        let detail = "may not specify a duration less than 10 minutes";
        seconds_at.invalid(out, &json!(seconds), detail);
    } else if seconds > MAX_TOKEN_SECONDS {
        let detail = "may not specify a duration larger than 2^32 seconds";
        seconds_at.invalid(out, &json!(seconds), detail);
    }
    // Upstream tells the path of the volume's source here.
    let path = text(projection, "path");
    if path.is_empty() {
        volume_at.field("path").required(out, "");
    } else {
        non_reserved_path(out, path, &volume_at.field("path"));
    }
}

fn trust_bundle(out: &mut Causes, bundle: &Value, at: &Path<'_>) {
    let of = |field: &str| some(bundle, field).and_then(Value::as_str);
    match (of("name"), of("signerName")) {
        (Some(_), Some(_)) => {
            let message = format!(
                "Invalid value: {}: only one of name and signerName may be used",
                super::face::show("ClusterTrustBundleProjection", bundle)
            );
            out.push(Cause::new("FieldValueInvalid", at.to_string(), message));
        }
        (Some(name), None) => {
            if name.is_empty() {
                at.field("name")
                    .required(out, "must be a valid object name");
            }
            let plain = name.rsplit(':').next().unwrap_or(name);
            for error in dns_subdomain(plain) {
                let detail = format!("not a valid clustertrustbundlename: {error}");
                at.field("name").invalid_text(out, name, &detail);
            }
            if let Some(selector) = some(bundle, "labelSelector") {
                let detail = "labelSelector must be unset if name is specified";
                at.field("labelSelector").invalid(out, selector, detail);
            }
        }
        (None, Some(signer)) => {
            let signer_at = at.field("signerName");
            if signer.is_empty() {
                signer_at.required(out, "must be a valid signer name");
            }
            signer_name(out, signer, &signer_at);
            label_selector(out, bundle.get("labelSelector"), &at.field("labelSelector"));
        }
        (None, None) => at.required(out, "either name or signerName must be specified"),
    }
    need(out, bundle, &["path"], at);
    non_reserved_path(out, text(bundle, "path"), &at.field("path"));
}

/// `DOMAIN/PATH`
fn signer_name(out: &mut Causes, name: &str, at: &Path<'_>) {
    if name.is_empty() {
        at.required(out, "");
        return;
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, p)| !p.contains('/')) else {
        let detail =
            "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        at.invalid_text(out, name, detail);
        return;
    };
    for error in dns_subdomain(domain) {
        let detail = format!("validating label \"{domain}\": {error}");
        at.invalid_text(out, domain, &detail);
    }
    if path.is_empty() {
        let detail =
            "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        at.invalid_text(out, name, detail);
    } else {
        at.all_invalid(out, path, dns_subdomain(path));
    }
}

const KEY_TYPES: [&str; 6] = [
    "ECDSAP256",
    "ECDSAP384",
    "ECDSAP521",
    "ED25519",
    "RSA3072",
    "RSA4096",
];
const HOUR_SECONDS: i64 = 3600;

fn pod_certificate(out: &mut Causes, source: &Value, at: &Path<'_>) {
    signer_name(out, text(source, "signerName"), &at.field("signerName"));
    match text(source, "keyType") {
        "" => at.field("keyType").required(out, "must be specified"),
        kind => {
            at.field("keyType").one_of(out, kind, &KEY_TYPES);
        }
    }
    if let Some(seconds) = some(source, "maxExpirationSeconds") {
        let number = seconds.as_i64().unwrap_or(0);
        let at = at.field("maxExpirationSeconds");
        if number < HOUR_SECONDS {
            at.invalid(
                out,
                seconds,
                "if provided, maxExpirationSeconds must be >= 3600",
            );
        } else if number > 91 * 24 * HOUR_SECONDS {
            at.invalid(
                out,
                seconds,
                "if provided, maxExpirationSeconds must be <= 7862400",
            );
        }
    }
    let paths = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    let mut named = 0;
    for field in paths {
        let path = text(source, field);
        if !path.is_empty() {
            named += 1;
            non_reserved_path(out, path, &at.field(field));
        }
    }
    if named == 0 {
        at.required(
            out,
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
        );
    }
}

//! `spec.conversion`. Upstream's older form has what is in `webhook` one level up, and messages speak of it there.

use oarlock_model::Cause;
use serde_json::{Value, json};

use super::one_of;
use crate::rules::names::{dns_subdomain, dns1035_label};
use crate::rules::path::{Causes, list, some, text};

const AT: &str = "spec.conversion";
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

pub fn check(out: &mut Causes, spec: &Value) {
    let Some(conversion) = some(spec, "conversion") else {
        return;
    };
    let strategy = text(conversion, "strategy");
    one_of(
        out,
        &format!("{AT}.strategy"),
        strategy,
        &["None", "Webhook"],
    );
    let webhook = conversion.get("webhook").unwrap_or(&Value::Null);
    let client = some(webhook, "clientConfig");
    let versions = list(webhook, "conversionReviewVersions");
    let config = format!("{AT}.webhookClientConfig");
    if strategy != "Webhook" {
        if client.is_some() {
            out.push(Cause::forbidden(
                &config,
                "should not be set when strategy is not set to Webhook",
            ));
        }
        if !versions.is_empty() {
            let field = format!("{AT}.conversionReviewVersions");
            out.push(Cause::forbidden(
                field,
                "should not be set when strategy is not set to Webhook",
            ));
        }
        return;
    }
    match client {
        None => out.push(Cause::required(
            config,
            "required when strategy is set to Webhook",
        )),
        Some(client) => match (
            client.get("url").and_then(Value::as_str),
            some(client, "service"),
        ) {
            (None, None) | (Some(_), Some(_)) => {
                out.push(Cause::required(
                    config,
                    "exactly one of url or service is required",
                ));
            }
            (Some(url), None) => url_faults(out, url, &format!("{config}.url")),
            (None, Some(service)) => service_faults(out, service, &format!("{config}.service")),
        },
    }
    review_versions(out, versions);
}

fn url_faults(out: &mut Causes, url: &str, at: &str) {
    let form = "; desired format: https://host[/path]";
    let mut tell = |value: &str, why: String| out.push(Cause::invalid(at, &json!(value), &why));
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        tell(
            scheme,
            format!("'https' is the only allowed URL scheme{form}"),
        );
    }
    let (before_fragment, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (before_query, query) = before_fragment
        .split_once('?')
        .unwrap_or((before_fragment, ""));
    let authority = before_query.split('/').next().unwrap_or_default();
    if authority.is_empty() || scheme.is_empty() {
        tell("", format!("host must be specified{form}"));
    }
    if let Some((user, _)) = authority.rsplit_once('@') {
        tell(
            user,
            "user information is not permitted in the URL".to_owned(),
        );
    }
    if !fragment.is_empty() {
        tell(
            fragment,
            "fragments are not permitted in the URL".to_owned(),
        );
    }
    if !query.is_empty() {
        tell(
            query,
            "query parameters are not permitted in the URL".to_owned(),
        );
    }
}

fn service_faults(out: &mut Causes, service: &Value, at: &str) {
    for field in ["name", "namespace"] {
        if text(service, field).is_empty() {
            out.push(Cause::required(
                format!("{at}.{field}"),
                &format!("service {field} is required"),
            ));
        }
    }
    if let Some(port) = service.get("port").and_then(Value::as_i64)
        && !(1..=65535).contains(&port)
    {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        out.push(Cause::invalid(format!("{at}.port"), &json!(port), why));
    }
    let Some(path) = service.get("path").and_then(Value::as_str) else {
        return;
    };
    let field = format!("{at}.path");
    let mut tell = |why: String| out.push(Cause::invalid(&field, &json!(path), &why));
    if path.is_empty() || path == "/" {
        return;
    }
    if path == "//" {
        tell("segment[0] may not be empty".to_owned());
        return;
    }
    if !path.starts_with('/') {
        tell("must start with a '/'".to_owned());
    }
    let steps: Vec<&str> = path
        .trim_start_matches('/')
        .trim_end_matches('/')
        .split('/')
        .collect();
    for (i, step) in steps.iter().enumerate() {
        if step.is_empty() {
            tell(format!("segment[{i}] may not be empty"));
            continue;
        }
        for fault in dns_subdomain(step) {
            tell(format!("segment[{i}]: {fault}"));
        }
    }
}

fn review_versions(out: &mut Causes, versions: &[Value]) {
    let at = format!("{AT}.conversionReviewVersions");
    if versions.is_empty() {
        out.push(Cause::required(at, ""));
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let name = version.as_str().unwrap_or_default();
        let field = format!("{at}[{i}]");
        if seen.contains(&name) {
            out.push(Cause::invalid(field, version, "duplicate version"));
            continue;
        }
        seen.push(name);
        for fault in dns1035_label(name) {
            out.push(Cause::invalid(&field, version, &fault));
        }
    }
    if !seen.iter().any(|v| REVIEWS.contains(v)) {
        let why = format!("must include at least one of {}", REVIEWS.join(", "));
        out.push(Cause::invalid(at, &Value::Array(versions.to_vec()), &why));
    }
}

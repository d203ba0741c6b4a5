//! What is done to a container to see how it is, or when it starts and stops.

use serde_json::Value;

use super::names::port_name;
use super::path::{Causes, Path, list, some, text};

const FORBIDDEN: &str = "may not be set for init containers without restartPolicy=Always";

/// A container's hooks and probes; `forbidden` for one that runs to its end before the others start.
pub fn probes(out: &mut Causes, one: &Value, grace: Option<i64>, at: &Path<'_>, forbidden: bool) {
    if let Some(hooks) = some(one, "lifecycle") {
        let at = at.field("lifecycle");
        if forbidden {
            at.forbidden(out, FORBIDDEN);
        } else {
            lifecycle(out, hooks, grace, &at);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(value) = some(one, name) else {
            continue;
        };
        let at = at.field(name);
        if forbidden {
            at.forbidden(out, FORBIDDEN);
        } else {
            probe(out, value, name, &at);
        }
    }
}

fn lifecycle(out: &mut Causes, hooks: &Value, grace: Option<i64>, at: &Path<'_>) {
    for name in ["postStart", "preStop"] {
        if let Some(value) = some(hooks, name) {
            handler(out, value, grace, &at.field(name));
        }
    }
}

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

fn handler(out: &mut Causes, value: &Value, grace: Option<i64>, at: &Path<'_>) {
    let mut first = true;
    for kind in HANDLERS {
        let Some(action) = some(value, kind) else {
            continue;
        };
        let at = at.field(kind);
        if !std::mem::take(&mut first) {
            at.forbidden(out, "may not specify more than 1 handler type");
            continue;
        }
        match kind {
            "exec" if list(action, "command").is_empty() => {
                at.field("command").required(out, "");
            }
            "httpGet" => {
                if text(action, "path").is_empty() {
                    at.field("path").required(out, "");
                }
                port_or_name(out, action.get("port"), &at.field("port"));
                at.field("scheme")
                    .one_of(out, text(action, "scheme"), &["HTTP", "HTTPS"]);
                for header in list(action, "httpHeaders") {
                    let name = text(header, "name");
                    if name.is_empty()
                        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                    {
                        let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                        at.field("httpHeaders").invalid_text(out, name, detail);
                    }
                }
            }
            "tcpSocket" => port_or_name(out, action.get("port"), &at.field("port")),
            "grpc" => {
                let port = action.get("port").cloned().unwrap_or(Value::from(0));
                at.field("port").between(out, Some(&port), 1, 65535);
            }
            "sleep" => {
                let seconds = action.get("seconds").and_then(Value::as_i64).unwrap_or(0);
                if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                    let detail = format!(
                        "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                    );
                    at.invalid(out, &Value::from(seconds), &detail);
                }
            }
            _ => {}
        }
    }
    if first {
        at.required(out, "must specify a handler type");
    }
}

/// A port's number or name.
pub fn port_or_name(out: &mut Causes, port: Option<&Value>, at: &Path<'_>) {
    match port {
        Some(Value::String(name)) => at.all_invalid(out, name, port_name(name)),
        Some(number) => at.between(out, Some(number), 1, 65535),
        None => {}
    }
}

fn probe(out: &mut Causes, value: &Value, kind: &str, at: &Path<'_>) {
    handler(out, value, None, at);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        at.field(field).not_negative(out, value.get(field));
    }
    let grace = some(value, "terminationGracePeriodSeconds");
    let grace_at = at.field("terminationGracePeriodSeconds");
    if let Some(seconds) = grace.filter(|s| s.as_i64().is_some_and(|s| s <= 0)) {
        grace_at.invalid(out, seconds, "must be greater than 0");
    }
    if kind == "readinessProbe" {
        if let Some(seconds) = grace {
            grace_at.invalid(out, seconds, "must not be set for readinessProbes");
        }
    } else if value
        .get("successThreshold")
        .and_then(Value::as_i64)
        .is_some_and(|n| n != 1)
    {
        at.field("successThreshold")
            .invalid(out, &value["successThreshold"], "must be 1");
    }
}

//! API services: which server answers for a group and version.

use base64::Engine as _;
use oarlock_model::meta;
use serde_json::Value;

use super::metadata::{meta_of, object_meta};
use super::names::{dns_subdomain, dns1035_label, path_segment};
use super::path::{Causes, Path, flag, items, some, text};

const GROUP: &str = "apiregistration.k8s.io";

pub fn api_service(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    if old.is_some() {
        meta_of(out, new, old, GROUP, "APIService");
    }
    object_meta(out, new, GROUP, "APIService");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let (name, wanted) = (meta::name(new), format!("{version}.{group}"));
    if !name.is_empty() && path_segment(name).is_empty() && name != wanted {
        let at = Path::new("metadata");
        at.field("name").invalid_text(
            out,
            name,
            &format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"),
        );
    }
    if group.is_empty() && version != "v1" {
        at.field("group").required(
            out,
            "only v1 may have an empty group and it better be legacy kube",
        );
    }
    if !group.is_empty() {
        at.field("group")
            .all_invalid(out, group, dns_subdomain(group));
    }
    at.field("version")
        .all_invalid(out, version, dns1035_label(version));
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.get(field).and_then(Value::as_i64).unwrap_or(0);
        if !(1..=most).contains(&priority) {
            at.field(field).invalid(
                out,
                &Value::from(priority),
                &format!("must be positive and less than {most}"),
            );
        }
    }
    address(out, spec, &at);
    let status_at = Path::new("status");
    let list_at = status_at.field("conditions");
    for (i, condition) in items(&new["status"], "conditions") {
        list_at.index(i).field("status").one_of(
            out,
            text(condition, "status"),
            &["True", "False", "Unknown"],
        );
    }
    std::mem::take(out)
}

fn address(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let bundle = text(spec, "caBundle");
    let insecure = flag(spec, "insecureSkipTLSVerify");
    let insecure_at = at.field("insecureSkipTLSVerify");
    let Some(service) = some(spec, "service") else {
        if !bundle.is_empty() {
            let size = base64::engine::general_purpose::STANDARD
                .decode(bundle)
                .map_or(0, |b| b.len());
            at.field("caBundle").invalid_text(
                out,
                &format!("{size} bytes"),
                "local APIServices may not have a caBundle",
            );
        }
        if insecure {
            insecure_at.invalid(
                out,
                &Value::Bool(true),
                "local APIServices may not have insecureSkipTLSVerify",
            );
        }
        return;
    };
    let service_at = at.field("service");
    for field in ["namespace", "name"] {
        if text(service, field).is_empty() {
            service_at.field(field).required(out, "");
        }
    }
    let port = service.get("port").and_then(Value::as_i64);
    if let Some(port) = port.filter(|p| !(1..=65535).contains(p)) {
        service_at.field("port").invalid(
            out,
            &Value::from(port),
            "port is not valid: must be between 1 and 65535, inclusive",
        );
    }
    if insecure && !bundle.is_empty() {
        insecure_at.invalid(
            out,
            &Value::Bool(true),
            "may not be true if caBundle is present",
        );
    }
}

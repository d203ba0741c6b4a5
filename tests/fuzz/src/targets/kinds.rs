//! Objects of every built-in kind through the rules of their kind, as a write takes them.

use std::sync::Arc;

use oarlock_kinds::{Row, ephemeral_update, finalize_update, resize_update, service_addresses};
use oarlock_model::meta;
use oarlock_schema::{apply_defaults, canonicalize, decode_value};
use serde_json::{Value, json};

use super::{both, builtin, json_bytes, now, outline, said, same, tree};
use crate::random::Random;
use crate::{Target, Verdict, grow};

pub const TARGETS: &[Target] = &[Target {
    name: "kinds",
    tree: true,
    seeds,
    hostile: |_| Vec::new(),
    words: &[
        "name",
        "a",
        "web",
        "kube-system",
        "a.b/c",
        "*",
        "Always",
        "Never",
        "TCP",
        "10.0.0.1",
        "10.0.0.0/8",
        "fd00::1",
        "fd00::/8",
        "1Gi",
        "100m",
        "-1",
        "50%",
        "101%",
        "0 0 * * *",
        "@every 1h",
        "TZ=Europe/Berlin * * * * *",
        "*/0 * * * *",
        "CRON_TZ=x 1 1 1 1 1",
        "60 24 32 13 8",
        "1-5/2,7 * * * *",
        "Europe/Berlin",
        "../x",
        "/a/../b",
        "$(A)",
        "$$",
        "https://a.example:443/b?c#d",
        "http://[::1",
        "a=b",
        "cpu",
        "memory",
        "hugepages-2Mi",
        "requests.cpu",
        "example.com/gpu",
        "count/pods",
        "pods",
        "kubernetes.io/hostname",
        "In",
        "Exists",
        "object.a == 1",
        "r'\\'+1",
        "None",
        "ExternalName",
        "NodePort",
        "Indexed",
        "0-3,5",
        "3-1",
        "0-99999999",
        "-----BEGIN CERTIFICATE-----",
        "aGk=",
        "v1",
        "\u{0}",
    ],
    grow: Some(grow_object),
    run,
}];

fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random::new(3);
    let mut all = Vec::new();
    for row in builtin().rows() {
        for _ in 0..4 {
            let mut object = grow::value(&mut random, &row.schema, 0);
            object["apiVersion"] = json!(row.api_version());
            object["kind"] = json!(row.kind);
            if !object["metadata"].is_object() {
                object["metadata"] = json!({});
            }
            object["metadata"]["name"] = json!("web");
            all.push(json!([object, object]));
        }
    }
    all.extend(recorded());
    json_bytes(&all)
}

/// Objects that kube-apiserver stored, if FUZZ_ORACLE names a folder with recordings of it.
fn recorded() -> Vec<Value> {
    let Some(folder) = std::env::var_os("FUZZ_ORACLE") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|f| f.path())
        .collect();
    files.sort();
    for path in files
        .iter()
        .filter(|p| p.to_string_lossy().ends_with(".jsonl.gz"))
    {
        let mut text = String::new();
        let Ok(file) = std::fs::File::open(path) else {
            continue;
        };
        if std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text)
            .is_err()
        {
            continue;
        }
        for step in text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        {
            for body in [&step["request"]["body"], &step["response"]["body"]] {
                if row_of(body).is_some() {
                    let filled = body
                        .to_string()
                        .replace("\"$time\"", "\"2026-01-02T03:04:05Z\"");
                    let body: Value = serde_json::from_str(&filled).unwrap_or_default();
                    found.push(json!([body, body]));
                }
            }
        }
    }
    found
}

fn row_of(object: &Value) -> Option<&'static Arc<Row>> {
    let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let mut rows = builtin().rows().iter();
    rows.find(|row| row.kind == kind && row.api_version() == version)
}

fn grow_object(random: &mut Random, input: &mut Value) {
    let half = random.below(2);
    if let Some(row) = row_of(&input[0])
        && let Some(object) = input.get_mut(half)
    {
        grow::field(random, &row.schema, object);
    }
}

/// A body, decoded and with its defaults.
fn read(row: &Row, body: &Value) -> Result<Result<Value, String>, String> {
    let mut object = match decode_value(&row.schema, body) {
        Ok(decoded) => decoded.value,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if !object.is_object() {
        return Ok(Err("no object".to_owned()));
    }
    meta::set_type(&mut object, row.api_version(), row.kind.as_str());
    let default = |object: &mut Value| {
        apply_defaults(&row.schema, object);
        (row.hooks.default)(object);
    };
    default(&mut object);
    let mut twice = object.clone();
    default(&mut twice);
    same(
        &format!("defaults of {} twice are defaults once", row.kind),
        &twice,
        &object,
    )?;
    Ok(Ok(object))
}

fn finish(row: &Row, object: &mut Value) -> Result<(), String> {
    canonicalize(&row.schema, object);
    let mut twice = object.clone();
    canonicalize(&row.schema, &mut twice);
    same(
        &format!("the canonical form of {} is its own", row.kind),
        &twice,
        object,
    )
}

fn run(input: &[u8]) -> Verdict {
    let Some(Value::Array(parts)) = tree(input) else {
        return Ok(0);
    };
    let [new, old] = parts.as_slice() else {
        return Ok(1);
    };
    let Some(row) = row_of(new) else {
        return Ok(2);
    };
    let mut out = said(&row.kind);
    let mut object = match read(row, new)? {
        Ok(object) => object,
        Err(why) => return Ok(both(out, said(&why))),
    };
    for (field, value) in [("uid", "u"), ("creationTimestamp", "2026-01-02T03:04:05Z")] {
        meta::set(&mut object, field, value);
    }
    if row.namespaced && meta::namespace(&object).is_empty() {
        meta::set(&mut object, "namespace", "default");
    }
    if row.status_subresource && row.kind != "Node" {
        meta::as_map_mut(&mut object).remove("status");
    }
    (row.hooks.prepare_create)(&mut object);
    finish(row, &mut object)?;
    let causes = (row.hooks.validate)(&object, None);
    for cause in causes.iter().take(6) {
        out = both(out, said(&cause.message));
        out = both(out, said(&cause.field));
    }
    out = both(
        out,
        (row.hooks.warn)(&object, None)
            .first()
            .map_or(0, |w| said(w)),
    );
    out = both(out, (row.columns.cells)(&object, now()).len() as u64);
    let mut settled = object.clone();
    (row.hooks.settle)(&mut settled);
    let mut shown = settled.clone();
    row.store(&mut shown);
    row.show(&mut shown);
    out = both(out, outline(&shown));
    for field in &row.selectable_fields {
        out = both(out, Row::selectable_value(&object, field).len() as u64);
    }
    if row.kind == "Service" {
        out = both(out, service_addresses(&object["spec"]).len() as u64);
    }
    meta::set(&mut settled, "resourceVersion", "1");
    if causes.is_empty() {
        let mut again = settled.clone();
        (row.hooks.prepare_update)(&mut again, &settled);
        finish(row, &mut again)?;
        if let Some(cause) = (row.hooks.validate)(&again, Some(&settled)).first() {
            return Err(format!(
                "a valid {} may be put as it is: {}: {}",
                row.kind, cause.field, cause.message
            ));
        }
    }
    let Ok(mut before) = read(row, old)? else {
        return Ok(out);
    };
    for (field, value) in [
        ("uid", "u"),
        ("creationTimestamp", "2026-01-02T03:04:05Z"),
        ("resourceVersion", "1"),
        ("namespace", "default"),
    ] {
        if field != "namespace" || row.namespaced {
            meta::set(&mut before, field, value);
        }
    }
    let mut after = settled;
    (row.hooks.prepare_update)(&mut after, &before);
    finish(row, &mut after)?;
    for cause in (row.hooks.validate)(&after, Some(&before)).iter().take(6) {
        out = both(out, said(&cause.message));
        out = both(out, said(&cause.field));
    }
    out = both(
        out,
        (row.hooks.warn)(&after, Some(&before))
            .first()
            .map_or(0, |w| said(w)),
    );
    if let Some(changed) = row.hooks.generation_changed {
        out = both(out, changed(&after, &before).into());
    }
    out = both(out, (row.hooks.grace_seconds)(&after).is_some().into());
    match row.kind.as_str() {
        "Pod" => {
            out = both(out, ephemeral_update(&after, &before).len() as u64);
            out = both(out, resize_update(&after, &before).len() as u64);
        }
        "Namespace" => out = both(out, finalize_update(&after, &before).len() as u64),
        _ => {}
    }
    Ok(out)
}

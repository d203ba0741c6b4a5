//! Paths outside the resources: discovery, OpenAPI, version, health, metrics.

use std::collections::BTreeMap;

use http::Method;
use http::request::Parts;
use serde_json::{Value, json};

use crate::discovery::{Document, api_versions};
use crate::failure::Failure;
use crate::handler::{Api, Call};
use crate::negotiate::{self, Format};
use crate::outgoing::Outgoing;
use crate::query::Query;
use crate::respond::{self, Answer};

/// The Kubernetes version whose API this is.
const MINOR: &str = "37";
const GIT_VERSION: &str = concat!("v1.37.0+oarlock", ".", env!("CARGO_PKG_VERSION"));
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What answers without a login: health and version.
pub(crate) fn open_to_all(
    api: &Api,
    parts: &Parts,
    path: &str,
    query: &Query<'_>,
) -> Option<Answer> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if trimmed == "/version" {
        let format = negotiate::format_of_error(&parts.headers);
        return Some(respond::value(
            200,
            &version(),
            format,
            query.pretty().unwrap_or(true),
        ));
    }
    let (code, text) = api.health.answer(trimmed, query)?;
    Some(respond::text(code, text))
}

fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-11-23T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_architecture()),
        "emulationMajor": "1", "emulationMinor": MINOR,
    })
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) async fn answer(call: &Call<'_>) -> Result<Answer, Failure> {
    let path = call.path.strip_suffix('/').unwrap_or(call.path);
    let get = matches!(*call.method, Method::GET);
    if path == "/api" || path == "/apis" {
        return if get {
            roots(call, path == "/api")
        } else {
            Err(Failure::method_not_allowed())
        };
    }
    if let Some(version) = path.strip_prefix("/api/") {
        return group_version(call, version, get);
    }
    if let Some(rest) = path.strip_prefix("/apis/") {
        if rest.contains('/') {
            return group_version(call, rest, get);
        }
        // Upstream's handler of a group looks at no method.
        let discovery = call.discovery();
        let document = discovery.group(rest).ok_or(Failure::page_not_found())?;
        return documented(call, document);
    }
    if !get {
        return Err(Failure::page_not_found());
    }
    let address = call.api.address.to_string();
    let accounts = call.api.access.accounts.as_ref();
    if let Some((kind, document)) = accounts.and_then(|a| a.document(path, &address)) {
        let text = document.to_string();
        return Ok(respond::answer(200, kind, Outgoing::whole(text)));
    }
    match path {
        "/metrics" => Ok(metrics(call)),
        "" => Ok(respond::value(
            200,
            &json!({"paths": paths(call)}),
            Format::Json,
            true,
        )),
        "/openapi/v3" if !call.api.aggregator.group_versions().is_empty() => {
            let mut index = oarlock_kinds::openapi::v3_index(call.served.kinds());
            for of in call.api.aggregator.group_versions() {
                let url = format!("/openapi/v3/apis/{of}");
                index["paths"][format!("apis/{of}")] = json!({"serverRelativeURL": url});
            }
            Ok(respond::value(200, &index, Format::Json, false))
        }
        _ if path.starts_with("/openapi/") => call
            .api
            .openapi
            .answer(call, path)
            .ok_or(Failure::page_not_found()),
        _ => Err(Failure::page_not_found()),
    }
}

fn roots(call: &Call<'_>, core: bool) -> Result<Answer, Failure> {
    if let Some(form) = negotiate::aggregated_discovery(call.headers)
        && let Some(document) = call.discovery().aggregated(core, form)
    {
        let content_type = match form {
            "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        };
        let answer = respond::tagged(
            content_type,
            document.json.clone(),
            &document.etag,
            call.headers,
        );
        return Ok(respond::compressed(answer, call.headers));
    }
    if core {
        let wanted = negotiate::response(call.headers, false, false, call.api.cbor)?;
        let value = api_versions(&call.api.address.to_string());
        return Ok(respond::value(200, &value, wanted.format, wanted.pretty));
    }
    documented(call, &call.discovery().groups)
}

fn group_version(call: &Call<'_>, group_version: &str, get: bool) -> Result<Answer, Failure> {
    let group = group_version.split_once('/').map_or("", |(group, _)| group);
    let discovery = call.discovery();
    let document = discovery.version(group_version).ok_or_else(|| {
        if call.served.has_group(group) {
            Failure::no_resource()
        } else {
            Failure::page_not_found()
        }
    })?;
    if get {
        documented(call, document)
    } else {
        Err(Failure::method_not_allowed())
    }
}

fn documented(call: &Call<'_>, document: &Document) -> Result<Answer, Failure> {
    let wanted = negotiate::response(call.headers, false, false, call.api.cbor)?;
    let pretty = call.query.pretty().unwrap_or(wanted.pretty);
    if wanted.format == Format::Json && !pretty {
        return Ok(respond::answer(
            200,
            Format::Json.content_type(),
            Outgoing::whole(document.json.clone()),
        ));
    }
    Ok(respond::json(
        200,
        document.json.to_vec(),
        wanted.format,
        pretty,
    ))
}

fn metrics(call: &Call<'_>) -> Answer {
    let store = call.api.registry.store();
    let mut objects: BTreeMap<String, usize> = BTreeMap::new();
    for row in call.served.kinds().rows().iter().filter(|row| row.stored) {
        objects
            .entry(row.storage_prefix.clone())
            .or_insert_with(|| store.count(&format!("{}/", row.storage_prefix)));
    }
    let objects: Vec<(String, usize)> = objects.into_iter().collect();
    let mut text = call.api.metrics.render(store.revision(), &objects);
    text.push_str(&call.api.registry.metrics());
    call.api.more_metrics.render(&mut text);
    respond::answer(200, METRICS_TYPE, Outgoing::whole(text))
}

fn paths(call: &Call<'_>) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for gv in call.served.kinds().group_versions() {
        if gv.group.is_empty() {
            paths.push(format!("/api/{}", gv.version));
        } else {
            paths.push(format!("/apis/{}", gv.group));
            paths.push(format!("/apis/{gv}"));
        }
    }
    for path in [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    paths.sort();
    paths.dedup();
    paths
}

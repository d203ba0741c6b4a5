//! The verbs on resources: from a path and a body to a call of the registry, and from what it says to an answer.

use std::sync::Arc;

use hyper::body::Incoming;
use oarlock_kinds::{Row, protobuf};
use oarlock_model::selector::FieldRequirement;
use oarlock_model::{ApiError, Reason};
use oarlock_registry::{Body, Context, Deleted, List, PatchKind, Stored, Target};
use serde_json::{Value, json};

use crate::audit::Audited;
use crate::body;
use crate::encode::{Framer, IncludeObject, ItemForm, metadata_text, scale_columns};
use crate::failure::Failure;
use crate::handler::Call;
use crate::metrics::{Gauge, Key};
use crate::negotiate::{self, Format, PatchType, Shape, Wanted};
use crate::outgoing::{GZIP_FROM_BYTES, ListBody, Outgoing};
use crate::query::{PatchForm, WriteOptions};
use crate::respond::{self, Answer};
use crate::route::{ResourcePath, Verb, name_problem};
use crate::timetravel::{self, Got};
use crate::{cbor, connect, reviews, watching};

/// Kinds whose delete answers the object that is gone, where others answer a Status.
const ANSWER_DELETED_OBJECT: [&str; 16] = [
    "csidrivers.storage.k8s.io",
    "csinodes.storage.k8s.io",
    "deviceclasses.resource.k8s.io",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourceclaims.resource.k8s.io",
    "resourceclaimtemplates.resource.k8s.io",
    "resourcequotas",
    "resourceslices.resource.k8s.io",
    "serviceaccounts",
    "services",
    "storageclasses.storage.k8s.io",
    "volumeattachments.storage.k8s.io",
    "volumeattributesclasses.storage.k8s.io",
];

/// The kind and the place that a path names, once it is known to be served and to have this verb.
fn resolve<'a>(
    call: &'a Call<'_>,
    at: ResourcePath<'_>,
    verb: Verb,
) -> Result<&'a Arc<Row>, Failure> {
    let Some(kind) = call.served.kind(at.group_version, at.resource) else {
        return Err(if call.served.has_group(at.group) {
            Failure::no_resource()
        } else {
            Failure::page_not_found()
        });
    };
    let row = &kind.row;
    if row.custom.is_some() {
        return resolve_custom(call, row, at, verb);
    }
    let is_namespace = row.group.is_empty() && row.resource == "namespaces";
    if row.namespaced && at.namespace.is_empty() {
        if !at.name.is_empty() {
            return Err(Failure::no_resource());
        }
        let reads = matches!(verb, Verb::List | Verb::Watch);
        let allowed = reads && *call.method == http::Method::GET && row.has_verb(verb.as_str());
        return if allowed {
            Ok(row)
        } else {
            Err(Failure::method_not_allowed())
        };
    }
    if !row.namespaced && !at.namespace.is_empty() && !is_namespace {
        return Err(Failure::no_resource());
    }
    if *call.method == http::Method::HEAD {
        return Err(Failure::method_not_allowed());
    }
    if !at.subresource.is_empty() {
        let first = at.first_subresource();
        let sub = row.subresource(first).ok_or_else(Failure::no_resource)?;
        if first != "proxy" && at.subresource != first {
            return Err(Failure::no_resource());
        }
        if !sub.verbs.iter().any(|v| v == verb.as_str()) {
            return Err(Failure::method_not_allowed());
        }
        return Ok(row);
    }
    if !at.name.is_empty()
        && !["get", "update", "patch", "delete"]
            .iter()
            .any(|v| row.has_verb(v))
    {
        return Err(Failure::no_resource());
    }
    let misplaced = match verb {
        Verb::Create => !at.name.is_empty(),
        Verb::Update | Verb::Patch => at.name.is_empty(),
        _ => false,
    };
    if misplaced || !row.has_verb(verb.as_str()) {
        return Err(Failure::method_not_allowed());
    }
    Ok(row)
}

/// Upstream serves custom resources by a handler of its own, which refuses in words of its own.
fn resolve_custom<'a>(
    call: &Call<'_>,
    row: &'a Arc<Row>,
    at: ResourcePath<'_>,
    verb: Verb,
) -> Result<&'a Arc<Row>, Failure> {
    let across = matches!(verb, Verb::List | Verb::Watch);
    if row.namespaced == at.namespace.is_empty() && !(row.namespaced && across) {
        return Err(Failure::page_not_found());
    }
    let found = row.subresource(at.subresource);
    if !at.subresource.is_empty() && found.is_none() {
        return Err(ApiError::not_found(&row.group, &row.resource, at.name).into());
    }
    let verbs = match found {
        Some(sub) => &sub.verbs,
        None => &row.verbs,
    };
    // A definition that is on its way out serves what discovery does not show any more.
    let hidden = found.is_none() && matches!(verb, Verb::Create | Verb::Update | Verb::Patch);
    if *call.method == http::Method::HEAD || !(hidden || verbs.iter().any(|v| v == verb.as_str())) {
        let text = format!(
            "{} is not supported on resources of kind {:?}",
            verb.as_str(),
            row.qualified_resource()
        );
        let mut error = ApiError::new(Reason::MethodNotAllowed, text);
        row.group.clone_into(&mut error.group);
        row.resource.clone_into(&mut error.kind);
        return Err(error.into());
    }
    Ok(row)
}

fn target(row: &Arc<Row>, at: ResourcePath<'_>) -> Result<Target, Failure> {
    if let Some(problem) = name_problem(at.name) {
        return Err(Failure::bad_request(problem));
    }
    let namespace = if row.namespaced { at.namespace } else { "" };
    Ok(Target::sub(row, namespace, at.name, at.subresource))
}

/// What the answer is to look like, and whether the parameters for it are right.
fn form(
    call: &Call<'_>,
    row: &Arc<Row>,
    subresource: &str,
    collection: bool,
) -> Result<(Wanted, ItemForm), Failure> {
    let kind = match row.subresource(subresource) {
        Some(sub) => &sub.kind.kind,
        None => &row.kind,
    };
    let binary = row.custom.is_none()
        && (!subresource.is_empty() || protobuf::is_known(&row.api_version(), kind));
    let mut wanted = negotiate::response(call.headers, collection, binary, call.api.cbor)?;
    let include = match wanted.shape {
        Shape::Table(_) => IncludeObject::parse(call.query.get("includeObject"))?,
        _ => IncludeObject::default(),
    };
    wanted.pretty = call
        .query
        .pretty()
        .unwrap_or(wanted.pretty || reads_with_eyes(call));
    Ok((
        wanted,
        ItemForm {
            row: Arc::clone(row),
            shape: wanted.shape,
            include,
            now: call.now,
            columns: (subresource == "scale").then(scale_columns),
        },
    ))
}

/// Browsers and curl get indented JSON, as from upstream.
fn reads_with_eyes(call: &Call<'_>) -> bool {
    let agent = call
        .headers
        .get(http::header::USER_AGENT)
        .map_or(&b""[..], |v| v.as_bytes());
    [&b"curl"[..], b"Wget", b"Mozilla/5.0"]
        .iter()
        .any(|start| agent.starts_with(start))
}

fn agent<'a>(call: &'a Call<'_>) -> &'a str {
    call.headers
        .get(http::header::USER_AGENT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("")
}

fn reading(call: &Call<'_>) -> Context {
    Context {
        trail: call.audited.as_ref().map(|a| Arc::clone(&a.trail)),
        ..Context::new(Arc::clone(&call.user), call.now)
    }
}

/// Records what the request brings.
fn brought(call: &Call<'_>, target: &Target, body: &Body) {
    if let Some(audited) = &call.audited
        && let Some(object) = oarlock_registry::as_recorded(target, body)
    {
        audited.brought(object);
    }
}

fn writing(call: &Call<'_>, options: WriteOptions) -> Context {
    Context {
        field_manager: options.field_manager,
        dry_run: options.dry_run,
        field_validation: options.field_validation,
        ..reading(call)
    }
}

/// Upstream's warnings about kinds that have a successor: `apiVersion`, resource, text.
const DEPRECATED: [(&str, &str, &str); 2] = [
    (
        "v1",
        "componentstatuses",
        "v1 ComponentStatus is deprecated in v1.19+",
    ),
    (
        "v1",
        "endpoints",
        "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ),
];

/// Everything but watches.
pub(crate) async fn answer(
    call: &Call<'_>,
    at: ResourcePath<'_>,
    verb: Verb,
    body: Incoming,
) -> Result<Answer, Failure> {
    let result = carry_out(call, at, verb, body).await;
    let custom = call
        .served
        .kind(at.group_version, at.resource)
        .and_then(|kind| kind.row.custom.as_ref());
    let deprecated = |(version, resource, _): &&(&str, &str, &str)| {
        at.resource == *resource && at.group_version == *version
    };
    let built_in = DEPRECATED.iter().find(deprecated).map(|(_, _, text)| *text);
    let Some(text) = custom.and_then(|c| c.deprecation.as_deref()).or(built_in) else {
        return result;
    };
    if let Some(audited) = &call.audited {
        audited.trail.note("k8s.io/deprecated", "true");
    }
    match result {
        Ok(mut answer) => {
            respond::warn_first(&mut answer, text);
            Ok(answer)
        }
        // What is not routed warns of nothing.
        Err(failure) if failure.code() == 405 => Err(failure),
        Err(failure) => Err(failure.with_first_warning(text)),
    }
}

async fn carry_out(
    call: &Call<'_>,
    at: ResourcePath<'_>,
    verb: Verb,
    body: Incoming,
) -> Result<Answer, Failure> {
    let row = resolve(call, at, verb)?;
    let target = target(row, at)?;
    if connect::handles(at.first_subresource()) {
        return connect::answer(call, &target, at).await;
    }
    let (wanted, form) = form(call, row, at.subresource, verb == Verb::List)?;
    let out = Out { call, wanted, form };
    match verb {
        Verb::Get => {
            let context = reading(call);
            match timetravel::get(call, &target).await? {
                Some(Got::Object(object)) => return out.object(200, &object, &context),
                Some(Got::Diff(diff)) => return Ok(out.value(200, &diff, &context)),
                None => {}
            }
            let version = call.query.get("resourceVersion").unwrap_or("");
            let object = call.api.registry.get(&context, &target, version).await?;
            out.object(200, &object, &context)
        }
        Verb::List => {
            let context = reading(call);
            let list = call
                .api
                .registry
                .list(&context, &target, &timetravel::list_options(call)?)
                .await?;
            out.list(list, &context)
        }
        Verb::Create => create(out, &target, body).await,
        Verb::Update => {
            let format = negotiate::body_format(call.headers, call.api.cbor)?;
            let bytes = body::read(body).await?;
            let context = writing(
                call,
                call.query
                    .write_options("UpdateOptions", None, agent(call))?,
            );
            let object = body::object(bytes, format, body_kind(&target))?;
            brought(call, &target, &object);
            let result = call.api.registry.update(&context, &target, object).await;
            let written = out.warned(result, &context)?;
            out.object(
                if written.created { 201 } else { 200 },
                &written.object,
                &context,
            )
        }
        Verb::Patch => patch(out, &target, body).await,
        Verb::Delete => delete(out, &target, body).await,
        Verb::DeleteCollection => {
            let (options, dry_run) = delete_options(call, body).await?;
            let context = Context {
                dry_run,
                ..reading(call)
            };
            let selection = call.query.list_options()?;
            let list = call
                .api
                .registry
                .delete_collection(&context, &target, &selection, &options)
                .await?;
            out.list(list, &context)
        }
        Verb::Watch | Verb::Other => Err(Failure::method_not_allowed()),
    }
}

pub(crate) async fn watch(
    call: &Call<'_>,
    at: ResourcePath<'_>,
    gauge: Gauge,
) -> Result<Answer, Failure> {
    let row = resolve(
        call,
        ResourcePath {
            name: if at.watch_prefix { "" } else { at.name },
            ..at
        },
        Verb::Watch,
    )?;
    let (wanted, form) = form(call, row, "", true)?;
    let content_type = wanted
        .format
        .stream_type()
        .ok_or_else(Failure::not_a_stream)?;
    let mut options = call.query.watch_options()?;
    if at.watch_prefix && !at.name.is_empty() {
        let field = "metadata.name".to_owned();
        options.fields.requirements.push(FieldRequirement {
            field,
            value: at.name.to_owned(),
            equal: true,
        });
    }
    let lifetime = watching::lifetime(call.query.timeout_seconds()?, call.now);
    let target = target(row, ResourcePath { name: "", ..at })?;
    let stream = call
        .api
        .registry
        .watch(&reading(call), &target, &options)
        .await?;
    let api = call.api;
    let kind = call.served.kind(at.group_version, at.resource);
    let key = Key {
        kind: kind.map_or(u32::MAX, |kind| kind.number),
        sub: 0,
        verb: Verb::Watch,
        apply: false,
        dry_run: false,
        namespaced: !at.namespace.is_empty(),
        single: !at.name.is_empty(),
        code: 0,
    };
    let body = watching::body(
        stream,
        Framer::new(form, wanted.format),
        lifetime,
        api.stopping.clone(),
        api.metrics.watches_by_kind.open(key, row),
        gauge,
    );
    Ok(respond::answer(200, content_type, Outgoing::Stream(body)))
}

async fn create(out: Out<'_>, target: &Target, body: Incoming) -> Result<Answer, Failure> {
    let call = out.call;
    let format = negotiate::body_format(call.headers, call.api.cbor)?;
    let bytes = body::read(body).await?;
    let context = writing(
        call,
        call.query
            .write_options("CreateOptions", None, agent(call))?,
    );
    let object = body::object(bytes, format, body_kind(target))?;
    brought(call, target, &object);
    if target.subresource.is_empty() && reviews::handles(&target.row) {
        let (status, review) = reviews::answer(call, &context, target, object).await?;
        return Ok(out.value(status.as_u16(), &review, &context));
    }
    if target.subresource.is_empty() {
        let result = call.api.registry.create(&context, target, object).await;
        let object = out.warned(result, &context)?;
        return out.object(201, &object, &context);
    }
    if target.subresource == "token"
        && let Some(accounts) = &call.api.access.accounts
    {
        let answer = accounts.answer(&context, target, object).await;
        let value = out.warned(answer, &context)?;
        return Ok(out.value(201, &value, &context));
    }
    let result = call.api.registry.create_sub(&context, target, object).await;
    let value = out.warned(result, &context)?;
    Ok(out.value(201, &value, &context))
}

async fn patch(out: Out<'_>, target: &Target, body: Incoming) -> Result<Answer, Failure> {
    let call = out.call;
    let patch_type = negotiate::patch_type(call.headers, call.api.cbor)?;
    let bytes = body::read(body).await?;
    let which = if patch_type.is_apply() {
        PatchForm::Apply
    } else {
        PatchForm::Other
    };
    let options = call
        .query
        .write_options("PatchOptions", Some(which), agent(call))?;
    let (kind, patch) = match patch_type {
        PatchType::Json => (PatchKind::Json, bytes),
        PatchType::Merge => (PatchKind::Merge, bytes),
        PatchType::Strategic => (PatchKind::Strategic, bytes),
        PatchType::Apply | PatchType::ApplyCbor => {
            let value = if patch_type == PatchType::ApplyCbor {
                cbor::decode(&bytes).map_err(Failure::bad_request)?
            } else {
                body::yaml(&bytes).map_err(|why| {
                    Failure::bad_request(format!(
                        "error decoding YAML: error converting YAML to JSON: {why}"
                    ))
                })?
            };
            (
                PatchKind::Apply {
                    force: options.force,
                },
                value.to_string().into(),
            )
        }
    };
    if let Some(audited) = &call.audited {
        audited.sent(&patch);
    }
    let context = writing(call, options);
    let result = call.api.registry.patch(&context, target, kind, patch).await;
    let written = out.warned(result, &context)?;
    out.object(
        if written.created { 201 } else { 200 },
        &written.object,
        &context,
    )
}

async fn delete(out: Out<'_>, target: &Target, body: Incoming) -> Result<Answer, Failure> {
    let call = out.call;
    let (options, dry_run) = delete_options(call, body).await?;
    let context = Context {
        dry_run,
        ..reading(call)
    };
    let result = call.api.registry.delete(&context, target, &options).await;
    match out.warned(result, &context)? {
        Deleted::Pending(object) => out.object(200, &object, &context),
        Deleted::Gone(object) if answers_object(&target.row) => out.object(200, &object, &context),
        Deleted::Gone(object) => {
            let mut details = json!({"name": target.name, "kind": target.row.resource});
            if !target.row.group.is_empty() {
                details["group"] = Value::String(target.row.group.clone());
            }
            if let Some(uid) = metadata_text(&object, "uid") {
                details["uid"] = Value::String(uid.to_owned());
            }
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            Ok(out.value(200, &status, &context))
        }
    }
}

fn answers_object(row: &Row) -> bool {
    ANSWER_DELETED_OBJECT
        .iter()
        .any(|known| match known.split_once('.') {
            Some((resource, group)) => resource == row.resource && group == row.group,
            None => *known == row.resource && row.group.is_empty(),
        })
}

async fn delete_options(
    call: &Call<'_>,
    body: Incoming,
) -> Result<(oarlock_registry::DeleteOptions, bool), Failure> {
    let bytes = body::read(body).await?;
    if bytes.is_empty() {
        return call.query.delete_options();
    }
    if let Some(audited) = &call.audited {
        audited.sent(&bytes);
    }
    body::delete_options(&bytes, negotiate::body_format(call.headers, call.api.cbor)?)
}

/// The kind that a body of this route has.
fn body_kind(target: &Target) -> &str {
    match target.row.subresource(&target.subresource) {
        Some(sub) => &sub.kind.kind,
        None => &target.row.kind,
    }
}

/// How the answer is written.
struct Out<'a> {
    call: &'a Call<'a>,
    wanted: Wanted,
    form: ItemForm,
}

impl Out<'_> {
    /// A refusal keeps the warnings that were gathered before it.
    fn warned<T>(
        &self,
        result: oarlock_model::ApiResult<T>,
        context: &Context,
    ) -> Result<T, Failure> {
        result.map_err(|error| {
            let warnings = std::mem::take(&mut *context.warnings.lock());
            Failure::from(error).with_warnings(warnings)
        })
    }

    fn object(&self, code: u16, object: &Stored, context: &Context) -> Result<Answer, Failure> {
        let mut text = Vec::new();
        self.form.write_single(&mut text, object)?;
        if let Some(audited) = self.recorder() {
            audited.returned(text.clone());
        }
        let answer = respond::json(code, text, self.wanted.format, self.wanted.pretty);
        Ok(self.finish(respond::compressed(answer, self.call.headers), context))
    }

    fn value(&self, code: u16, value: &Value, context: &Context) -> Answer {
        if let Some(audited) = &self.call.audited {
            audited.returned_value(value);
        }
        self.finish(
            respond::value(code, value, self.wanted.format, self.wanted.pretty),
            context,
        )
    }

    /// Who records answers, if anybody does.
    fn recorder(&self) -> Option<&Audited> {
        let audited = self.call.audited.as_deref()?;
        audited.wants_response().then_some(audited)
    }

    fn list(&self, list: List, context: &Context) -> Result<Answer, Failure> {
        if let Some(audited) = self.recorder() {
            let mut head = Vec::new();
            self.form.write_list_head(&mut head, &list)?;
            let body = ListBody::new(self.form.clone(), head, list.items.clone(), false);
            audited.returned(body.into_bytes());
        }
        if self.wanted.format == Format::Protobuf {
            let bytes = self.form.binary_list(&list)?;
            let answer =
                respond::answer(200, Format::Protobuf.content_type(), Outgoing::whole(bytes));
            return Ok(self.finish(respond::compressed(answer, self.call.headers), context));
        }
        let mut head = Vec::with_capacity(512);
        self.form.write_list_head(&mut head, &list)?;
        let size: usize = list.items.iter().map(|item| item.json.len()).sum();
        let plain = self.wanted.format == Format::Json && !self.wanted.pretty;
        let large = size >= GZIP_FROM_BYTES;
        let gzip = plain && large && negotiate::accepts_gzip(self.call.headers);
        let body = ListBody::new(self.form.clone(), head, list.items, gzip);
        if !plain || !large {
            let answer = respond::json(
                200,
                body.into_bytes(),
                self.wanted.format,
                self.wanted.pretty,
            );
            return Ok(self.finish(respond::compressed(answer, self.call.headers), context));
        }
        let mut answer = respond::answer(
            200,
            Format::Json.content_type(),
            Outgoing::List(Box::new(body)),
        );
        if gzip {
            respond::mark_gzip(&mut answer);
        }
        Ok(self.finish(answer, context))
    }

    fn finish(&self, mut answer: Answer, context: &Context) -> Answer {
        let warnings = context.warnings.lock();
        if !warnings.is_empty() {
            respond::warn(&mut answer, &warnings);
        }
        answer
    }
}

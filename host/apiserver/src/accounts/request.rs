//! `serviceaccounts/token`: a TokenRequest, checked and answered.

use oarlock_kinds::schema_of_kind;
use oarlock_model::{ApiError, ApiResult, Cause, meta, time};
use oarlock_registry::{Body, Context, Stored, Target, scan};
use oarlock_schema::{apply_defaults, decode, decode_value};
use serde_json::{Value, json};

use super::{ISSUER, ServiceAccounts};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// A pod's token asked for so long is good for a year: clients from before tokens expired do not read theirs again.
const WARN_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

impl ServiceAccounts {
    /// The request with its token.
    pub(crate) async fn answer(
        &self,
        ctx: &Context,
        target: &Target,
        body: Body,
    ) -> ApiResult<Value> {
        let missing = || ApiError::internal("no schema of TokenRequest");
        let schema = schema_of_kind(GROUP, "v1", KIND).ok_or_else(missing)?;
        let decoded = match &body {
            Body::Json(text) => decode(&schema, text),
            Body::Value(value) => decode_value(&schema, value),
        };
        let mut request = decoded
            .map_err(|why| {
                ApiError::bad_request(format!(
                    "{KIND} in version \"v1\" cannot be handled as a {KIND}: {why}"
                ))
            })?
            .value;
        meta::set_type(&mut request, format!("{GROUP}/v1"), KIND);
        apply_defaults(&schema, &mut request);
        if !request["spec"]["expirationSeconds"].is_number() {
            request["spec"]["expirationSeconds"] = json!(DEFAULT_SECONDS);
        }
        meta::metadata_mut(&mut request);
        oarlock_registry::track_created(ctx, &schema, "token", &mut request);
        self.registry.admit_sub(ctx, target, &mut request).await?;
        place(target, &request)?;
        let account = self
            .look("serviceaccounts", &target.namespace, &target.name)
            .ok_or_else(|| ApiError::not_found("", "serviceaccounts", &target.name))?;
        let uid = text(&account, &["metadata", "uid"]);
        let audiences = request["spec"]["audiences"].as_array();
        if audiences.is_none_or(Vec::is_empty) {
            request["spec"]["audiences"] = json!([Self::own_audience()]);
        }
        for (field, value) in [
            ("name", target.name.clone()),
            ("namespace", target.namespace.clone()),
            ("uid", uid.clone()),
            ("creationTimestamp", time::format_time(ctx.now)),
        ] {
            meta::set(&mut request, field, value);
        }
        let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(0);
        lifetime(seconds)?;
        let mut own = json!({
            "namespace": target.namespace,
            "serviceaccount": {"name": target.name, "uid": uid},
        });
        self.bind(target, &request["spec"]["boundObjectRef"], &mut own)?;
        let now = ctx.now.as_second();
        let mut lasts = seconds;
        if own["pod"].is_object()
            && seconds == WARN_SECONDS
            && request["spec"]["audiences"] == json!([ISSUER])
        {
            own["warnafter"] = json!(now + seconds);
            lasts = EXTENDED_SECONDS;
        }
        let id = uuid::Uuid::new_v4().to_string();
        ctx.annotate("authentication.kubernetes.io/issued-credential-id", || {
            format!("JTI={id}")
        });
        let claims = json!({
            "aud": request["spec"]["audiences"], "exp": now + lasts, "iat": now, "iss": ISSUER,
            "jti": id, "kubernetes.io": own, "nbf": now,
            "sub": oarlock_auth::account_user(&target.namespace, &target.name),
        });
        let token = self
            .sign(&claims)
            .ok_or_else(|| ApiError::internal("cannot sign a token"))?;
        let ends = ctx
            .now
            .checked_add(jiff::SignedDuration::from_secs(seconds))
            .map_err(ApiError::internal)?;
        request["status"] = json!({"token": token, "expirationTimestamp": time::format_time(ends)});
        Ok(request)
    }

    /// What the token is to end with.
    fn bind(&self, target: &Target, to: &Value, own: &mut Value) -> ApiResult<()> {
        if !to.is_object() {
            return Ok(());
        }
        let of = |field: &str| to[field].as_str().unwrap_or_default();
        let (version, kind, name) = (of("apiVersion"), of("kind"), of("name"));
        let (group, plain) = version.rsplit_once('/').unwrap_or(("", version));
        let look = |resource: &str, namespace: &str| {
            self.look(resource, namespace, name)
                .ok_or_else(|| ApiError::not_found("", resource, name))
        };
        let found = match (group, kind) {
            ("", "Pod") => {
                let pod = look("pods", &target.namespace)?;
                if text(&pod, &["spec", "serviceAccountName"]) != target.name {
                    return Err(ApiError::bad_request(format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                        target.name
                    )));
                }
                let node = text(&pod, &["spec", "nodeName"]);
                if !node.is_empty() {
                    own["node"] = json!({"name": node});
                    if let Some(found) = self.look("nodes", "", &node) {
                        own["node"]["uid"] = json!(text(&found, &["metadata", "uid"]));
                    }
                }
                pod
            }
            ("", "Node") => look("nodes", "")?,
            ("", "Secret") => look("secrets", &target.namespace)?,
            _ => {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token to object of type {group}/{plain}, Kind={kind}"
                )));
            }
        };
        let uid = text(&found, &["metadata", "uid"]);
        let wanted = of("uid");
        if !wanted.is_empty() && wanted != uid {
            let why = format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(ApiError::conflict(group, kind, name, &why));
        }
        own[kind.to_ascii_lowercase()] = json!({"name": name, "uid": uid});
        Ok(())
    }
}

fn text(object: &Stored, path: &[&str]) -> String {
    scan::text(&object.json, path).into_owned()
}

/// A name or namespace in the body must be those of the path.
fn place(target: &Target, request: &Value) -> ApiResult<()> {
    for (field, given, wanted, what) in [
        ("metadata.name", meta::name(request), &target.name, "name"),
        (
            "metadata.namespace",
            meta::namespace(request),
            &target.namespace,
            "namespace",
        ),
    ] {
        if !given.is_empty() && given != wanted {
            let detail = format!("must match the service account {what} if specified");
            let cause = Cause::invalid(field, &json!(given), &detail);
            return Err(ApiError::invalid(GROUP, KIND, &target.name, vec![cause]));
        }
    }
    Ok(())
}

fn lifetime(seconds: i64) -> ApiResult<()> {
    let why = if seconds < MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let cause = Cause::invalid("spec.expirationSeconds", &json!(seconds), why);
    Err(ApiError::invalid(GROUP, KIND, "", vec![cause]))
}

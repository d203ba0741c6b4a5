//! Subresources that are not just a part of the object: `scale`, `binding`, `eviction`.

pub mod binding;
pub mod eviction;
pub mod scale;

use oarlock_model::{ApiError, ApiResult, meta};
use serde_json::{Value, json};

use crate::{Body, Context, Registry, Target};

impl Registry {
    /// POST to a subresource: `binding`, `eviction`; answers the body to send with 201.
    pub async fn create_sub(&self, ctx: &Context, target: &Target, body: Body) -> ApiResult<Value> {
        match target.subresource.as_str() {
            "binding" => {
                let mut body = small_body(body)?;
                self.admit_sub(ctx, target, &mut body).await?;
                self.bind(ctx, target, &body).await?;
            }
            "eviction" => {
                let mut body = small_body(body)?;
                self.admit_sub(ctx, target, &mut body).await?;
                self.evict(ctx, target, &body).await?;
            }
            other => {
                let row = &target.row;
                let resource = format!("{}/{other}", row.qualified_resource());
                return Err(ApiError::new(
                    oarlock_model::Reason::NotFound,
                    format!("{resource} is not served"),
                ));
            }
        }
        Ok(
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        )
    }
}

/// Bindings and evictions have no schema of their own here: a few fields are read.
fn small_body(body: Body) -> ApiResult<Value> {
    match body {
        Body::Value(value) => Ok(value),
        Body::Json(text) => serde_json::from_slice(&text).map_err(|e| {
            ApiError::bad_request(format!("couldn't get version/kind; json parse error: {e}"))
        }),
    }
}

fn match_name(target: &Target, body: &Value, kind: &str) -> ApiResult<()> {
    let name = meta::name(body);
    if name.is_empty() || name == target.name {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "name in URL does not match name in {kind} object"
    )))
}

//! The admission seam: what may change or refuse a write between decoding and storing.

pub mod builtin;
pub(crate) mod matching;
pub mod policy;
mod rounds;
pub(crate) mod webhook;

use async_trait::async_trait;
use oarlock_model::{ApiResult, meta};
use serde_json::Value;

use crate::{Context, Registry, Target, User, prepare};
pub use rounds::Rounds;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// Subresources that are acted on, not stored (`exec`, `proxy`).
    Connect,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// One write on its way. `object` is absent for deletions, `old` for creations.
#[derive(Debug)]
pub struct AdmissionRequest<'a> {
    pub context: &'a Context,
    pub target: &'a Target,
    pub operation: Operation,
    pub object: Option<&'a mut Value>,
    pub old: Option<&'a Value>,
    pub rounds: Rounds,
}

/// Plugins run in the order in which they were given; all `mutate` first, all `validate` after defaulting and validation.
#[async_trait]
pub trait Admission: Send + Sync + std::fmt::Debug {
    fn name(&self) -> &str;

    /// Whether this plugin looks at such a write at all; cheap.
    fn handles(&self, target: &Target, operation: Operation) -> bool;

    /// Whether this plugin looks at writes of such a user at all; cheaper.
    fn concerns(&self, _user: &User) -> bool {
        true
    }

    async fn mutate(
        &self,
        _registry: &Registry,
        _request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        Ok(())
    }

    async fn validate(
        &self,
        _registry: &Registry,
        _request: &AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        Ok(())
    }
}

/// What somebody else (a policy, a webhook) made of an object, as a tree that the pipeline may go on with: it fits the schema,
/// has defaults, and changes no more than its subresource may. The error says what does not fit.
pub fn readmit(target: &Target, object: &Value, old: Option<&Value>) -> Result<Value, String> {
    let row = &target.row;
    let decoded =
        oarlock_schema::decode_value(&row.schema, object).map_err(|error| error.to_string())?;
    let mut object = decoded.value;
    meta::set_type(&mut object, row.api_version(), row.kind.as_str());
    prepare::default(row, &mut object);
    if let Some(old) = old {
        prepare::restrict_to_subresource(target, &mut object, old);
    }
    Ok(object)
}

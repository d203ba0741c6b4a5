//! Components in the cluster's own store: a `Component` names a digest, and `ComponentChunk`s named by digest and index hold the bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oarlock_model::{ApiError, ApiResult, Gvr, Reason};
use serde_json::Value;

use crate::{Cluster, Key};

const GROUP: &str = "oarlock.dev";
const VERSION: &str = "v1alpha1";

/// A component as it was pushed. The digest has not been checked against the bytes: who loads them does.
#[derive(Clone, Debug)]
pub struct ComponentBytes {
    /// `sha256:…`, as the `Component` names it.
    pub digest: String,
    pub bytes: Vec<u8>,
}

/// The name of a `ComponentChunk`.
pub fn chunk_name(digest: &str, index: usize) -> String {
    format!("{}-{index}", digest.replace(':', "-"))
}

fn cluster_scoped(name: &str) -> Key {
    Key {
        namespace: String::new(),
        name: name.to_owned(),
    }
}

/// Reads the component of a `Component` by name. 404 if it, or a chunk of it, is not there.
pub async fn fetch_component(cluster: &dyn Cluster, name: &str) -> ApiResult<ComponentBytes> {
    let component = cluster
        .get(
            &Gvr::new(GROUP, VERSION, "components"),
            &cluster_scoped(name),
        )
        .await?;
    let spec = &component["spec"];
    let digest = spec["digest"].as_str().unwrap_or_default().to_owned();
    let chunks = spec["chunks"].as_u64().unwrap_or(1) as usize;
    let mut bytes = Vec::with_capacity(spec["size"].as_u64().unwrap_or(0) as usize);
    for index in 0..chunks {
        let chunk_name = chunk_name(&digest, index);
        let chunk = cluster
            .get(
                &Gvr::new(GROUP, VERSION, "componentchunks"),
                &cluster_scoped(&chunk_name),
            )
            .await?;
        let data = chunk["data"]
            .as_str()
            .and_then(|text| STANDARD.decode(text).ok());
        bytes.extend(data.ok_or_else(|| {
            ApiError::new(
                Reason::InternalError,
                format!("component chunk {chunk_name} is not base64"),
            )
        })?);
    }
    if spec
        .get("size")
        .and_then(Value::as_u64)
        .is_some_and(|size| size != bytes.len() as u64)
    {
        return Err(ApiError::new(
            Reason::InternalError,
            format!("component {name} is not whole"),
        ));
    }
    Ok(ComponentBytes { digest, bytes })
}

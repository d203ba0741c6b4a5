//! Subresources that reach into a running pod: logs, exec, attach, port-forward, proxy. No node agent serves them yet, so
//! what is answered here is what upstream answers before it would reach a node, and then that there is nothing to reach.

use oarlock_model::{ApiError, Reason};
use oarlock_registry::{Context, Target};
use serde_json::Value;
use std::sync::Arc;

use crate::failure::Failure;
use crate::handler::Call;
use crate::outgoing::Outgoing;
use crate::respond::{self, Answer};
use crate::route::ResourcePath;

pub(crate) fn handles(subresource: &str) -> bool {
    matches!(
        subresource,
        "log" | "exec" | "attach" | "portforward" | "proxy"
    )
}

pub(crate) async fn answer(
    call: &Call<'_>,
    target: &Target,
    at: ResourcePath<'_>,
) -> Result<Answer, Failure> {
    let context = Context::new(Arc::clone(&call.user), call.now);
    let object = Target {
        subresource: String::new(),
        ..target.clone()
    };
    let stored = call.api.registry.get(&context, &object, "").await?;
    let value = stored.to_value().map_err(ApiError::internal)?;
    let node = value
        .pointer("/spec/nodeName")
        .and_then(Value::as_str)
        .unwrap_or("");
    let name = &target.name;
    match at.first_subresource() {
        "log" => log(call, &value, name, node),
        "proxy" => Err(Failure::bad_request("address not allowed")),
        _ if node.is_empty() => Err(Failure::bad_request(format!(
            "pod {name} does not have a host assigned"
        ))),
        what => {
            let text = format!("{what} is not available: node {node:?} runs no containers");
            Err(ApiError::new(Reason::ServiceUnavailable, text).into())
        }
    }
}

/// A pod that runs on a node has written nothing; one without a node has no log at all.
fn log(call: &Call<'_>, pod: &Value, name: &str, node: &str) -> Result<Answer, Failure> {
    for field in ["tailLines", "limitBytes", "sinceSeconds"] {
        let Some(value) = call
            .query
            .get(field)
            .and_then(|v| v.parse::<i64>().ok())
            .filter(|v| *v < 0)
        else {
            continue;
        };
        let cause = oarlock_model::Cause::invalid(
            field,
            &Value::from(value),
            "must be greater than or equal to 0",
        );
        return Err(ApiError::invalid("", "PodLogOptions", name, vec![cause]).into());
    }
    if let Some(container) = call.query.get("container").filter(|c| !c.is_empty()) {
        let known = ["containers", "initContainers", "ephemeralContainers"]
            .iter()
            .filter_map(|list| pod.get("spec")?.get(*list)?.as_array())
            .flatten()
            .any(|c| c.get("name").and_then(Value::as_str) == Some(container));
        if !known {
            return Err(Failure::bad_request(format!(
                "container {container} is not valid for pod {name}"
            )));
        }
    }
    if node.is_empty() {
        let mut answer = Answer::new(Outgoing::empty());
        *answer.status_mut() = http::StatusCode::NO_CONTENT;
        return Ok(answer);
    }
    Ok(respond::answer(200, "text/plain", Outgoing::empty()))
}

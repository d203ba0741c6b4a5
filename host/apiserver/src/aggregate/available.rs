//! Whether another API server answers for its group version: the service, its endpoints, and a look at its discovery.

use std::time::Duration;

use http::{Request, Uri};
use oarlock_registry::Registry;
use serde_json::Value;

use super::Elsewhere;
use crate::outbound::{Endpoints, Outbound, Unreachable, moved, read_whole, whole};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Why the condition `Available` is false: reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem(pub &'static str, pub String);

/// The resources of the group version, or why they cannot be had.
pub(super) async fn judge(
    registry: &Registry,
    outbound: &Outbound,
    of: &Elsewhere,
) -> Result<Vec<Value>, Problem> {
    let service = &of.service;
    let (name, namespace) = (&service.name, format!("{:?}", service.namespace));
    let endpoints = Endpoints::of(registry, service)
        .await
        .map_err(|why| match why {
            Unreachable::Service => Problem(
                "ServiceNotFound",
                format!("service/{name} in {namespace} is not present"),
            ),
            Unreachable::Port => Problem(
                "ServicePortError",
                format!(
                    "service/{name} in {namespace} is not listening on port {}",
                    service.port
                ),
            ),
            Unreachable::Endpoints => Problem(
                "EndpointsNotFound",
                format!("cannot find endpointslices for service/{name} in {namespace}"),
            ),
            Unreachable::Addresses(port) => Problem(
                "MissingEndpoints",
                format!(
                    "endpointslices for service/{name} in {namespace} have no addresses with port name {port:?}"
                ),
            ),
        })?;
    let path = format!("/apis/{}/{}", of.group, of.version);
    let mut last = String::new();
    for address in endpoints.addresses.iter().take(5) {
        let url = format!("https://{address}{path}");
        match tokio::time::timeout(TIMEOUT, ask(outbound, of, &url)).await {
            Ok(Ok(resources)) => return Ok(resources),
            Ok(Err(why)) => last = format!("failing or missing response from {url}: {why}"),
            Err(_) => {
                last = format!("failing or missing response from {url}: context deadline exceeded");
            }
        }
    }
    Err(Problem("FailedDiscoveryCheck", last))
}

async fn ask(outbound: &Outbound, of: &Elsewhere, url: &str) -> Result<Vec<Value>, String> {
    let uri: Uri = url.parse().map_err(|e| format!("{e}"))?;
    let request = Request::get(uri)
        .header(
            http::header::HOST,
            format!("{}:{}", of.trust.name, of.service.port),
        )
        .header("accept", "application/json")
        .header("x-remote-user", "system:kube-aggregator")
        .header("x-remote-group", "system:masters")
        .body(whole(bytes::Bytes::new()))
        .map_err(|e| e.to_string())?;
    let answer = outbound.send(&of.trust, request).await?;
    let code = answer.status().as_u16();
    if !(200..300).contains(&code) {
        return Err(format!("bad status from {url}: {code}"));
    }
    let body = read_whole(answer).await?;
    let list: Value = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
    Ok(list["resources"].as_array().cloned().unwrap_or_default())
}

/// The URL of a request at an address of the service.
pub(super) fn at(uri: &Uri, address: std::net::SocketAddr) -> Result<Uri, String> {
    moved(uri, address)
}

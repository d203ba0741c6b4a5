//! Keeps the EndpointSlices of Services with a selector.
//! Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/

use std::collections::BTreeMap;

use controller_kit::{Meta, Owner, Pod};
use oarlock_sdk::controller::{
    Cluster, DeleteOptions, Description, Error, Key, Mapping, Outcome, Permission, Query,
    Reconciler, Watch,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const SERVICES: &str = "v1/services";
const PODS: &str = "v1/pods";
const SLICES: &str = "discovery.k8s.io/v1/endpointslices";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const OURSELVES: &str = "endpointslice-controller.k8s.io";
const MAX_ENDPOINTS: usize = 100;

#[derive(Debug, Default)]
pub struct EndpointSliceController;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    metadata: Meta,
    spec: ServiceSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    selector: BTreeMap<String, String>,
    ports: Vec<ServicePort>,
    #[serde(rename = "type")]
    kind: String,
    publish_not_ready_addresses: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServicePort {
    name: String,
    protocol: String,
    port: i64,
    target_port: Value,
    app_protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: String,
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    addresses: Vec<String>,
    conditions: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<String>,
    target_ref: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Slice {
    metadata: Meta,
    #[serde(default, deserialize_with = "or_null")]
    endpoints: Vec<Endpoint>,
    #[serde(default, deserialize_with = "or_null")]
    ports: Vec<Port>,
}

impl Reconciler for EndpointSliceController {
    fn describe(&self) -> Description {
        let relevant = [
            "/metadata/labels",
            "/metadata/deletionTimestamp",
            "/status/podIP",
            "/status/conditions",
            "/status/phase",
        ];
        let managed = format!("{MANAGED_BY}={OURSELVES}");
        let watches = vec![
            Watch::of(SERVICES),
            Watch::of(PODS).by(Mapping::AllPrimary).relevant(&relevant),
            Watch::of(SLICES)
                .labelled(&managed)
                .by(Mapping::Label(SERVICE_NAME.to_owned())),
        ];
        let permissions = vec![
            Permission::to("get list watch", "", "services"),
            Permission::to("get list watch", "", "pods"),
            Permission::to(
                "get list watch create patch delete",
                "discovery.k8s.io",
                "endpointslices",
            ),
        ];
        Description::new("endpointslice-controller", watches, permissions).concurrent(2)
    }

    fn reconcile(&self, cluster: &Cluster<'_>, key: &Key) -> Result<Outcome, Error> {
        let Some(service) = cluster.get_as::<Service>(SERVICES, key)? else {
            return Ok(Outcome::Done);
        };
        let spec = &service.spec;
        if spec.selector.is_empty() || spec.kind == "ExternalName" || service.metadata.terminating()
        {
            return Ok(Outcome::Done);
        }
        let labels: Vec<String> = spec
            .selector
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let pods: Vec<Pod> = cluster.list_as(
            PODS,
            &Query::namespace(&key.namespace).labelled(&labels.join(",")),
        )?;
        let wanted = wanted(&service, &pods);
        let ours = format!("{SERVICE_NAME}={},{MANAGED_BY}={OURSELVES}", key.name);
        let mut old: Vec<Slice> =
            cluster.list_as(SLICES, &Query::namespace(&key.namespace).labelled(&ours))?;
        old.retain(|slice| !slice.metadata.terminating());
        for (ports, endpoints) in wanted {
            // A slice with these ports is used again, so that a changed pod changes one slice.
            match old.iter().position(|slice| slice.ports == ports) {
                Some(at) => {
                    let slice = old.swap_remove(at);
                    if slice.endpoints != endpoints {
                        let patch = json!({"metadata": {"resourceVersion": slice.metadata.resource_version}, "endpoints": endpoints});
                        cluster.merge(SLICES, &slice.metadata.key(), &patch)?;
                    }
                }
                None => create(cluster, &service, &ports, &endpoints)?,
            }
        }
        for slice in old {
            cluster.delete(SLICES, &slice.metadata.key(), &DeleteOptions::default())?;
        }
        Ok(Outcome::Done)
    }
}

fn create(
    cluster: &Cluster<'_>,
    service: &Service,
    ports: &[Port],
    endpoints: &[Endpoint],
) -> Result<(), Error> {
    let meta = &service.metadata;
    let mut labels = meta.labels.clone();
    labels.insert(SERVICE_NAME.to_owned(), meta.name.clone());
    labels.insert(MANAGED_BY.to_owned(), OURSELVES.to_owned());
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", meta.name), "namespace": meta.namespace, "labels": labels,
            "ownerReferences": [Owner::controlling("v1", "Service", meta)],
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    });
    cluster.create(SLICES, &meta.namespace, &slice)
}

/// The slices that there should be: ports, and the endpoints behind them, ordered by pod.
fn wanted(service: &Service, pods: &[Pod]) -> Vec<(Vec<Port>, Vec<Endpoint>)> {
    let mut by_ports: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods
        .iter()
        .filter(|pod| !pod.status.pod_ip.is_empty() && !pod.finished())
    {
        by_ports
            .entry(ports(service, pod))
            .or_default()
            .push(endpoint(service, pod));
    }
    if by_ports.is_empty() {
        return vec![(Vec::new(), Vec::new())];
    }
    let slices = by_ports.into_iter().flat_map(|(ports, endpoints)| {
        let chunks: Vec<_> = endpoints.chunks(MAX_ENDPOINTS).map(<[_]>::to_vec).collect();
        chunks.into_iter().map(move |chunk| (ports.clone(), chunk))
    });
    slices.collect()
}

fn endpoint(service: &Service, pod: &Pod) -> Endpoint {
    let terminating = pod.metadata.terminating();
    let ready = service.spec.publish_not_ready_addresses || (pod.ready() && !terminating);
    let meta = &pod.metadata;
    Endpoint {
        addresses: vec![pod.status.pod_ip.clone()],
        conditions: json!({"ready": ready, "serving": pod.ready(), "terminating": terminating}),
        node_name: Some(pod.spec.node_name.clone()).filter(|name| !name.is_empty()),
        target_ref: json!({"kind": "Pod", "name": meta.name, "namespace": meta.namespace, "uid": meta.uid}),
    }
}

/// The service's ports as this pod has them; a named port that the pod lacks is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let find = |name: &str, protocol: &str| {
        let mut ports = pod
            .spec
            .containers
            .iter()
            .filter_map(|c| c.get("ports")?.as_array())
            .flatten();
        ports.find_map(|port| {
            let same = port.get("name")?.as_str()? == name;
            let over = port
                .get("protocol")
                .and_then(Value::as_str)
                .unwrap_or("TCP");
            (same && over == protocol)
                .then(|| port.get("containerPort")?.as_i64())
                .flatten()
        })
    };
    let resolve = |port: &ServicePort| {
        let protocol = if port.protocol.is_empty() {
            "TCP"
        } else {
            &port.protocol
        };
        let number = match &port.target_port {
            Value::String(name) => find(name, protocol)?,
            target => target
                .as_i64()
                .filter(|number| *number > 0)
                .unwrap_or(port.port),
        };
        Some(Port {
            name: port.name.clone(),
            protocol: protocol.to_owned(),
            port: Some(number),
            app_protocol: port.app_protocol.clone(),
        })
    };
    service.spec.ports.iter().filter_map(resolve).collect()
}

/// The API server writes an empty list as null.
fn or_null<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}

oarlock_sdk::export_controller!(EndpointSliceController);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_ports_and_readiness() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {"selector": {"a": "b"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "raw", "port": 90, "targetPort": 0}]}}))
        .unwrap();
        let pod = |name: &str, port: u16, ready: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": name},
                "spec": {"containers": [{"ports": [{"name": "web", "containerPort": port}]}]},
                "status": {"podIP": "10.1.0.1", "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap()
        };
        let slices = wanted(
            &service,
            &[
                pod("a", 8080, "True"),
                pod("b", 8080, "False"),
                pod("c", 9090, "True"),
            ],
        );
        let shape: Vec<(Option<i64>, Vec<bool>)> = slices
            .iter()
            .map(|(ports, endpoints)| {
                (
                    ports[0].port,
                    endpoints
                        .iter()
                        .map(|e| e.conditions["ready"] == true)
                        .collect(),
                )
            })
            .collect();
        assert_eq!(
            shape,
            [(Some(8080), vec![true, false]), (Some(9090), vec![true])]
        );
        assert_eq!(slices[0].0[1].port, Some(90));
    }
}

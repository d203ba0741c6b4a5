//! What placed pods take from their node: read from a pod once, and summed by node.

use std::collections::BTreeMap;

use oarlock_model::pod_requests::{PodResources, Totals};
use oarlock_wasm::scheduler::{Amount, HostPort, Usage};
use serde::Deserialize;
use serde_json::Value;

/// What one pod takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodUsage {
    pub real: Totals,
    pub nonzero_cpu_milli: i64,
    pub nonzero_memory: i64,
    pub ports: Vec<HostPort>,
}

#[derive(Debug, Default, Deserialize)]
struct PortsPod {
    #[serde(default)]
    spec: PortsSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortsSpec {
    containers: Option<Vec<PortsContainer>>,
    init_containers: Option<Vec<PortsContainer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortsContainer {
    restart_policy: Option<String>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    host_port: Option<i64>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    protocol: Option<String>,
}

impl PodUsage {
    /// Of a v1.Pod. Parts that cannot be read count nothing.
    pub fn of(pod: &Value) -> Self {
        let (real, nonzero) = PodResources::deserialize(pod).unwrap_or_default().placed();
        let mut usage = Self {
            real,
            nonzero_cpu_milli: nonzero.cpu_milli,
            nonzero_memory: nonzero.memory,
            ports: Vec::new(),
        };
        usage.ports = host_ports(pod);
        usage
    }
}

/// The host ports of containers and sidecars.
fn host_ports(pod: &Value) -> Vec<HostPort> {
    let spec = PortsPod::deserialize(pod).unwrap_or_default().spec;
    let sidecars = spec.init_containers.into_iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .into_iter()
        .flatten()
        .chain(sidecars)
        .flat_map(|c| c.ports.unwrap_or_default());
    let or = |text: Option<String>, default: &str| {
        text.filter(|t| !t.is_empty())
            .unwrap_or_else(|| default.to_owned())
    };
    ports
        .filter_map(|port| {
            Some(HostPort {
                port: u16::try_from(port.host_port?).ok().filter(|p| *p > 0)?,
                ip: or(port.host_ip, "0.0.0.0"),
                protocol: or(port.protocol, "TCP"),
            })
        })
        .collect()
}

/// The sum over the pods of a node. Sums of absurd requests wrap around, as upstream's do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeUsage {
    pods: u32,
    cpu_milli: i64,
    memory: i64,
    ephemeral_storage: i64,
    nonzero_cpu_milli: i64,
    nonzero_memory: i64,
    others: BTreeMap<String, i64>,
    ports: Vec<HostPort>,
}

impl NodeUsage {
    pub fn add(&mut self, pod: &PodUsage) {
        self.pods += 1;
        self.sum(pod, 1);
        self.ports.extend(pod.ports.iter().cloned());
    }

    /// `pod` must have been added before.
    pub fn remove(&mut self, pod: &PodUsage) {
        self.pods = self.pods.saturating_sub(1);
        self.sum(pod, -1);
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
    }

    fn sum(&mut self, pod: &PodUsage, sign: i64) {
        let add =
            |total: &mut i64, amount: i64| *total = total.wrapping_add(amount.wrapping_mul(sign));
        add(&mut self.cpu_milli, pod.real.cpu_milli);
        add(&mut self.memory, pod.real.memory);
        add(&mut self.ephemeral_storage, pod.real.ephemeral_storage);
        add(&mut self.nonzero_cpu_milli, pod.nonzero_cpu_milli);
        add(&mut self.nonzero_memory, pod.nonzero_memory);
        for (name, amount) in pod.real.others.iter().filter(|(_, amount)| *amount != 0) {
            let total = self.others.entry(name.clone()).or_default();
            add(total, *amount);
            if *total == 0 {
                self.others.remove(name);
            }
        }
    }

    pub fn pods(&self) -> u32 {
        self.pods
    }

    /// As the guests get it.
    pub fn to_guest(&self, id: u32) -> Usage {
        Usage {
            id,
            pods: self.pods,
            cpu_milli: self.cpu_milli,
            memory: self.memory,
            ephemeral_storage: self.ephemeral_storage,
            nonzero_cpu_milli: self.nonzero_cpu_milli,
            nonzero_memory: self.nonzero_memory,
            others: self
                .others
                .iter()
                .map(|(name, value)| Amount {
                    resource: name.clone(),
                    value: *value,
                })
                .collect(),
            ports: self.ports.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_added_can_be_removed() {
        let pod = |cpu: &str, port: u16| {
            PodUsage::of(&json!({"spec": {"containers": [{
                "resources": {"requests": {"cpu": cpu, "example.com/gpu": "2"}},
                "ports": [{"hostPort": port}, {"containerPort": 9}],
            }]}}))
        };
        let (a, b) = (pod("1", 80), pod("250m", 443));
        let mut node = NodeUsage::default();
        node.add(&a);
        let only_a = node.clone();
        node.add(&b);
        let guest = node.to_guest(7);
        assert_eq!(
            (
                guest.pods,
                guest.cpu_milli,
                guest.others[0].value,
                guest.ports.len()
            ),
            (2, 1250, 4, 2)
        );
        assert_eq!(
            (guest.nonzero_memory, guest.memory),
            (2 * 200 * 1024 * 1024, 0)
        );
        node.remove(&b);
        assert_eq!(node, only_a);
        node.remove(&a);
        assert_eq!(node, NodeUsage::default());
    }
}

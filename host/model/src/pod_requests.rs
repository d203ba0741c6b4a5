//! What a pod requests of its node, as kube-scheduler counts it: containers, sidecars, init containers, overhead, pod-level
//! resources, and what the kubelet has allocated already. One definition for the scheduler's sums and for the plugins.
//!
//! Invariant: sums are exact; rounding up to whole units (thousandths of a CPU) happens once, at the end.
//! Source of the rules: KEP-753 (sidecars), KEP-2837 (pod-level resources), KEP-1287 (resize in place), KEP-688 (overhead).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Quantity;

pub const CPU: &str = "cpu";
pub const MEMORY: &str = "memory";
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
pub const PODS: &str = "pods";
/// What scoring takes for a container that requests no CPU.
pub const DEFAULT_CPU_MILLI: i64 = 100;
/// What scoring takes for a container that requests no memory, in bytes.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

pub type ResourceMap = BTreeMap<String, Quantity>;

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Resources {
    #[serde(default)]
    pub requests: Option<ResourceMap>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerResources {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub resources: Option<Resources>,
    #[serde(default)]
    pub restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecResources {
    #[serde(default)]
    pub containers: Option<Vec<ContainerResources>>,
    #[serde(default)]
    pub init_containers: Option<Vec<ContainerResources>>,
    #[serde(default)]
    pub overhead: Option<ResourceMap>,
    #[serde(default)]
    pub resources: Option<Resources>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatusResources {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub resources: Option<Resources>,
    #[serde(default)]
    pub allocated_resources: Option<ResourceMap>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Condition {
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusResources {
    #[serde(default)]
    pub container_statuses: Option<Vec<ContainerStatusResources>>,
    #[serde(default)]
    pub init_container_statuses: Option<Vec<ContainerStatusResources>>,
    #[serde(default)]
    pub conditions: Option<Vec<Condition>>,
}

/// The parts of a v1.Pod that decide what it requests.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodResources {
    #[serde(default)]
    pub spec: SpecResources,
    #[serde(default)]
    pub status: StatusResources,
}

/// Which of the counts is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counting {
    /// What the kubelet has allocated or runs counts too, if it is more.
    pub with_status: bool,
    /// Containers without a CPU or memory request count with this much CPU and memory (exact amounts, not milli).
    pub missing_cpu: bool,
    pub missing_memory: bool,
    /// Pod-level requests do not replace the sums of containers.
    pub without_pod_level: bool,
}

/// Sums in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub cpu_milli: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources, hugepages and attachable volumes, by name; zeros are kept.
    pub others: Vec<(String, i64)>,
}

impl PodResources {
    pub fn has_pod_level_requests(&self) -> bool {
        self.pod_level()
            .is_some_and(|map| map.keys().any(|name| is_pod_level_resource(name)))
    }

    fn pod_level(&self) -> Option<&ResourceMap> {
        self.spec.resources.as_ref()?.requests.as_ref()
    }

    /// The requests of the whole pod by resource.
    pub fn requests(&self, counting: Counting) -> ResourceMap {
        let mut sum = ResourceMap::new();
        for container in self.spec.containers.iter().flatten() {
            add(
                &mut sum,
                &self.container(container, counting, counting.with_status),
            );
        }
        let mut sidecars = ResourceMap::new();
        let mut init_peak = ResourceMap::new();
        for container in self.spec.init_containers.iter().flatten() {
            let is_sidecar = container.restart_policy.as_deref() == Some("Always");
            let own = self.container(container, counting, counting.with_status && is_sidecar);
            if is_sidecar {
                add(&mut sum, &own);
                add(&mut sidecars, &own);
                raise(&mut init_peak, &sidecars);
            } else {
                let mut together = own;
                add(&mut together, &sidecars);
                raise(&mut init_peak, &together);
            }
        }
        raise(&mut sum, &init_peak);
        if let Some(pod_level) = self.pod_level()
            && self.has_pod_level_requests()
            && !counting.without_pod_level
        {
            for (name, amount) in pod_level
                .iter()
                .filter(|(name, _)| is_pod_level_resource(name))
            {
                sum.insert(name.clone(), *amount);
            }
        }
        if let Some(overhead) = &self.spec.overhead {
            add(&mut sum, overhead);
        }
        sum
    }

    fn container(
        &self,
        container: &ContainerResources,
        counting: Counting,
        with_status: bool,
    ) -> ResourceMap {
        let spec = container
            .resources
            .as_ref()
            .and_then(|r| r.requests.as_ref());
        let mut requests = match with_status
            .then(|| self.status_of(&container.name))
            .flatten()
        {
            Some(status) if status.resources.is_some() => {
                let mut most = ResourceMap::new();
                if let (Some(map), false) = (spec, self.resize_is_infeasible()) {
                    raise(&mut most, map);
                }
                if let Some(map) = status.resources.as_ref().and_then(|r| r.requests.as_ref()) {
                    raise(&mut most, map);
                }
                if let Some(map) = &status.allocated_resources {
                    raise(&mut most, map);
                }
                most
            }
            _ => spec.cloned().unwrap_or_default(),
        };
        if counting.missing_cpu {
            requests
                .entry(CPU.to_owned())
                .or_insert(Quantity::from_milli(DEFAULT_CPU_MILLI));
        }
        if counting.missing_memory {
            requests
                .entry(MEMORY.to_owned())
                .or_insert(Quantity::from_units(DEFAULT_MEMORY));
        }
        requests
    }

    fn status_of(&self, name: &str) -> Option<&ContainerStatusResources> {
        let of = |list: &'_ Option<Vec<ContainerStatusResources>>| -> Option<usize> {
            list.as_ref()?.iter().rposition(|s| s.name == name)
        };
        if let Some(at) = of(&self.status.init_container_statuses) {
            return self.status.init_container_statuses.as_ref()?.get(at);
        }
        let at = of(&self.status.container_statuses)?;
        self.status.container_statuses.as_ref()?.get(at)
    }

    fn resize_is_infeasible(&self) -> bool {
        self.status
            .conditions
            .iter()
            .flatten()
            .any(|c| c.kind == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"))
    }

    /// What the pod takes from its node once it is placed there: really, and as scoring counts it.
    pub fn placed(&self) -> (Totals, Totals) {
        let with_status = Counting {
            with_status: true,
            ..Counting::default()
        };
        let real = self.requests(with_status);
        let pod_level = self.has_pod_level_requests();
        let missing_cpu = !pod_level || !real.contains_key(CPU);
        let missing_memory = !pod_level || !real.contains_key(MEMORY);
        let nonzero = self.requests(Counting {
            with_status: true,
            missing_cpu,
            missing_memory,
            without_pod_level: false,
        });
        (Totals::of(&real), Totals::of(&nonzero))
    }
}

impl Totals {
    pub fn of(map: &ResourceMap) -> Self {
        let mut totals = Self::default();
        for (name, amount) in map {
            match name.as_str() {
                CPU => totals.cpu_milli = amount.milli_value(),
                MEMORY => totals.memory = amount.value(),
                EPHEMERAL_STORAGE => totals.ephemeral_storage = amount.value(),
                other if is_scalar_resource(other) => {
                    totals.others.push((other.to_owned(), amount.value()));
                }
                _ => {}
            }
        }
        totals
    }
}

/// Extended resources (`example.com/gpu`), prefixed native ones, hugepages and attachable volumes.
pub fn is_scalar_resource(name: &str) -> bool {
    name.contains('/') || name.starts_with("hugepages-") || name.starts_with("attachable-volumes-")
}

/// `example.com/gpu`, as opposed to what Kubernetes itself names.
pub fn is_extended_resource(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

fn is_pod_level_resource(name: &str) -> bool {
    name == CPU || name == MEMORY || name.starts_with("hugepages-")
}

fn add(sum: &mut ResourceMap, more: &ResourceMap) {
    for (name, amount) in more {
        match sum.get_mut(name) {
            Some(total) => *total = total.plus(*amount),
            None => {
                sum.insert(name.clone(), *amount);
            }
        }
    }
}

fn raise(most: &mut ResourceMap, other: &ResourceMap) {
    for (name, amount) in other {
        match most.get_mut(name) {
            Some(top) if *top >= *amount => {}
            Some(top) => *top = *amount,
            None => {
                most.insert(name.clone(), *amount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sums() {
        let check = |spec: serde_json::Value,
                     cpu: i64,
                     memory: i64,
                     nonzero_cpu: i64,
                     nonzero_memory: i64| {
            let pod = PodResources::deserialize(&json!({ "spec": spec })).unwrap();
            let (real, nonzero) = pod.placed();
            let got = (
                real.cpu_milli,
                real.memory,
                nonzero.cpu_milli,
                nonzero.memory,
            );
            assert_eq!(got, (cpu, memory, nonzero_cpu, nonzero_memory), "{spec}");
        };
        let with = |cpu: &str, memory: &str| json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}});
        let sidecar =
            |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        check(
            json!({"containers": [{}, {}]}),
            0,
            0,
            200,
            2 * DEFAULT_MEMORY,
        );
        check(
            json!({"containers": [with("1", "1"), with("500m", "1Ki")]}),
            1500,
            1025,
            1500,
            1025,
        );
        // An init container runs beside the sidecars that started before it.
        check(
            json!({"containers": [with("1", "1")], "initContainers": [with("3", "1"), sidecar("1"), with("2500m", "1")]}),
            3500,
            1,
            3500,
            1 + DEFAULT_MEMORY,
        );
        check(
            json!({"containers": [with("1", "1")], "overhead": {"cpu": "10m"}}),
            1010,
            1,
            1010,
            1,
        );
        check(
            json!({"containers": [with("1", "1"), {}], "resources": {"requests": {"cpu": "4"}}}),
            4000,
            1,
            4000,
            1,
        );
    }

    #[test]
    fn allocated_counts_if_it_is_more() {
        let pod = |reason: &str| {
            PodResources::deserialize(&json!({
                "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "2"}}}]},
                "status": {
                    "containerStatuses": [{"name": "a", "resources": {"requests": {"cpu": "1"}}, "allocatedResources": {"cpu": "1500m"}}],
                    "conditions": [{"type": "PodResizePending", "reason": reason}],
                },
            }))
            .unwrap()
        };
        assert_eq!(pod("Deferred").placed().0.cpu_milli, 2000);
        assert_eq!(pod("Infeasible").placed().0.cpu_milli, 1500);
    }
}

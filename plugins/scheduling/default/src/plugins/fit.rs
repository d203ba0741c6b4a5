//! NodeResourcesFit: enough room for the pod's requests, and a score by how much is left (or used) of it.

use serde::Deserialize;

use oarlock_model::pod_requests::{self as requests, Counting, PodResources, ResourceMap, Totals};

use crate::mirror::Mirror;
use crate::plugins::MAX_NODE_SCORE;

/// The best score in a shape of RequestedToCapacityRatio.
const MAX_SHAPE_SCORE: i64 = 10;
/// More extended resources than this in one pod share the last reason.
const MAX_SCALARS: usize = 56;

const TOO_MANY_PODS: u64 = 1;
const CPU: u64 = 1 << 1;
const MEMORY: u64 = 1 << 2;
const EPHEMERAL: u64 = 1 << 3;
const FIRST_SCALAR: usize = 4;
/// The node is too small even when it is empty.
const UNRESOLVABLE: u64 = 1 << 63;

/// NodeResourcesFitArgs
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Args {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    #[serde(default)]
    pub ignored_resources: Vec<String>,
    #[serde(default)]
    pub ignored_resource_groups: Vec<String>,
    pub scoring_strategy: Option<ScoringStrategy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScoringStrategy {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub resources: Vec<WeightedResource>,
    pub requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedResource {
    pub name: String,
    #[serde(default = "one")]
    pub weight: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    pub shape: Vec<Point>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    pub utilization: i64,
    pub score: i64,
}

fn one() -> i64 {
    1
}

pub fn default_resources() -> Vec<WeightedResource> {
    [requests::CPU, requests::MEMORY]
        .map(|name| WeightedResource {
            name: name.to_owned(),
            weight: 1,
        })
        .into()
}

/// A resource, by where the mirror keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Cpu,
    Memory,
    EphemeralStorage,
    Scalar(String),
}

impl Resource {
    pub fn named(name: &str) -> Self {
        match name {
            requests::CPU => Self::Cpu,
            requests::MEMORY => Self::Memory,
            requests::EPHEMERAL_STORAGE => Self::EphemeralStorage,
            other => Self::Scalar(other.to_owned()),
        }
    }

    pub fn is_scalar(&self) -> bool {
        matches!(self, Self::Scalar(_))
    }

    /// Allocatable and used by slot; `nonzero`: with amounts for containers that request none.
    pub fn columns<'a>(&self, mirror: &'a Mirror, nonzero: bool) -> (&'a [i64], &'a [i64]) {
        let used = |real: &'a Vec<i64>, raised: &'a Vec<i64>| if nonzero { raised } else { real };
        match self {
            Self::Cpu => (
                &mirror.allocatable_cpu,
                used(&mirror.used_cpu, &mirror.nonzero_cpu),
            ),
            Self::Memory => (
                &mirror.allocatable_memory,
                used(&mirror.used_memory, &mirror.nonzero_memory),
            ),
            Self::EphemeralStorage => (&mirror.allocatable_ephemeral, &mirror.used_ephemeral),
            Self::Scalar(name) => mirror
                .scalar(name)
                .map_or((&[], &[]), |s| (&s.allocatable, &s.used)),
        }
    }
}

/// One resource of a pod beside the nodes' columns of it.
pub struct Column<'a> {
    allocatable: &'a [i64],
    used: &'a [i64],
    pub request: i64,
    pub weight: i64,
}

impl<'a> Column<'a> {
    pub fn new(
        resource: &Resource,
        mirror: &'a Mirror,
        nonzero: bool,
        request: i64,
        weight: i64,
    ) -> Self {
        let (allocatable, used) = resource.columns(mirror, nonzero);
        Self {
            allocatable,
            used,
            request,
            weight,
        }
    }

    /// Allocatable and used on a node.
    #[inline]
    pub fn of_node(&self, slot: usize) -> (i64, i64) {
        let at = |column: &[i64]| column.get(slot).copied().unwrap_or(0);
        (at(self.allocatable), at(self.used))
    }
}

pub fn amount_of(map: &ResourceMap, resource: &Resource) -> i64 {
    let (name, milli) = match resource {
        Resource::Cpu => (requests::CPU, true),
        Resource::Memory => (requests::MEMORY, false),
        Resource::EphemeralStorage => (requests::EPHEMERAL_STORAGE, false),
        Resource::Scalar(name) => (name.as_str(), false),
    };
    map.get(name)
        .map_or(0, |q| if milli { q.milli_value() } else { q.value() })
}

#[derive(Debug)]
enum Strategy {
    Least,
    Most,
    Ratio(Vec<(i64, i64)>),
}

#[derive(Debug)]
pub struct Config {
    ignored: Vec<String>,
    ignored_groups: Vec<String>,
    strategy: Strategy,
    resources: Vec<(Resource, i64)>,
}

impl Config {
    pub fn new(args: &Args) -> Result<Self, String> {
        let none = ScoringStrategy::default();
        let given = args.scoring_strategy.as_ref().unwrap_or(&none);
        let strategy = match given.kind.as_str() {
            "" | "LeastAllocated" => Strategy::Least,
            "MostAllocated" => Strategy::Most,
            "RequestedToCapacityRatio" => {
                Strategy::Ratio(shape(given.requested_to_capacity_ratio.as_ref())?)
            }
            other => {
                return Err(format!(
                    "scoringStrategy.type: {other:?} is none of LeastAllocated, MostAllocated, RequestedToCapacityRatio"
                ));
            }
        };
        let resources = if given.resources.is_empty() {
            default_resources()
        } else {
            given.resources.clone()
        };
        if let Some(bad) = resources.iter().find(|r| !(1..=100).contains(&r.weight)) {
            return Err(format!(
                "scoringStrategy.resources[{}].weight: must be 1 to 100",
                bad.name
            ));
        }
        Ok(Self {
            ignored: args.ignored_resources.clone(),
            ignored_groups: args.ignored_resource_groups.clone(),
            strategy,
            resources: resources
                .iter()
                .map(|r| (Resource::named(&r.name), r.weight))
                .collect(),
        })
    }

    fn ignores(&self, name: &str) -> bool {
        requests::is_extended_resource(name)
            && (self.ignored.iter().any(|i| i == name)
                || name
                    .split_once('/')
                    .is_some_and(|(group, _)| self.ignored_groups.iter().any(|g| g == group)))
    }
}

fn shape(ratio: Option<&Ratio>) -> Result<Vec<(i64, i64)>, String> {
    let points = ratio.map(|r| r.shape.as_slice()).unwrap_or_default();
    if points.is_empty() {
        return Err("requestedToCapacityRatio.shape: at least one point is needed".to_owned());
    }
    if points
        .iter()
        .any(|p| !(0..=100).contains(&p.utilization) || !(0..=MAX_SHAPE_SCORE).contains(&p.score))
    {
        return Err(
            "requestedToCapacityRatio.shape: utilization is 0 to 100, score is 0 to 10".to_owned(),
        );
    }
    if points
        .windows(2)
        .any(|pair| pair[0].utilization >= pair[1].utilization)
    {
        return Err("requestedToCapacityRatio.shape: utilization must grow".to_owned());
    }
    Ok(points
        .iter()
        .map(|p| (p.utilization, p.score * (MAX_NODE_SCORE / MAX_SHAPE_SCORE)))
        .collect())
}

#[derive(Debug)]
pub struct Fit {
    want: Totals,
    /// Extended resources that are wanted and not ignored.
    scalars: Vec<(String, i64)>,
    /// The resources that are scored, their weights, and what the pod requests of them.
    scored: Vec<(Resource, i64, i64)>,
}

impl Fit {
    pub fn new(config: &Config, pod: &PodResources) -> Self {
        let want = Totals::of(&pod.requests(Counting::default()));
        // Upstream's score of this plugin does not look at pod-level requests, though its filter does.
        let counting = Counting {
            with_status: true,
            missing_cpu: true,
            missing_memory: true,
            without_pod_level: true,
        };
        let scored = pod.requests(counting);
        let scalars = want
            .others
            .iter()
            .filter(|(name, amount)| *amount > 0 && !config.ignores(name));
        let amounts = config
            .resources
            .iter()
            .map(|(r, weight)| (r.clone(), *weight, amount_of(&scored, r)));
        Self {
            scalars: scalars.cloned().collect(),
            scored: amounts
                .filter(|(resource, _, amount)| *amount != 0 || !resource.is_scalar())
                .collect(),
            want,
        }
    }

    /// What the pod wants, beside the nodes' columns of it.
    pub fn needs<'a>(&self, mirror: &'a Mirror) -> Needs<'a> {
        let one = |bit: u64, resource: &Resource, want: i64| {
            (bit, Column::new(resource, mirror, false, want, 1))
        };
        let plain = [
            (CPU, Resource::Cpu, self.want.cpu_milli),
            (MEMORY, Resource::Memory, self.want.memory),
            (
                EPHEMERAL,
                Resource::EphemeralStorage,
                self.want.ephemeral_storage,
            ),
        ];
        let plain = plain.iter().map(|(bit, r, want)| one(*bit, r, *want));
        let scalars = self.scalars.iter().enumerate().map(|(at, (name, want))| {
            let bit = 1 << (FIRST_SCALAR + at.min(MAX_SCALARS));
            one(bit, &Resource::Scalar(name.clone()), *want)
        });
        Needs {
            used_pods: &mirror.used_pods,
            allocatable_pods: &mirror.allocatable_pods,
            wants: plain
                .chain(scalars)
                .filter(|(_, column)| column.request > 0)
                .collect(),
        }
    }

    /// The reasons for the bits of `missing`, and whether eviction cannot help.
    pub fn reasons(&self, missing: u64) -> (Vec<String>, bool) {
        let mut reasons = Vec::new();
        if missing & TOO_MANY_PODS != 0 {
            reasons.push("Too many pods".to_owned());
        }
        for (bit, name) in [
            (CPU, requests::CPU),
            (MEMORY, requests::MEMORY),
            (EPHEMERAL, requests::EPHEMERAL_STORAGE),
        ] {
            if missing & bit != 0 {
                reasons.push(format!("Insufficient {name}"));
            }
        }
        for (at, (name, _)) in self.scalars.iter().enumerate() {
            if missing & (1 << (FIRST_SCALAR + at.min(MAX_SCALARS))) != 0 {
                reasons.push(format!("Insufficient {name}"));
            }
        }
        (reasons, missing & UNRESOLVABLE != 0)
    }

    pub fn columns<'a>(&self, mirror: &'a Mirror) -> Vec<Column<'a>> {
        let scored = self.scored.iter();
        scored
            .map(|(resource, weight, request)| {
                Column::new(resource, mirror, true, *request, *weight)
            })
            .collect()
    }

    #[inline]
    pub fn score(config: &Config, columns: &[Column<'_>], slot: usize) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for column in columns {
            let (allocatable, used) = column.of_node(slot);
            if allocatable == 0 {
                continue;
            }
            let after = used.wrapping_add(column.request);
            let score = match &config.strategy {
                Strategy::Least if after > allocatable => 0,
                Strategy::Least => share(allocatable.wrapping_sub(after), allocatable),
                Strategy::Most => share(after.min(allocatable), allocatable),
                Strategy::Ratio(points) if after > allocatable => on_line(points, MAX_NODE_SCORE),
                Strategy::Ratio(points) => on_line(points, share(after, allocatable)),
            };
            if matches!(config.strategy, Strategy::Ratio(_)) && score <= 0 {
                continue;
            }
            sum += score * column.weight;
            weights += column.weight;
        }
        match (&config.strategy, weights) {
            (_, 0) => 0,
            (Strategy::Ratio(_), _) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }
}

/// A pod's wants, ready to be held against nodes.
pub struct Needs<'a> {
    used_pods: &'a [i64],
    allocatable_pods: &'a [i64],
    /// Only of what is wanted.
    wants: Vec<(u64, Column<'a>)>,
}

impl Needs<'_> {
    /// What is missing, as bits; 0 if the pod fits.
    #[inline]
    pub fn missing(&self, slot: usize) -> u64 {
        let mut missing = 0;
        if self.used_pods[slot] + 1 > self.allocatable_pods[slot] {
            missing |= TOO_MANY_PODS;
        }
        for (bit, column) in &self.wants {
            let (allocatable, used) = column.of_node(slot);
            if column.request > allocatable.wrapping_sub(used) {
                let never = column.request > allocatable;
                missing |= bit | if never { UNRESOLVABLE } else { 0 };
            }
        }
        missing
    }
}

/// `part * 100 / whole`, wrapping around as upstream's arithmetic does when amounts are absurd.
#[inline]
fn share(part: i64, whole: i64) -> i64 {
    part.wrapping_mul(MAX_NODE_SCORE).wrapping_div(whole)
}

/// The value at `x` of the line through the points, level at both ends.
fn on_line(points: &[(i64, i64)], x: i64) -> i64 {
    let Some(at) = points.iter().position(|(px, _)| x <= *px) else {
        return points.last().map_or(0, |p| p.1);
    };
    let (x1, y1) = points[at];
    match at.checked_sub(1).map(|before| points[before]) {
        None => y1,
        Some((x0, y0)) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let points = [(0, 0), (50, 100), (100, 20)];
        for (x, y) in [(0, 0), (25, 50), (50, 100), (75, 60), (100, 20)] {
            assert_eq!(on_line(&points, x), y, "{x}");
        }
        assert_eq!(on_line(&[(20, 30)], 10), 30);
        assert_eq!(on_line(&[(20, 30)], 90), 30);
    }

    #[test]
    fn arguments_are_checked() {
        let check = |args: &str, ok: bool| {
            let result = serde_json::from_str::<Args>(args)
                .map_err(|e| e.to_string())
                .and_then(|a| Config::new(&a));
            assert_eq!(result.is_ok(), ok, "{args}");
        };
        check("{}", true);
        check(
            r#"{"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 3}]}}"#,
            true,
        );
        check(r#"{"scoringStrategy": {"type": "Most"}}"#, false);
        check(
            r#"{"scoringStrategy": {"type": "RequestedToCapacityRatio"}}"#,
            false,
        );
        check(
            r#"{"scoringStrategy": {"resources": [{"name": "cpu", "weight": 0}]}}"#,
            false,
        );
        check(r#"{"ignored": []}"#, false);
    }
}

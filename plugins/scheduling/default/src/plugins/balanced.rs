//! NodeResourcesBalancedAllocation: prefers nodes on which the pod evens out how much of each resource is used.

use serde::Deserialize;

use oarlock_model::pod_requests::{Counting, PodResources};

use crate::mirror::Mirror;
use crate::plugins::MAX_NODE_SCORE;
use crate::plugins::fit::{Column, Resource, WeightedResource, amount_of, default_resources};

/// NodeResourcesBalancedAllocationArgs
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Args {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    #[serde(default)]
    pub resources: Vec<WeightedResource>,
}

#[derive(Debug)]
pub struct Config {
    resources: Vec<Resource>,
}

impl Config {
    pub fn new(args: &Args) -> Result<Self, String> {
        let resources = if args.resources.is_empty() {
            default_resources()
        } else {
            args.resources.clone()
        };
        if let Some(bad) = resources.iter().find(|r| r.weight != 1) {
            return Err(format!("resources[{}].weight: must be 1", bad.name));
        }
        Ok(Self {
            resources: resources.iter().map(|r| Resource::named(&r.name)).collect(),
        })
    }
}

/// The resources that count for the pod, with the pod's requests of them.
#[derive(Debug)]
pub struct Balanced(Vec<(Resource, i64)>);

impl Balanced {
    pub fn new(config: &Config, pod: &PodResources) -> Self {
        let requests = pod.requests(Counting {
            with_status: true,
            ..Counting::default()
        });
        let amounts = config
            .resources
            .iter()
            .map(|r| (r.clone(), amount_of(&requests, r)));
        Self(
            amounts
                .filter(|(resource, amount)| *amount != 0 || !resource.is_scalar())
                .collect(),
        )
    }

    /// A pod that requests none of the resources is not scored.
    pub fn scores(&self) -> bool {
        self.0.iter().any(|(_, amount)| *amount != 0)
    }

    pub fn columns<'a>(&self, mirror: &'a Mirror) -> Vec<Column<'a>> {
        let requests = self.0.iter();
        requests
            .map(|(resource, request)| Column::new(resource, mirror, false, *request, 1))
            .collect()
    }

    #[inline]
    pub fn score(columns: &[Column<'_>], slot: usize) -> i64 {
        let (mut with, mut without) = (Fractions::default(), Fractions::default());
        for column in columns {
            let (allocatable, used) = column.of_node(slot);
            if allocatable == 0 {
                continue;
            }
            with.push(used.wrapping_add(column.request) as f64 / allocatable as f64);
            without.push(used as f64 / allocatable as f64);
        }
        (MAX_NODE_SCORE + MAX_NODE_SCORE / 2 + with.evenness() - without.evenness()) / 2
    }
}

/// Used fractions of resources. The first two are kept apart, since two is the usual number.
#[derive(Default)]
struct Fractions {
    count: usize,
    first: [f64; 2],
    more: Vec<f64>,
}

impl Fractions {
    fn push(&mut self, fraction: f64) {
        // `min` would be a call: WebAssembly's own treats NaN otherwise.
        let fraction = if fraction > 1.0 { 1.0 } else { fraction };
        match self.first.get_mut(self.count) {
            Some(place) => *place = fraction,
            None => self.more.push(fraction),
        }
        self.count += 1;
    }

    /// 100 less the standard deviation in hundredths.
    fn evenness(&self) -> i64 {
        let deviation = match self.count {
            0 | 1 => 0.0,
            2 => ((self.first[0] - self.first[1]) / 2.0).abs(),
            count => {
                let all = || self.first.iter().chain(&self.more);
                let mean = all().sum::<f64>() / count as f64;
                (all().map(|f| (f - mean) * (f - mean)).sum::<f64>() / count as f64).sqrt()
            }
        };
        ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
    }
}

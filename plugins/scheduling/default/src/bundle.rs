//! The bundle: one mirror, the configured plugins, and the open queries.
//!
//! Invariant: a query holds nothing of the mirror, so it stays true while the mirror changes.

use oarlock_model::pod_requests::PodResources;

use crate::api::{NO_NODE, Nodes, Opened, Usage, Verdict};
use crate::mirror::{Mirror, same};
use crate::objects::{Node, Pod};
use crate::plugins::affinity::{self, Affinity, Refusal};
use crate::plugins::balanced::{self, Balanced};
use crate::plugins::fit::{self, Fit};
use crate::plugins::images::Images;
use crate::plugins::ports::{self, Ports};
use crate::plugins::taints::{self, Taints};
use crate::plugins::{self as p, NAMES};
use crate::queue;

/// More different sets of missing resources than this in one query share the last code.
const MAX_MISSING: usize = (1 << 24) - 1;

#[derive(Debug)]
pub struct Bundle {
    mirror: Mirror,
    fit: fit::Config,
    balanced: balanced::Config,
    added_affinity: affinity::Added,
    queries: Vec<Option<Query>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Query {
    node_name: String,
    taints: Taints,
    affinity: Affinity,
    ports: Ports,
    fit: Fit,
    balanced: Balanced,
    images: Images,
    filters: Vec<u32>,
    scores: Vec<u32>,
    /// What NodeResourcesFit found missing, by number in its codes.
    missing: Vec<u64>,
}

impl Default for Bundle {
    fn default() -> Self {
        Self::new()
    }
}

impl Bundle {
    pub fn new() -> Self {
        Self {
            mirror: Mirror::default(),
            fit: fit::Config::new(&fit::Args::default()).expect("defaults are valid"),
            balanced: balanced::Config::new(&balanced::Args::default())
                .expect("defaults are valid"),
            added_affinity: affinity::Added::default(),
            queries: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Gives a plugin its arguments (JSON).
    pub fn configure(&mut self, plugin: u32, args: &str) -> Result<(), String> {
        let text = |e: serde_json::Error| e.to_string();
        match plugin {
            p::NODE_RESOURCES_FIT => {
                self.fit = fit::Config::new(&serde_json::from_str(args).map_err(text)?)?
            }
            p::BALANCED_ALLOCATION => {
                self.balanced = balanced::Config::new(&serde_json::from_str(args).map_err(text)?)?;
            }
            p::NODE_AFFINITY => {
                self.added_affinity =
                    affinity::Added::new(&serde_json::from_str(args).map_err(text)?);
            }
            _ if (plugin as usize) < NAMES.len() => {
                let map: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_str(args).map_err(text)?;
                if let Some(unknown) = map.keys().find(|k| *k != "apiVersion" && *k != "kind") {
                    return Err(format!(
                        "{} takes no argument {unknown:?}",
                        NAMES[plugin as usize]
                    ));
                }
            }
            _ => return Err(format!("there is no plugin {plugin}")),
        }
        Ok(())
    }

    /// A node that cannot be read is mirrored as one that has nothing.
    pub fn set_node(&mut self, slot: u32, name: &str, object: &str) {
        self.mirror.set_node(
            slot,
            name,
            serde_json::from_str::<Node>(object).unwrap_or_default(),
        );
    }

    pub fn remove_node(&mut self, slot: u32) {
        self.mirror.remove_node(slot);
    }

    pub fn set_usage(&mut self, slot: u32, usage: Usage) {
        self.mirror.set_usage(slot, usage);
    }

    pub fn pre_enqueue(&self, pod: &str, plugins: &[u32]) -> Option<Verdict> {
        if !plugins.contains(&p::SCHEDULING_GATES) {
            return None;
        }
        let pod: Pod = serde_json::from_str(pod).unwrap_or_default();
        let reason = queue::gates(&pod.spec)?;
        Some(Verdict {
            plugin: p::SCHEDULING_GATES,
            unresolvable: true,
            reasons: vec![reason],
        })
    }

    pub fn sort_key(&self, pod: &str, queued_at_ms: u64) -> (i64, u64) {
        let pod: Pod = serde_json::from_str(pod).unwrap_or_default();
        queue::sort_key(&pod.spec, queued_at_ms)
    }

    pub fn open(&mut self, pod: &str, plugins: &[u32]) -> Result<Opened, Verdict> {
        let refuse = |plugin: u32, reason: String| Verdict {
            plugin,
            unresolvable: true,
            reasons: vec![reason],
        };
        let anyone = plugins.first().copied().unwrap_or(p::NODE_RESOURCES_FIT);
        let unreadable = |e: serde_json::Error| refuse(anyone, format!("pod cannot be read: {e}"));
        let requests: PodResources = serde_json::from_str(pod).map_err(unreadable)?;
        let spec = serde_json::from_str::<Pod>(pod).map_err(unreadable)?.spec;
        let mut query = Query {
            taints: Taints::new(&spec.tolerations),
            affinity: Affinity::new(&spec),
            ports: Ports::new(&spec),
            fit: Fit::new(&self.fit, &requests),
            balanced: Balanced::new(&self.balanced, &requests),
            images: Images::new(&spec),
            node_name: spec.node_name,
            filters: Vec::new(),
            scores: Vec::new(),
            missing: Vec::new(),
        };
        query.filters = plugins
            .iter()
            .copied()
            .filter(|&plugin| query.filters_with(self, plugin))
            .collect();
        query.scores = plugins
            .iter()
            .copied()
            .filter(|&plugin| query.scores_with(self, plugin))
            .collect();
        let mut candidates = None;
        if plugins.contains(&p::NODE_AFFINITY)
            && let Some(names) = &query.affinity.names
        {
            if names.is_empty() {
                return Err(refuse(
                    p::NODE_AFFINITY,
                    affinity::CONFLICT_REASON.to_owned(),
                ));
            }
            candidates = Some((names.clone(), vec![p::NODE_AFFINITY]));
        }
        let (filters, scores) = (query.filters.clone(), query.scores.clone());
        let id = match self.free.pop() {
            Some(id) => {
                self.queries[id as usize - 1] = Some(query);
                id
            }
            None => {
                self.queries.push(Some(query));
                self.queries.len() as u32
            }
        };
        Ok(Opened {
            query: id,
            filters,
            scores,
            candidates,
        })
    }

    pub fn close(&mut self, query: u32) {
        if let Some(place) = self.queries.get_mut((query as usize).wrapping_sub(1))
            && place.take().is_some()
        {
            self.free.push(query);
        }
    }

    fn query(&self, id: u32) -> Option<&Query> {
        self.queries.get((id as usize).wrapping_sub(1))?.as_ref()
    }

    pub fn filter(&mut self, query: u32, nodes: Nodes<'_>) -> Vec<u32> {
        let Some(mut taken) = self
            .queries
            .get_mut((query as usize).wrapping_sub(1))
            .and_then(Option::take)
        else {
            return Vec::new();
        };
        let codes = match nodes {
            Nodes::All => taken.codes(self, 0..self.mirror.slots()),
            Nodes::Some(ids) => taken.codes(self, ids.iter().map(|&id| id as usize)),
        };
        self.queries[query as usize - 1] = Some(taken);
        codes
    }

    pub fn score(&self, query: u32, nodes: Nodes<'_>) -> Vec<i64> {
        let Some(query) = self.query(query) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for &plugin in &query.scores {
            match nodes {
                Nodes::All => query.score_into(self, plugin, 0..self.mirror.slots(), &mut out),
                Nodes::Some(ids) => {
                    query.score_into(self, plugin, ids.iter().map(|&id| id as usize), &mut out)
                }
            }
        }
        out
    }

    pub fn why(&self, query: u32, code: u32) -> Verdict {
        let plugin = (code >> 24).wrapping_sub(1);
        match self.query(query) {
            Some(query) => query.verdict(plugin, code & 0xff_ffff),
            None => Verdict {
                plugin: 0,
                unresolvable: false,
                reasons: Vec::new(),
            },
        }
    }

    pub fn explain(&mut self, query: u32, slot: u32) -> Vec<Verdict> {
        let Some(mut taken) = self
            .queries
            .get_mut((query as usize).wrapping_sub(1))
            .and_then(Option::take)
        else {
            return Vec::new();
        };
        let mut verdicts = Vec::new();
        if self
            .mirror
            .alive
            .get(slot as usize)
            .copied()
            .unwrap_or(false)
        {
            for plugin in taken.filters.clone() {
                if let Some(number) = taken.refuses(self, plugin, slot as usize) {
                    verdicts.push(taken.verdict(plugin, number));
                }
            }
        }
        self.queries[query as usize - 1] = Some(taken);
        verdicts
    }
}

impl Query {
    fn filters_with(&self, bundle: &Bundle, plugin: u32) -> bool {
        match plugin {
            p::NODE_UNSCHEDULABLE => !self.taints.may_use_unschedulable(),
            p::NODE_NAME => !self.node_name.is_empty(),
            p::TAINT_TOLERATION | p::NODE_RESOURCES_FIT => true,
            p::NODE_AFFINITY => self.affinity.filters(&bundle.added_affinity),
            p::NODE_PORTS => self.ports.filters(),
            _ => false,
        }
    }

    fn scores_with(&self, bundle: &Bundle, plugin: u32) -> bool {
        match plugin {
            p::TAINT_TOLERATION | p::NODE_RESOURCES_FIT | p::IMAGE_LOCALITY => true,
            p::NODE_AFFINITY => self.affinity.scores(&bundle.added_affinity),
            p::BALANCED_ALLOCATION => self.balanced.scores(),
            _ => false,
        }
    }

    /// A plugin at a time over all the nodes that those before it let pass.
    fn codes(&mut self, bundle: &Bundle, slots: impl Iterator<Item = usize> + Clone) -> Vec<u32> {
        let mirror = &bundle.mirror;
        let alive = |slot| mirror.alive.get(slot).copied().unwrap_or(false);
        let codes = slots
            .clone()
            .map(|slot| if alive(slot) { 0 } else { NO_NODE });
        let mut codes: Vec<u32> = codes.collect();
        let refusing = slots.clone();
        for plugin in self.filters.clone() {
            let slots = refusing.clone();
            match plugin {
                p::TAINT_TOLERATION => refuse(&mut codes, plugin, slots, |slot| {
                    (!mirror.taints[slot].is_empty() && !self.taints.fits(mirror, slot))
                        .then_some(0)
                }),
                p::NODE_RESOURCES_FIT => {
                    let needs = self.fit.needs(mirror);
                    let missing = &mut self.missing;
                    refuse(&mut codes, plugin, slots, |slot| {
                        let bits = needs.missing(slot);
                        (bits != 0).then(|| number(missing, bits))
                    });
                }
                _ => refuse(&mut codes, plugin, slots, |slot| {
                    self.refuses(bundle, plugin, slot)
                }),
            }
        }
        codes
    }

    /// The number of the refusal, if the plugin refuses the node.
    #[inline]
    fn refuses(&mut self, bundle: &Bundle, plugin: u32, slot: usize) -> Option<u32> {
        let mirror = &bundle.mirror;
        let refused = match plugin {
            p::NODE_UNSCHEDULABLE => mirror.unschedulable[slot],
            p::NODE_NAME => !same(&mirror.names[slot], &self.node_name),
            p::TAINT_TOLERATION => {
                !mirror.taints[slot].is_empty() && !self.taints.fits(mirror, slot)
            }
            p::NODE_PORTS => !self.ports.fits(mirror, slot),
            p::NODE_AFFINITY => {
                return self
                    .affinity
                    .refuses(&bundle.added_affinity, mirror, slot)
                    .map(|refusal| match refusal {
                        Refusal::OfPod => 0,
                        Refusal::OfProfile => 1,
                    });
            }
            p::NODE_RESOURCES_FIT => {
                let missing = self.fit.needs(mirror).missing(slot);
                return (missing != 0).then(|| number(&mut self.missing, missing));
            }
            _ => false,
        };
        refused.then_some(0)
    }

    fn score_into(
        &self,
        bundle: &Bundle,
        plugin: u32,
        slots: impl Iterator<Item = usize>,
        out: &mut Vec<i64>,
    ) {
        let mirror = &bundle.mirror;
        match plugin {
            p::IMAGE_LOCALITY => {
                let present = self.images.present(mirror);
                if present.is_empty() {
                    fill(mirror, slots, out, |_| 0);
                } else {
                    fill(mirror, slots, out, |slot| {
                        self.images.score(mirror, &present, slot)
                    });
                }
            }
            p::TAINT_TOLERATION => fill(mirror, slots, out, |slot| self.taints.score(mirror, slot)),
            p::NODE_AFFINITY => {
                fill(mirror, slots, out, |slot| {
                    self.affinity.score(&bundle.added_affinity, mirror, slot)
                });
            }
            p::NODE_RESOURCES_FIT => {
                let columns = self.fit.columns(mirror);
                fill(mirror, slots, out, |slot| {
                    Fit::score(&bundle.fit, &columns, slot)
                });
            }
            p::BALANCED_ALLOCATION => {
                let columns = self.balanced.columns(mirror);
                fill(mirror, slots, out, |slot| Balanced::score(&columns, slot));
            }
            _ => fill(mirror, slots, out, |_| 0),
        }
    }

    fn verdict(&self, plugin: u32, number: u32) -> Verdict {
        let one = |unresolvable: bool, reason: &str| Verdict {
            plugin,
            unresolvable,
            reasons: vec![reason.to_owned()],
        };
        match plugin {
            p::NODE_UNSCHEDULABLE => one(true, p::UNSCHEDULABLE_REASON),
            p::NODE_NAME => one(true, p::NODE_NAME_REASON),
            p::TAINT_TOLERATION => one(true, taints::REASON),
            p::NODE_AFFINITY if number == 1 => one(true, affinity::ENFORCED_REASON),
            p::NODE_AFFINITY => one(true, affinity::REASON),
            p::NODE_PORTS => one(false, ports::REASON),
            p::NODE_RESOURCES_FIT => {
                let missing = self.missing.get(number as usize).copied().unwrap_or(0);
                let (reasons, unresolvable) = self.fit.reasons(missing);
                Verdict {
                    plugin,
                    unresolvable,
                    reasons,
                }
            }
            _ => Verdict {
                plugin: 0,
                unresolvable: false,
                reasons: Vec::new(),
            },
        }
    }
}

/// The place of a set of missing resources among those of its query.
fn number(known: &mut Vec<u64>, missing: u64) -> u32 {
    if let Some(at) = known.iter().position(|m| *m == missing) {
        return at as u32;
    }
    if known.len() < MAX_MISSING {
        known.push(missing);
    }
    known.len() as u32 - 1
}

/// Asks a plugin about the nodes that nobody refused yet.
fn refuse(
    codes: &mut [u32],
    plugin: u32,
    slots: impl Iterator<Item = usize>,
    mut refuses: impl FnMut(usize) -> Option<u32>,
) {
    for (code, slot) in codes.iter_mut().zip(slots) {
        if *code == 0
            && let Some(number) = refuses(slot)
        {
            *code = (plugin + 1) << 24 | number;
        }
    }
}

/// A score for each slot; 0 where there is no node.
fn fill(
    mirror: &Mirror,
    slots: impl Iterator<Item = usize>,
    out: &mut Vec<i64>,
    score: impl Fn(usize) -> i64,
) {
    let alive = |slot: usize| mirror.alive.get(slot).copied().unwrap_or(false);
    out.extend(slots.map(|slot| if alive(slot) { score(slot) } else { 0 }));
}

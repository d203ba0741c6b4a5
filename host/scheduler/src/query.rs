//! A query: one shape of pod, opened with every member of a profile, and the answers for every slot, kept while nodes
//! change.
//!
//! Invariant: after `refresh`, codes, scores and ranking are what a fresh query would give. Answers for a slot are kept only
//! as long as every plugin says that they depend on nothing else that changed.

use std::collections::{BTreeMap, HashMap};

use oarlock_wasm::Error;
use oarlock_wasm::scheduler::{Events, NO_NODE, NodeSet, Normalization, Opened, Scope, Verdict};

use crate::member::Member;
use crate::ranking::Ranking;
use crate::score::normalized;
use crate::snapshot::{Slot, Snapshot};

/// A member failed: which, and how.
#[derive(Debug)]
pub struct Failed {
    pub member: usize,
    pub error: Error,
}

/// One member's part.
#[derive(Debug)]
struct Part {
    /// `None`: the member is left out.
    filter: Option<Opened>,
    /// `None`: the scores are asked by `filter`'s query.
    score: Option<Opened>,
    epoch: u64,
    objects_epoch: u64,
    filter_scope: Scope,
    score_scope: Scope,
    /// Places of this member's columns among all.
    columns: std::ops::Range<usize>,
}

/// The scores of one plugin.
#[derive(Debug)]
struct Column {
    member: usize,
    plugin: u32,
    weight: i64,
    normalization: Normalization,
    raw: Vec<i64>,
    /// The greatest raw score among feasible nodes, at least 0.
    greatest: i64,
}

/// A refusal of the pod on all nodes.
#[derive(Clone, Debug)]
pub struct Refused {
    pub member: usize,
    pub verdict: Verdict,
}

#[derive(Debug, Default)]
pub struct Query {
    parts: Vec<Part>,
    columns: Vec<Column>,
    refused: Option<Refused>,
    /// By slot: the first member to refuse, and its code; code 0: feasible.
    codes: Vec<(u8, u32)>,
    /// Slots left out since no plugin named them: by member.
    left_out: Vec<Option<u8>>,
    ranking: Ranking,
    /// Whether it was ever refreshed, and up to which stamp.
    is_filled: bool,
    cursor: u64,
    why: HashMap<(u8, u32), Verdict>,
    /// Slots whose answers were asked for, for metrics and tests.
    pub asked: u64,
}

/// Why a pod fits nowhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// Reasons and how many nodes have them.
    pub reasons: BTreeMap<String, usize>,
    /// Set if PreFilter refused the pod.
    pub prefilter: Option<String>,
    /// The plugins that refused, by name.
    pub plugins: Vec<String>,
    /// What may make it fit.
    pub wakes_on: Events,
}

impl Default for Diagnosis {
    fn default() -> Self {
        Self {
            reasons: BTreeMap::new(),
            prefilter: None,
            plugins: Vec::new(),
            wakes_on: Events::empty(),
        }
    }
}

impl Query {
    /// Compiles the pod with every member but `without`.
    #[expect(
        clippy::needless_range_loop,
        reason = "on failure all members are needed again"
    )]
    pub fn open(pod: &str, members: &mut [Member], without: Option<usize>) -> Result<Self, Failed> {
        let mut query = Self::default();
        for index in 0..members.len() {
            let part = if without == Some(index) {
                Part {
                    filter: None,
                    score: None,
                    epoch: members[index].epoch,
                    objects_epoch: members[index].objects_epoch,
                    filter_scope: Scope::NodeLocal,
                    score_scope: Scope::NodeLocal,
                    columns: query.columns.len()..query.columns.len(),
                }
            } else {
                match query
                    .open_part(pod, index, &mut members[index])
                    .map_err(|error| Failed {
                        member: index,
                        error,
                    })? {
                    Ok(part) => part,
                    Err(verdict) => {
                        query.refused = Some(Refused {
                            member: index,
                            verdict,
                        });
                        break;
                    }
                }
            };
            query.parts.push(part);
        }
        Ok(query)
    }

    fn open_part(
        &mut self,
        pod: &str,
        index: usize,
        member: &mut Member,
    ) -> Result<Result<Part, Verdict>, Error> {
        let (filtering, scoring) = (member.filtering(), member.scoring());
        // One query serves both if no plugin that is in it for one of the two takes part in the other.
        let mut both = filtering.clone();
        both.extend(scoring.iter().copied().filter(|p| !filtering.contains(p)));
        let decides = |p: &u32| member.filtering_points(*p);
        let is_shared = both.iter().all(|p| filtering.contains(p) || !decides(p));
        let filter = match member
            .engine
            .open(pod, if is_shared { &both } else { &filtering })?
        {
            Ok(opened) => opened,
            Err(verdict) => return Ok(Err(verdict)),
        };
        let score = match is_shared {
            true => None,
            false => match member.engine.open(pod, &scoring)? {
                Ok(opened) => Some(opened),
                Err(verdict) => return Ok(Err(verdict)),
            },
        };
        let start = self.columns.len();
        for &plugin in &score.as_ref().unwrap_or(&filter).scores {
            let info = &member.infos[plugin as usize];
            let weight = if scoring.contains(&plugin) {
                member.weight(plugin)
            } else {
                0
            };
            let normalization = info.normalization;
            self.columns.push(Column {
                member: index,
                plugin,
                weight,
                normalization,
                raw: Vec::new(),
                greatest: 0,
            });
        }
        Ok(Ok(Part {
            epoch: member.epoch,
            objects_epoch: member.objects_epoch,
            filter_scope: member.widest(&filter.filters, |info| info.filter_scope),
            score_scope: member.widest(&score.as_ref().unwrap_or(&filter).scores, |info| {
                info.score_scope
            }),
            columns: start..self.columns.len(),
            filter: Some(filter),
            score,
        }))
    }

    /// Whether every member still knows its part.
    pub fn is_known(&self, members: &[Member]) -> bool {
        self.parts
            .iter()
            .zip(members)
            .all(|(part, member)| part.epoch == member.epoch)
    }

    /// Frees the parts; members that have forgotten them are not asked.
    pub fn close(self, members: &mut [Member]) -> Result<(), Failed> {
        for (index, (part, member)) in self.parts.into_iter().zip(members).enumerate() {
            if part.epoch != member.epoch {
                continue;
            }
            for opened in part.filter.iter().chain(&part.score) {
                member.engine.close(opened.query).map_err(|error| Failed {
                    member: index,
                    error,
                })?;
            }
        }
        Ok(())
    }

    /// Brings all answers up to date. The members' mirrors must be in step with the snapshot.
    pub fn refresh(&mut self, members: &mut [Member], snapshot: &Snapshot) -> Result<(), Failed> {
        if self.refused.is_some() {
            return Ok(());
        }
        let is_fresh = !std::mem::replace(&mut self.is_filled, true);
        let slots = snapshot.slots();
        if self.codes.len() < slots {
            self.codes.resize(slots, (0, NO_NODE));
            self.left_out.resize(slots, None);
            for column in &mut self.columns {
                column.raw.resize(slots, 0);
            }
            self.ranking.grow(slots);
        }
        let mut filter_all = is_fresh;
        let mut score_all = is_fresh;
        for (part, member) in self.parts.iter_mut().zip(members.iter()) {
            let objects_changed = part.objects_epoch != member.objects_epoch;
            part.objects_epoch = member.objects_epoch;
            let is_void = |scope: Scope| match scope {
                Scope::NodeLocal => false,
                Scope::NodeObjects => objects_changed,
                Scope::ClusterWide => true,
            };
            filter_all |= is_void(part.filter_scope);
            score_all |= is_void(part.score_scope);
        }
        let mut dirty: Vec<Slot> = Vec::new();
        if filter_all {
            dirty.extend(0..slots as Slot);
        } else {
            snapshot.changed_since(self.cursor, |change| dirty.push(change.slot));
        }
        self.cursor = snapshot.stamp();
        if dirty.is_empty() && !score_all {
            return Ok(());
        }
        self.asked += dirty.len() as u64;
        let was_feasible: Vec<bool> = dirty
            .iter()
            .map(|&slot| self.is_feasible(slot as usize))
            .collect();
        self.filter(members, snapshot, &dirty)?;
        let to_score: Vec<Slot> = if score_all {
            (0..self.codes.len() as Slot)
                .filter(|&slot| self.is_feasible(slot as usize))
                .collect()
        } else {
            dirty
                .iter()
                .copied()
                .filter(|&slot| self.is_feasible(slot as usize))
                .collect()
        };
        let moved = self.score(members, &to_score, score_all, &dirty, &was_feasible)?;
        if moved || score_all {
            let totals: Vec<Option<i64>> =
                (0..self.codes.len()).map(|slot| self.total(slot)).collect();
            self.ranking.rebuild(totals.into_iter());
        } else {
            for &slot in &dirty {
                let total = self.total(slot as usize);
                self.ranking.set(slot as usize, total);
            }
        }
        Ok(())
    }

    fn is_feasible(&self, slot: usize) -> bool {
        self.codes[slot].1 == 0 && self.left_out[slot].is_none()
    }

    fn filter(
        &mut self,
        members: &mut [Member],
        snapshot: &Snapshot,
        dirty: &[Slot],
    ) -> Result<(), Failed> {
        let mut asked: Vec<Slot> = Vec::with_capacity(dirty.len());
        for &slot in dirty {
            if snapshot.node(slot).is_some() {
                self.codes[slot as usize] = (0, 0);
                self.left_out[slot as usize] = self.left_out_by(snapshot.name(slot));
                asked.push(slot);
            } else {
                self.codes[slot as usize] = (0, NO_NODE);
            }
        }
        for (index, (part, member)) in self.parts.iter().zip(members).enumerate() {
            let Some(opened) = part.filter.as_ref().filter(|o| !o.filters.is_empty()) else {
                continue;
            };
            if asked.is_empty() {
                break;
            }
            let set = NodeSet::Some(asked);
            let codes = member.engine.filter(opened, &set).map_err(|error| Failed {
                member: index,
                error,
            })?;
            let NodeSet::Some(nodes) = set else {
                unreachable!("made above")
            };
            asked = Vec::with_capacity(nodes.len());
            for (slot, code) in nodes.into_iter().zip(codes) {
                if code == 0 {
                    asked.push(slot);
                } else {
                    self.codes[slot as usize] = (index as u8, code);
                }
            }
        }
        Ok(())
    }

    /// The member whose candidates leave the node out.
    fn left_out_by(&self, name: &str) -> Option<u8> {
        let leaves_out = |part: &Part| {
            let candidates = part.filter.as_ref().and_then(|o| o.candidates.as_ref());
            candidates.is_some_and(|c| !c.nodes.iter().any(|n| n == name))
        };
        self.parts
            .iter()
            .position(leaves_out)
            .map(|index| index as u8)
    }

    /// Asks for scores; true if a greatest raw score moved, so that all totals have.
    fn score(
        &mut self,
        members: &mut [Member],
        slots: &[Slot],
        all: bool,
        dirty: &[Slot],
        was_feasible: &[bool],
    ) -> Result<bool, Failed> {
        // A column whose greatest score may have been at a dirty slot must be looked through again.
        let mut recheck = vec![false; self.columns.len()];
        for (&slot, _) in dirty.iter().zip(was_feasible).filter(|(_, was)| **was) {
            for (column, recheck) in self.columns.iter().zip(&mut recheck) {
                *recheck |= column.greatest > 0 && column.raw[slot as usize] >= column.greatest;
            }
        }
        if !slots.is_empty() {
            for (index, part) in self.parts.iter().enumerate() {
                let Some(opened) = part
                    .score
                    .as_ref()
                    .or(part.filter.as_ref())
                    .filter(|o| !o.scores.is_empty())
                else {
                    continue;
                };
                let set = NodeSet::Some(slots.to_vec());
                let scores = members[index]
                    .engine
                    .score(opened, &set)
                    .map_err(|error| Failed {
                        member: index,
                        error,
                    })?;
                for (column, scores) in self.columns[part.columns.clone()]
                    .iter_mut()
                    .zip(scores.chunks(slots.len()))
                {
                    for (slot, score) in slots.iter().zip(scores) {
                        column.raw[*slot as usize] = *score;
                    }
                }
            }
        }
        let mut moved = false;
        for (column, recheck) in self.columns.iter_mut().zip(recheck) {
            if column.normalization == Normalization::None {
                continue;
            }
            let of_new = slots
                .iter()
                .map(|s| column.raw[*s as usize])
                .max()
                .unwrap_or(0)
                .max(0);
            let greatest = if all {
                of_new
            } else if recheck && of_new < column.greatest {
                let feasible = self.codes.iter().zip(&self.left_out).zip(&column.raw);
                let raws = feasible
                    .filter(|((code, out), _)| code.1 == 0 && out.is_none())
                    .map(|(_, raw)| *raw);
                raws.max().unwrap_or(0).max(0)
            } else {
                column.greatest.max(of_new)
            };
            moved |= greatest != column.greatest;
            column.greatest = greatest;
        }
        Ok(moved)
    }

    /// The weighted total of a slot, if it is feasible.
    pub fn total(&self, slot: usize) -> Option<i64> {
        if !self.is_feasible(slot) {
            return None;
        }
        let mut total = 0i64;
        for column in &self.columns {
            let score = normalized(column.normalization, column.raw[slot], column.greatest);
            total = total.saturating_add(score.saturating_mul(column.weight));
        }
        // The least number means "not feasible" in the ranking.
        Some(total.max(i64::MIN + 1))
    }

    /// The first best slot at or after `start`, going round.
    pub fn best_from(&self, start: usize) -> Option<Slot> {
        if self.refused.is_some() {
            return None;
        }
        self.ranking.best_from(start).map(|slot| slot as Slot)
    }

    pub fn best_total(&self) -> Option<i64> {
        self.ranking.best_total()
    }

    /// By plugin: the weighted score of a feasible slot.
    pub fn scores_of(&self, slot: usize, members: &[Member]) -> Vec<(String, i64)> {
        let score = |c: &Column| {
            normalized(c.normalization, c.raw[slot], c.greatest).saturating_mul(c.weight)
        };
        self.columns
            .iter()
            .map(|c| (members[c.member].name_of(c.plugin).to_owned(), score(c)))
            .collect()
    }

    /// Why no slot is feasible.
    pub fn diagnose(
        &mut self,
        members: &mut [Member],
        snapshot: &Snapshot,
    ) -> Result<Diagnosis, Failed> {
        let mut diagnosis = Diagnosis::default();
        let mut events = Events::empty();
        let blame =
            |member: &Member, plugin: u32, diagnosis: &mut Diagnosis, events: &mut Events| {
                let name = member.name_of(plugin);
                if !diagnosis.plugins.iter().any(|p| p == name) {
                    diagnosis.plugins.push(name.to_owned());
                    *events |= member
                        .infos
                        .get(plugin as usize)
                        .map_or(Events::empty(), |info| info.wakes_on);
                }
            };
        if let Some(refused) = &self.refused {
            blame(
                &members[refused.member],
                refused.verdict.plugin,
                &mut diagnosis,
                &mut events,
            );
            diagnosis.prefilter = Some(refused.verdict.reasons.join(", "));
            diagnosis.wakes_on = events;
            return Ok(diagnosis);
        }
        let mut counts: HashMap<(u8, u32), usize> = HashMap::new();
        for slot in 0..self.codes.len() {
            if snapshot.node(slot as Slot).is_none() {
                continue;
            }
            if let Some(member) = self.left_out[slot] {
                let part = &self.parts[usize::from(member)];
                let member = &members[usize::from(member)];
                let candidates = part.filter.as_ref().and_then(|o| o.candidates.as_ref());
                let plugins = candidates.map(|c| c.plugins.as_slice()).unwrap_or_default();
                let mut names: Vec<&str> = plugins.iter().map(|p| member.name_of(*p)).collect();
                names.sort_unstable();
                for plugin in plugins {
                    blame(member, *plugin, &mut diagnosis, &mut events);
                }
                let reason = format!("node(s) didn't satisfy plugin(s) [{}]", names.join(" "));
                *diagnosis.reasons.entry(reason).or_default() += 1;
            } else if self.codes[slot].1 != 0 {
                *counts.entry(self.codes[slot]).or_default() += 1;
            }
        }
        for ((index, code), nodes) in counts {
            let member = &mut members[usize::from(index)];
            let verdict = match self.why.get(&(index, code)) {
                Some(verdict) => verdict,
                None => {
                    let part = self.parts[usize::from(index)].filter.as_ref();
                    let query = part.map_or(0, |opened| opened.query);
                    let verdict = member.engine.why(query, code);
                    let verdict = verdict.map_err(|error| Failed {
                        member: usize::from(index),
                        error,
                    })?;
                    self.why.entry((index, code)).or_insert(verdict)
                }
            };
            blame(member, verdict.plugin, &mut diagnosis, &mut events);
            for reason in &verdict.reasons {
                *diagnosis.reasons.entry(reason.clone()).or_default() += nodes;
            }
        }
        diagnosis.plugins.sort_unstable();
        diagnosis.wakes_on = events;
        Ok(diagnosis)
    }
}

impl Diagnosis {
    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).`
    pub fn message(&self, nodes: usize) -> String {
        if nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut message = format!("0/{nodes} nodes are available:");
        if let Some(prefilter) = &self.prefilter {
            message.push_str(&format!(" {prefilter}."));
        } else if !self.reasons.is_empty() {
            let mut parts: Vec<String> = self
                .reasons
                .iter()
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect();
            parts.sort_unstable();
            message.push_str(&format!(" {}.", parts.join(", ")));
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let check =
            |nodes: usize, prefilter: Option<&str>, reasons: &[(&str, usize)], expect: &str| {
                let diagnosis = Diagnosis {
                    prefilter: prefilter.map(str::to_owned),
                    reasons: reasons.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect(),
                    ..Diagnosis::default()
                };
                assert_eq!(diagnosis.message(nodes), expect);
            };
        check(0, None, &[], "no nodes available to schedule pods");
        check(
            13,
            None,
            &[
                ("node(s) had untolerated taint(s)", 2),
                ("Insufficient cpu", 11),
            ],
            "0/13 nodes are available: 11 Insufficient cpu, 2 node(s) had untolerated taint(s).",
        );
        check(
            3,
            Some("pod affinity terms conflict"),
            &[],
            "0/3 nodes are available: pod affinity terms conflict.",
        );
    }
}

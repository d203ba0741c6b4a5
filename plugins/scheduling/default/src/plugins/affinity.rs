//! NodeAffinity: nodeSelector, required and preferred node affinity, and the affinity that a profile adds.

use serde::Deserialize;

use crate::mirror::Mirror;
use crate::objects::{self, PodSpec, PreferredTerm};
use crate::selector::{AnyTerm, Exactly, Term, is_empty, names_of};

pub const REASON: &str = "node(s) didn't match Pod's node affinity/selector";
pub const ENFORCED_REASON: &str = "node(s) didn't match scheduler-enforced node affinity";
pub const CONFLICT_REASON: &str = "pod affinity terms conflict";

/// NodeAffinityArgs
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Args {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    pub added_affinity: Option<objects::NodeAffinity>,
}

/// What a profile adds to every pod.
#[derive(Debug, Default)]
pub struct Added {
    required: Option<AnyTerm>,
    preferred: Vec<(i64, Term)>,
}

impl Added {
    pub fn new(args: &Args) -> Self {
        let Some(affinity) = &args.added_affinity else {
            return Self::default();
        };
        Self {
            required: affinity
                .required
                .as_ref()
                .map(|r| AnyTerm::new(&r.node_selector_terms)),
            preferred: preferred(affinity.preferred.as_deref().unwrap_or_default()),
        }
    }
}

fn preferred(terms: &[PreferredTerm]) -> Vec<(i64, Term)> {
    terms
        .iter()
        .filter(|t| t.weight != 0 && !is_empty(&t.preference))
        .filter_map(|t| Some((t.weight, Term::new(&t.preference)?)))
        .collect()
}

#[derive(Debug)]
pub struct Affinity {
    selector: Option<Exactly>,
    required: Option<AnyTerm>,
    preferred: Option<Vec<(i64, Term)>>,
    /// The only names that can match, if the terms say so.
    pub names: Option<Vec<String>>,
}

/// Which refusal of a node it is.
pub enum Refusal {
    OfPod,
    OfProfile,
}

impl Affinity {
    pub fn new(spec: &PodSpec) -> Self {
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|a| a.node_affinity.as_ref());
        let required = affinity
            .and_then(|a| a.required.as_ref())
            .map(|r| r.node_selector_terms.as_slice());
        Self {
            selector: spec.node_selector.as_ref().map(Exactly::new),
            names: required
                .filter(|terms| !terms.is_empty())
                .and_then(names_of),
            required: required.map(AnyTerm::new),
            preferred: affinity.and_then(|a| a.preferred.as_deref()).map(preferred),
        }
    }

    pub fn filters(&self, added: &Added) -> bool {
        self.selector.is_some() || self.required.is_some() || added.required.is_some()
    }

    pub fn scores(&self, added: &Added) -> bool {
        self.preferred.is_some() || !added.preferred.is_empty()
    }

    pub fn refuses(&self, added: &Added, mirror: &Mirror, slot: usize) -> Option<Refusal> {
        let (labels, name) = (&mirror.labels[slot], mirror.names[slot].as_str());
        if added
            .required
            .as_ref()
            .is_some_and(|r| !r.matches(labels, name))
        {
            return Some(Refusal::OfProfile);
        }
        let fits = self.selector.as_ref().is_none_or(|s| s.matches(labels))
            && self
                .required
                .as_ref()
                .is_none_or(|r| r.matches(labels, name));
        (!fits).then_some(Refusal::OfPod)
    }

    pub fn score(&self, added: &Added, mirror: &Mirror, slot: usize) -> i64 {
        let (labels, name) = (&mirror.labels[slot], mirror.names[slot].as_str());
        let own = self.preferred.iter().flatten().chain(&added.preferred);
        own.filter(|(_, term)| term.matches(labels, name))
            .map(|(weight, _)| weight)
            .sum()
    }
}

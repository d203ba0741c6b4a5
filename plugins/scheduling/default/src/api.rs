//! What the bundle is told and asked, as plain types in the shape of `wit/scheduler`. `component` turns them into the
//! contract's own, and natively they are used as they are.

/// A plugin's refusal of a node, or of a pod as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub plugin: u32,
    /// Evicting pods cannot help.
    pub unresolvable: bool,
    pub reasons: Vec<String>,
}

/// What the pods on a node use in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub pods: u32,
    pub cpu_milli: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub nonzero_cpu_milli: i64,
    pub nonzero_memory: i64,
    /// Extended resources and hugepages.
    pub others: Vec<(String, i64)>,
    pub ports: Vec<HostPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `0.0.0.0` for all addresses.
    pub ip: String,
    pub protocol: String,
    pub port: u16,
}

/// Which nodes are asked about.
#[derive(Clone, Copy, Debug)]
pub enum Nodes<'a> {
    All,
    Some(&'a [u32]),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub query: u32,
    pub filters: Vec<u32>,
    pub scores: Vec<u32>,
    /// The only nodes that can fit, and who said so.
    pub candidates: Option<(Vec<String>, Vec<u32>)>,
}

/// The answer of `filter` for a slot without a node.
pub const NO_NODE: u32 = u32::MAX;

//! A scheduling plugin that does whatever a plugin must not do, for tests of the host.
//!
//! `args` of the form `POINT=BEHAVIOUR` (a JSON string, several separated by commas) say what it does where; otherwise it
//! fits every pod on every node.

use oarlock_sdk::host;
use oarlock_sdk::scheduling::{
    Bundle, Change, Events, Interest, NO_NODE, NodeSet, Normalization, Opened, PluginInfo, Points,
    Scope, Source, Verdict, code,
};

/// The bundle.
pub struct Misbehaving {
    behaviours: Vec<(String, String)>,
    slots: u32,
    hoard: Vec<Vec<u8>>,
}

impl Misbehaving {
    /// Does what it was told to do at this point, and says whether to lie.
    fn at(&mut self, point: &str) -> Option<String> {
        let behaviour = self
            .behaviours
            .iter()
            .find(|(at, _)| at == point)?
            .1
            .clone();
        match behaviour.as_str() {
            "spin" => spin(),
            "panic" => panic!("told to panic in {point}"),
            "allocate" => loop {
                self.hoard.push(vec![1; 1 << 20]);
            },
            "recurse" => {
                std::hint::black_box(recurse(1));
            }
            "flood" => {
                for number in 0..10_000 {
                    host::info(&format!("{number} {}", "x".repeat(20_000)));
                }
            }
            "overflow" => {
                let empty: &[u32] = std::hint::black_box(&[]);
                std::hint::black_box(empty[self.slots as usize]);
            }
            _ => {}
        }
        Some(behaviour)
    }
}

fn spin() -> ! {
    let mut number = 1_u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(3));
    }
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + frame[(depth % 64) as usize]
}

impl Bundle for Misbehaving {
    fn new() -> Self {
        Self {
            behaviours: Vec::new(),
            slots: 0,
            hoard: Vec::new(),
        }
    }

    fn interests(&mut self) -> Vec<Interest> {
        self.at("interests");
        vec![Interest {
            source: Source::Nodes,
            pointers: vec!["/metadata/name".to_owned()],
        }]
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            if let Change::NodeSet(node) = change {
                self.slots = self.slots.max(node.id + 1);
            }
        }
        self.at("apply");
    }

    fn plugins(&mut self) -> Vec<PluginInfo> {
        vec![PluginInfo {
            name: "Misbehaving".to_owned(),
            points: Points::FILTER | Points::SCORE,
            filter_scope: Scope::NodeLocal,
            score_scope: Scope::NodeLocal,
            normalization: Normalization::None,
            default_weight: 1,
            wakes_on: Events::empty(),
        }]
    }

    fn configure(&mut self, _plugin: u32, args: &str) -> Result<(), String> {
        let text: String = serde_json::from_str(args).unwrap_or_default();
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        self.behaviours = pairs
            .map(|(point, behaviour)| (point.to_owned(), behaviour.to_owned()))
            .collect();
        match self.at("configure").as_deref() {
            Some("refuse") => Err("told to refuse".to_owned()),
            _ => Ok(()),
        }
    }

    fn open(&mut self, _pod: &str, plugins: &[u32]) -> Result<Opened, Verdict> {
        let lie = self.at("open");
        let filters = if lie.as_deref() == Some("stranger") {
            vec![7]
        } else {
            plugins.to_vec()
        };
        let query = if lie.as_deref() == Some("zero") { 0 } else { 1 };
        Ok(Opened {
            query,
            filters,
            scores: plugins.to_vec(),
            candidates: None,
        })
    }

    fn filter(&mut self, _query: u32, nodes: NodeSet) -> Vec<u32> {
        let asked = match nodes {
            NodeSet::All => self.slots as usize,
            NodeSet::Some(ids) => ids.len(),
        };
        match self.at("filter").as_deref() {
            Some("short") => vec![0; asked.saturating_sub(1)],
            Some("long") => vec![0; asked + 1],
            Some("huge") => vec![0; 40 << 20],
            Some("stranger") => vec![code(9, 1); asked],
            Some("garbage") => vec![0x00ff_ffff; asked],
            Some("refuse") => vec![code(0, 1); asked],
            Some("nobody") => vec![NO_NODE; asked],
            Some("clock") => vec![code(0, host::now_ms() as u32); asked],
            Some("random") => vec![code(0, host::random() as u32); asked],
            _ => vec![0; asked],
        }
    }

    fn score(&mut self, _query: u32, nodes: NodeSet) -> Vec<i64> {
        let asked = match nodes {
            NodeSet::All => self.slots as usize,
            NodeSet::Some(ids) => ids.len(),
        };
        match self.at("score").as_deref() {
            Some("short") => Vec::new(),
            Some("huge") => vec![i64::MAX; asked],
            _ => vec![1; asked],
        }
    }

    fn why(&mut self, _query: u32, _code: u32) -> Verdict {
        let plugin = if self.at("why").as_deref() == Some("stranger") {
            3
        } else {
            0
        };
        Verdict {
            plugin,
            unresolvable: false,
            reasons: vec!["told to refuse".to_owned()],
        }
    }

    fn explain(&mut self, query: u32, _node: u32) -> Vec<Verdict> {
        vec![self.why(query, 0)]
    }

    fn close(&mut self, _query: u32) {
        self.at("close");
    }
}

oarlock_sdk::export_bundle!(Misbehaving);

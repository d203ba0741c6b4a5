//! An admission policy that does whatever a policy must not do, for tests of the host.
//!
//! `args` (a JSON string) of the form `CALL=BEHAVIOUR`, several separated by commas, say what it does where; otherwise it
//! accepts everything. Behaviours that need an object are had by naming them in its annotation `behave`, as `args` would.

use oarlock_sdk::admission::{Cause, Denial, Description, Patch, Policy, Request, Rule};
use oarlock_sdk::host;
use serde_json::json;

/// The policy.
#[derive(Debug, Default)]
pub struct Misbehaving {
    behaviours: String,
}

/// Does what it was told to do in this call, and says whether to lie.
fn behave(told: &str, call: &str) -> Option<String> {
    let pairs = told.split(',').filter_map(|pair| pair.split_once('='));
    let (_, behaviour) = pairs.into_iter().find(|(at, _)| *at == call)?;
    match behaviour {
        "spin" => loop {
            std::hint::black_box(call);
        },
        "panic" => panic!("told to panic in {call}"),
        "allocate" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 1 << 20]);
                std::hint::black_box(&hoard);
            }
        }
        "recurse" => {
            std::hint::black_box(recurse(1));
        }
        "flood" => (0..10_000).for_each(|line| host::info(&format!("{line}"))),
        _ => {}
    }
    Some(behaviour.to_owned())
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + frame[(depth % 64) as usize]
}

impl Misbehaving {
    fn told(&self, request: &Request, call: &str) -> Option<String> {
        behave(&self.behaviours, call).or_else(|| {
            let object = request.object_tree();
            let label = object.pointer("/metadata/annotations/behave")?;
            behave(label.as_str()?, call)
        })
    }
}

impl Policy for Misbehaving {
    fn describe(&self) -> Description {
        let lie = behave(&self.behaviours, "describe");
        let rules = match lie.as_deref() {
            Some("nothing") => Vec::new(),
            _ => vec![Rule::of("", &["configmaps"])],
        };
        Description {
            mutates: true,
            ..Description::validating("misbehaving", rules)
        }
    }

    fn configure(&mut self, args: &str) -> Result<(), String> {
        self.behaviours = serde_json::from_str(args).unwrap_or_default();
        match behave(&self.behaviours, "configure").as_deref() {
            Some("refuse") => Err("told to refuse".to_owned()),
            _ => Ok(()),
        }
    }

    fn mutate(&self, request: &Request) -> Result<Option<Patch>, Denial> {
        let patch = match self.told(request, "mutate").as_deref() {
            Some("mark") => Patch::merging(&json!({"metadata": {"labels": {"marked": "yes"}}})),
            Some("rename") => Patch::merging(&json!({"metadata": {"name": "stolen"}})),
            Some("move") => Patch::merging(&json!({"metadata": {"namespace": "kube-system"}})),
            Some("kind") => Patch::merging(&json!({"kind": "Secret"})),
            Some("type") => Patch::merging(&json!({"data": 5})),
            Some("garbage") => Patch::Merge("{".to_owned()),
            Some("wipe") => Patch::Merge("[]".to_owned()),
            Some("misses") => Patch::Json(
                json!([{"op": "replace", "path": "/spec/nothing/there", "value": 1}]).to_string(),
            ),
            Some("huge") => Patch::merging(&json!({"data": {"huge": "x".repeat(4 << 20)}})),
            _ => return Ok(None),
        };
        Ok(Some(patch))
    }

    fn validate(&self, request: &Request) -> Result<Vec<String>, Denial> {
        match self.told(request, "validate").as_deref() {
            Some("deny") => Err(Denial::new("told to deny").because("data", "no good")),
            Some("texts") => Err(Denial {
                causes: vec![
                    Cause {
                        field: "f".to_owned(),
                        message: "m".to_owned(),
                    };
                    10_000
                ],
                ..Denial::new("too much")
            }),
            Some("warn") => Ok(vec!["told to warn".to_owned()]),
            _ => Ok(Vec::new()),
        }
    }
}

oarlock_sdk::export_policy!(Misbehaving);

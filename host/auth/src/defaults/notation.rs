//! A short way to write rules down: `get list`, groups, resources, names, each a list of words.

use crate::Rule;

/// Words of verbs that stand for several.
const SHORT: [(&str, &str); 2] = [
    ("READ", "get list watch"),
    ("WRITE", "create delete deletecollection patch update"),
];
/// The core API group, which has no name.
const CORE: &str = "core";

/// What a rule says, in words separated by spaces.
#[derive(Clone, Copy, Debug)]
pub enum Grant {
    /// Verbs, groups, resources.
    On(&'static str, &'static str, &'static str),
    /// Verbs, groups, resources, names.
    Named(&'static str, &'static str, &'static str, &'static str),
    /// Verbs, paths outside the resources.
    Urls(&'static str, &'static str),
}

impl Grant {
    pub fn rule(&self) -> Rule {
        match self {
            Self::On(verbs, groups, resources) => Rule {
                verbs: list(verbs),
                groups: list(groups),
                resources: list(resources),
                ..Rule::default()
            },
            Self::Named(verbs, groups, resources, names) => Rule {
                names: list(names),
                ..Self::On(verbs, groups, resources).rule()
            },
            Self::Urls(verbs, urls) => Rule {
                verbs: list(verbs),
                urls: list(urls),
                ..Rule::default()
            },
        }
    }
}

/// Upstream keeps its lists sorted.
fn list(words: &str) -> Vec<String> {
    let mut list: Vec<String> = words
        .split(' ')
        .flat_map(|word| {
            let long = SHORT.iter().find(|(short, _)| *short == word);
            long.map_or(word, |(_, long)| long).split(' ')
        })
        .map(|word| if word == CORE { "" } else { word }.to_owned())
        .collect();
    list.sort();
    list
}

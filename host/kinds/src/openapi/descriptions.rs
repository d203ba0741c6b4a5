//! Texts of definitions and fields. Some 1.5 MB when unpacked, so they are unpacked for one document and dropped.

use std::collections::HashMap;
use std::io::Read as _;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.json.gz"));
static OWN: &str = include_str!("../../data/own.txt");

/// Unpacked texts are no longer than that: we packed them ourselves, and bound it all the same.
const MAX_UNPACKED_BYTES: u64 = 16 << 20;

#[derive(Default)]
pub(super) struct Descriptions {
    /// Definition, then field; the definition's own text is under the empty name.
    texts: HashMap<String, HashMap<String, String>>,
}

impl Descriptions {
    /// Without texts that cannot be unpacked, rather than not at all.
    pub(super) fn load() -> Self {
        let mut json = Vec::new();
        let unpacked = flate2::read::GzDecoder::new(PACKED)
            .take(MAX_UNPACKED_BYTES)
            .read_to_end(&mut json);
        let mut texts: HashMap<String, HashMap<String, String>> = unpacked
            .ok()
            .and_then(|_| serde_json::from_slice(&json).ok())
            .unwrap_or_default();
        for line in OWN.lines().filter(|l| !l.starts_with('#')) {
            let Some((name, text)) = line.split_once(' ') else {
                continue;
            };
            let (definition, field) = name.split_once('.').unwrap_or((name, ""));
            let definition = format!("dev.oarlock.v1alpha1.{definition}");
            texts
                .entry(definition)
                .or_default()
                .insert(field.to_owned(), text.to_owned());
        }
        Self { texts }
    }

    /// `field` empty: of the definition itself.
    pub(super) fn of(&self, definition: &str, field: &str) -> Option<&str> {
        let fields = self.texts.get(definition)?;
        match fields.get(field) {
            Some(text) => Some(text),
            None => OBJECT_FIELDS
                .iter()
                .find(|(name, _)| *name == field)
                .map(|(_, text)| *text),
        }
    }
}

const OBJECT_FIELDS: [(&str, &str); 3] = [
    (
        "apiVersion",
        "The group and version of this object's schema.",
    ),
    ("kind", "The kind of this object."),
    ("metadata", "Standard object metadata."),
];

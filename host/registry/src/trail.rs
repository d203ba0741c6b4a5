//! What a request leaves behind for the audit of it: annotations, from wherever it comes by.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::Context;

/// Annotations by key. The first value of a key stays.
#[derive(Debug, Default)]
pub struct Trail(Mutex<BTreeMap<String, String>>);

impl Trail {
    pub fn note(&self, key: &str, value: &str) {
        let mut notes = self.0.lock();
        if !notes.contains_key(key) {
            notes.insert(key.to_owned(), value.to_owned());
        }
    }

    pub fn notes(&self) -> BTreeMap<String, String> {
        self.0.lock().clone()
    }
}

impl Context {
    /// Leaves an annotation, if the request is audited; otherwise nothing is made of it.
    pub fn annotate(&self, key: &str, value: impl FnOnce() -> String) {
        if let Some(trail) = &self.trail {
            trail.note(key, &value());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_first_value_stays() {
        let mut context = Context::new(Arc::default(), jiff::Timestamp::UNIX_EPOCH);
        context.annotate("k", || unreachable!("nobody listens"));
        let trail = Arc::new(Trail::default());
        context.trail = Some(Arc::clone(&trail));
        context.annotate("k", || "1".to_owned());
        context.annotate("k", || "2".to_owned());
        assert_eq!(trail.notes()["k"], "1");
    }
}

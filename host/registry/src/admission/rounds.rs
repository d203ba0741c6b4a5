//! The second round of mutating admission: when a webhook or a policy has changed the object, all plugins run once more, and of
//! webhooks and policies those that ask for it (`reinvocationPolicy: IfNeeded`) and came before the change.

use std::collections::HashSet;

use serde_json::Value;

/// What the rounds of one request know of each other.
#[derive(Debug, Default)]
pub struct Rounds {
    /// This is the second one.
    pub again: bool,
    /// Somebody has changed the object: there has to be a second one.
    pub wanted: bool,
    pub(crate) policies: Memory,
    pub(crate) webhooks: Memory,
}

/// Which of a plugin's webhooks or policies run again.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Those that have run since the last change and may run again.
    invoked: Vec<String>,
    due: HashSet<String>,
    /// What the plugin made of the object.
    output: Option<Value>,
}

impl Memory {
    /// At the beginning of a second round: what others have changed since concerns everybody.
    pub fn begin_again(&mut self, object: Option<&Value>) {
        if !self.invoked.is_empty() && self.output.as_ref() != object {
            self.changed();
        }
    }

    /// The object is another now: whoever came before and may look again has to.
    pub fn changed(&mut self) {
        self.due.extend(self.invoked.drain(..));
    }

    pub fn is_due(&self, who: &str) -> bool {
        self.due.contains(who)
    }

    pub fn invoked(&mut self, who: &str) {
        self.invoked.push(who.to_owned());
    }

    /// At the end of a round.
    pub fn leave(&mut self, object: Option<&Value>) {
        if !self.invoked.is_empty() {
            self.output = object.cloned();
        }
    }
}

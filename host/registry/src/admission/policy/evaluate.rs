//! What a validating policy comes to for one request and one parameter: what does not hold, and what the audit is told.

use oarlock_cel::policy::{POLICY_BUDGET, failed, matches};
use oarlock_cel::{Activation, Value as Cel};

use super::compiled::{Policy, Validation};
use super::names::Names;

/// A longer value of an annotation is cut.
const MAX_NOTE_BYTES: usize = 10 * 1024;

/// A validation that does not hold, or cannot be evaluated.
pub(super) struct Failed {
    pub index: usize,
    pub message: String,
    /// It could not be evaluated.
    pub is_error: bool,
    /// Empty: `Invalid`.
    pub reason: String,
}

#[derive(Default)]
pub(super) struct Outcome<'p> {
    pub failed: Vec<Failed>,
    /// Annotations by key.
    pub notes: Vec<(&'p str, String)>,
    /// Why annotations could not be made, if that is a reason to refuse.
    pub broken_notes: Vec<String>,
}

pub(super) fn evaluate<'p>(policy: &'p Policy, names: &Names<'_>) -> Outcome<'p> {
    let activation = names.activation(&policy.variables);
    let mut outcome = Outcome::default();
    let conditions = policy.conditions.iter();
    let unusable = match matches(conditions, &activation, policy.ignores_failures) {
        Ok(false) => return outcome,
        Ok(true) => policy.broken.clone(),
        Err(why) => Some(why),
    };
    if let Some(message) = unusable {
        if !policy.ignores_failures {
            outcome.failed.push(Failed {
                index: 0,
                message,
                is_error: true,
                reason: String::new(),
            });
        }
        return outcome;
    }
    let left = |before: u64| POLICY_BUDGET.saturating_sub(activation.cost() - before);
    let before = activation.cost();
    for (index, validation) in policy.validations.iter().enumerate() {
        let (message, reason, is_error) =
            match validation.program.eval_limited(&activation, left(before)) {
                Ok(Cel::Bool(true)) => continue,
                Ok(_) => (
                    message(validation, &activation),
                    validation.reason.clone(),
                    false,
                ),
                Err(_) if policy.ignores_failures => continue,
                Err(error) => (
                    failed(validation.program.text(), &error),
                    String::new(),
                    true,
                ),
            };
        outcome.failed.push(Failed {
            index,
            message,
            is_error,
            reason,
        });
    }
    // Annotations have a budget of their own.
    let before = activation.cost();
    for (key, program) in &policy.notes {
        match program.eval_limited(&activation, left(before)) {
            Ok(value) => {
                let text = value.as_str().unwrap_or_default().trim();
                if !text.is_empty() {
                    outcome.notes.push((key, cut(text).to_owned()));
                }
            }
            Err(_) if policy.ignores_failures => {}
            Err(error) => outcome.broken_notes.push(failed(program.text(), &error)),
        }
    }
    outcome
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_NOTE_BYTES))
        .unwrap_or(text)
}

/// What a failed validation tells: what its expression says, else its message, else the expression itself.
fn message<'a>(validation: &'a Validation, activation: &Activation<'a>) -> String {
    const MAX_BYTES: usize = 5 * 1024;
    let told = validation.message_program.as_ref();
    let told = told.and_then(|program| program.eval(activation).ok());
    let told = told
        .as_ref()
        .and_then(Cel::as_str)
        .unwrap_or_default()
        .trim();
    if !told.is_empty() && told.len() <= MAX_BYTES && !told.contains('\n') {
        return told.to_owned();
    }
    match validation.message.trim() {
        "" => format!("failed expression: {}", validation.program.text().trim()),
        message => message.to_owned(),
    }
}

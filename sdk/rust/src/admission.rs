//! Admission policies: one decision about one write, as a plain function over a [`Request`].
//!
//! Invariant: a policy keeps no state between requests but its arguments: instances are many, and replaced at any time.

pub mod testing;

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::bindings::admitting::exports::oarlock::admission::policy;

pub use policy::{Cause, Denial, Description, Operation, Patch, Request, Rule, User};

/// An admission policy. It says in its description which of the two it does.
pub trait Policy: Default + 'static {
    /// What it is and looks at. Asked after `configure`.
    fn describe(&self) -> Description;

    /// Takes its arguments (JSON; `{}` if there are none), or says what is wrong with them.
    fn configure(&mut self, _args: &str) -> Result<(), String> {
        Ok(())
    }

    /// How the object is to be changed; `None`: not at all.
    fn mutate(&self, _request: &Request) -> Result<Option<Patch>, Denial> {
        Ok(None)
    }

    /// Whether the write may pass, and with which warnings.
    fn validate(&self, _request: &Request) -> Result<Vec<String>, Denial> {
        Ok(Vec::new())
    }
}

impl Description {
    /// A policy that only refuses.
    pub fn validating(name: &str, rules: Vec<Rule>) -> Self {
        Self {
            name: name.to_owned(),
            rules,
            mutates: false,
            validates: true,
            args_schema: String::new(),
        }
    }

    /// A policy that only changes objects (and may refuse where it cannot).
    pub fn mutating(name: &str, rules: Vec<Rule>) -> Self {
        Self {
            mutates: true,
            validates: false,
            ..Self::validating(name, rules)
        }
    }
}

impl Rule {
    /// `Rule::of("", &["pods"])`: creations and updates of these resources, in every version.
    pub fn of(group: &str, resources: &[&str]) -> Self {
        Self {
            operations: vec![Operation::Create, Operation::Update],
            groups: vec![group.to_owned()],
            versions: Vec::new(),
            resources: resources.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    /// Only these operations.
    pub fn on(mut self, operations: &[Operation]) -> Self {
        self.operations = operations.to_vec();
        self
    }
}

impl Request {
    /// The object that is about to be stored, as the author's view of it. A denial (400) if it does not fit that.
    pub fn object_as<T: DeserializeOwned + Default>(&self) -> Result<T, Denial> {
        read(self.object.as_deref())
    }

    /// The stored object, as the author's view of it.
    pub fn old_as<T: DeserializeOwned + Default>(&self) -> Result<T, Denial> {
        read(self.old_object.as_deref())
    }

    /// The object as a tree; null for deletions.
    pub fn object_tree(&self) -> Value {
        self.object
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// A label of the namespace.
    pub fn namespace_label(&self, key: &str) -> Option<&str> {
        let mut labels = self.namespace_labels.iter();
        labels
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }
}

fn read<T: DeserializeOwned + Default>(text: Option<&str>) -> Result<T, Denial> {
    let Some(text) = text else {
        return Ok(T::default());
    };
    serde_json::from_str(text).map_err(|error| Denial {
        code: 400,
        ..Denial::new(format!("the object cannot be read: {error}"))
    })
}

impl Denial {
    /// Forbidden (403), with this text.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            code: 403,
            message: message.into(),
            causes: Vec::new(),
        }
    }

    /// With a field that is to blame.
    pub fn because(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.causes.push(Cause {
            field: field.into(),
            message: message.into(),
        });
        self
    }
}

impl Patch {
    /// A merge patch (RFC 7386) of these members.
    pub fn merging(members: &impl Serialize) -> Self {
        // Trees and plain structs always have a text.
        Self::Merge(serde_json::to_string(members).unwrap_or_default())
    }

    /// The merge patch that makes `after` of `before`; `None` if they are equal.
    pub fn between(before: &Value, after: &Value) -> Option<Self> {
        difference(before, after).map(|members| Self::merging(&members))
    }
}

fn difference(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut members = Map::new();
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        members.insert(name.clone(), Value::Null);
    }
    for (name, value) in new {
        let member = match old.get(name) {
            Some(old) => difference(old, value),
            None => Some(value.clone()),
        };
        members.extend(member.map(|member| (name.clone(), member)));
    }
    (!members.is_empty()).then_some(Value::Object(members))
}

/// Makes a [`Policy`] the component of this crate. Expands to nothing natively.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type OarlockComponent = $crate::__private::PolicyComponent<$policy>;
            $crate::__private::bindings::admitting::export_policy_raw!(
                OarlockComponent with_types_in $crate::__private::bindings::admitting
            );
            impl $crate::admission::Exported for $policy {
                fn with<R>(ask: impl FnOnce(&mut Self) -> R) -> R {
                    std::thread_local! {
                        static THE_ONE: std::cell::RefCell<Option<$policy>> = const { std::cell::RefCell::new(None) };
                    }
                    THE_ONE.with_borrow_mut(|one| {
                        ask(one.get_or_insert_with(|| {
                            $crate::__private::install_panic_hook();
                            <$policy as Default>::default()
                        }))
                    })
                }
            }
        };
    };
}

/// The one instance of a component's policy. Implemented by the macro.
#[doc(hidden)]
pub trait Exported: Policy {
    /// Asks the one instance, which is made when it is first asked.
    fn with<R>(ask: impl FnOnce(&mut Self) -> R) -> R;
}

/// Exports `policy`: from the generated trait, which knows no `self`, to the one instance.
#[doc(hidden)]
#[derive(Debug)]
pub struct PolicyComponent<P>(PhantomData<P>);

impl<P: Exported> policy::Guest for PolicyComponent<P> {
    fn configure(args: String) -> Result<(), String> {
        P::with(|policy| policy.configure(&args))
    }

    fn describe() -> Description {
        P::with(|policy| policy.describe())
    }

    fn mutate(request: Request) -> Result<Option<Patch>, Denial> {
        P::with(|policy| policy.mutate(&request))
    }

    fn validate(request: Request) -> Result<Vec<String>, Denial> {
        P::with(|policy| policy.validate(&request))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::testing::merged;
    use super::*;

    #[test]
    fn a_patch_between_two_trees_makes_one_of_the_other() {
        let check = |before: Value, after: Value, expect: Option<Value>| {
            let patch = Patch::between(&before, &after);
            let text = expect.map(|patch| Patch::Merge(patch.to_string()));
            assert_eq!(patch, text, "{before} {after}");
            if let Some(patch) = patch {
                assert_eq!(merged(&before, &patch), after);
            }
        };
        check(json!({"a": 1}), json!({"a": 1}), None);
        check(
            json!({"a": {"b": 1, "c": [1]}, "d": 1}),
            json!({"a": {"b": 2, "c": [1]}, "e": {"f": 1}}),
            Some(json!({"a": {"b": 2}, "d": null, "e": {"f": 1}})),
        );
        check(
            json!({"a": [1]}),
            json!({"a": [1, 2]}),
            Some(json!({"a": [1, 2]})),
        );
    }
}

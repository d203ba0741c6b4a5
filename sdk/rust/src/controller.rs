//! Controllers: one step of reconciling, as a plain function over a [`Cluster`].
//!
//! Invariant: a controller keeps no state between steps that it could not lose: instances are evicted and made anew.

mod cluster;
pub(crate) mod glue;
pub mod testing;

pub use crate::bindings::controlling::exports::oarlock::controller::reconciler::{
    Description, Mapping, Outcome, Permission, Watch,
};
pub use crate::bindings::controlling::oarlock::controller::objects::{
    DeleteOptions, Failure, PatchKind, Propagation, Query, ResourceInfo,
};
pub use crate::bindings::controlling::oarlock::controller::types::Key;
pub use cluster::{Cluster, Objects, Resource};

/// Why a step failed; it is retried with back-off.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// The cluster refused a call.
    Refused(Failure),
    /// Anything else, for a person.
    Other(String),
}

impl Error {
    /// An error of the controller's own.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Other(message.into())
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// Whether the object changed meanwhile, or exists already.
    pub fn is_conflict(&self) -> bool {
        self.code() == 409
    }

    /// The HTTP code; 0 if it is none of the cluster's.
    pub fn code(&self) -> u16 {
        match self {
            Self::Refused(failure) => failure.code,
            Self::Other(_) => 0,
        }
    }

    /// The Status' reason; empty if it is none of the cluster's.
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(failure) => &failure.reason,
            Self::Other(_) => "",
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(failure) => write!(
                f,
                "{} ({} {})",
                failure.message, failure.code, failure.reason
            ),
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Other(format!("an object cannot be read: {error}"))
    }
}

/// A controller.
pub trait Reconciler: Default + 'static {
    /// What it watches and may do. Asked after `configure`.
    fn describe(&self) -> Description;

    /// Takes its configuration (JSON; `{}` if there is none), or says what is wrong with it.
    fn configure(&mut self, _config: &str) -> Result<(), String> {
        Ok(())
    }

    /// Brings the world nearer to what the object asks for. `key` names an object of the first watch; it may be gone.
    fn reconcile(&self, cluster: &Cluster<'_>, key: &Key) -> Result<Outcome, Error>;

    /// The keys that a changed object of the watch numbered `watch` concerns (for watches with [`Mapping::Custom`]).
    fn keys_of(&self, _watch: u32, _object: &serde_json::Value, _gone: bool) -> Vec<Key> {
        Vec::new()
    }
}

impl Key {
    /// A key; `namespace` is empty for cluster-scoped kinds.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.namespace, &self.name).cmp(&(&other.namespace, &other.name))
    }
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.namespace, &self.name).hash(state);
    }
}

impl Watch {
    /// Watches all objects of a resource (`apps/v1/deployments`) and reconciles each by itself.
    pub fn of(resource: &str) -> Self {
        Self {
            resource: resource.to_owned(),
            labels: String::new(),
            mapping: Mapping::Itself,
            relevant: Vec::new(),
        }
    }

    /// With this mapping.
    pub fn by(mut self, mapping: Mapping) -> Self {
        self.mapping = mapping;
        self
    }

    /// Only objects with these labels.
    pub fn labelled(mut self, selector: &str) -> Self {
        selector.clone_into(&mut self.labels);
        self
    }

    /// Only updates that change one of these parts.
    pub fn relevant(mut self, pointers: &[&str]) -> Self {
        self.relevant = pointers.iter().map(|&pointer| pointer.to_owned()).collect();
        self
    }
}

impl Permission {
    /// `Permission::to("get list watch", "apps", "replicasets")`
    pub fn to(verbs: &str, group: &str, resource: &str) -> Self {
        let verbs = verbs.split_whitespace().map(str::to_owned).collect();
        Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
            verbs,
        }
    }
}

impl Description {
    /// A controller of this name, one key at a time, without configuration and resync.
    pub fn new(name: &str, watches: Vec<Watch>, permissions: Vec<Permission>) -> Self {
        Self {
            name: name.to_owned(),
            watches,
            permissions,
            config_schema: String::new(),
            concurrency: 1,
            resync_seconds: 0,
        }
    }

    /// So many keys at once.
    pub fn concurrent(mut self, keys: u32) -> Self {
        self.concurrency = keys;
        self
    }

    /// Every key again after so many seconds.
    pub fn resync(mut self, seconds: u32) -> Self {
        self.resync_seconds = seconds;
        self
    }
}

impl Query {
    /// All objects of a namespace; of all namespaces, if it is empty.
    pub fn namespace(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            labels: String::new(),
            owner_uid: String::new(),
            fields: String::new(),
            pointers: Vec::new(),
        }
    }

    /// Of all namespaces.
    pub fn all() -> Self {
        Self::namespace("")
    }

    /// Only those with these labels.
    pub fn labelled(mut self, selector: &str) -> Self {
        selector.clone_into(&mut self.labels);
        self
    }

    /// Only those controlled by the owner with this uid.
    pub fn owned_by(mut self, uid: &str) -> Self {
        uid.clone_into(&mut self.owner_uid);
        self
    }

    /// Only those with this value in an index.
    pub fn field(mut self, path: &str, value: &str) -> Self {
        self.fields = format!("{path}={value}");
        self
    }

    /// Only these parts of them.
    pub fn parts(mut self, pointers: &[&str]) -> Self {
        self.pointers = pointers.iter().map(|&pointer| pointer.to_owned()).collect();
        self
    }
}

impl Default for DeleteOptions {
    fn default() -> Self {
        Self {
            propagation: Propagation::Background,
            uid: String::new(),
            resource_version: String::new(),
            grace_period: None,
        }
    }
}

/// Makes a [`Reconciler`] the component of this crate. Expands to nothing natively.
#[macro_export]
macro_rules! export_controller {
    ($reconciler:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type OarlockComponent = $crate::__private::ControllerComponent<$reconciler>;
            $crate::__private::bindings::controlling::export_reconciler_raw!(
                OarlockComponent with_types_in $crate::__private::bindings::controlling
            );
            impl $crate::controller::Exported for $reconciler {
                fn with<R>(ask: impl FnOnce(&mut Self) -> R) -> R {
                    std::thread_local! {
                        static THE_ONE: std::cell::RefCell<Option<$reconciler>> = const { std::cell::RefCell::new(None) };
                    }
                    THE_ONE.with_borrow_mut(|one| {
                        ask(one.get_or_insert_with(|| {
                            $crate::__private::install_panic_hook();
                            <$reconciler as Default>::default()
                        }))
                    })
                }
            }
        };
    };
}

/// The one instance of a component's reconciler. Implemented by the macro.
#[doc(hidden)]
pub trait Exported: Reconciler {
    /// Asks the one instance, which is made when it is first asked.
    fn with<R>(ask: impl FnOnce(&mut Self) -> R) -> R;
}

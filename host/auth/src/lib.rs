//! Who may: role-based access control as an index that is fed with objects, and the roles that every cluster has.
//!
//! Pure: no HTTP, no storage, no clock. A question costs the rules of the asking subject, whatever else there is.

pub mod aggregate;
pub mod defaults;
pub mod escalation;
mod index;
pub mod nodes;
mod rule;

pub use index::{Answer, Index, RoleKind, SubjectRules};
pub use rule::{Ask, Rule};

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";
/// Whoever is in it may do everything.
pub const MASTERS: &str = "system:masters";

const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Namespace and name of the service account that a user name stands for.
pub fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    let fits = oarlock_model::selector::is_dns_label(namespace)
        && oarlock_model::selector::is_dns_subdomain(name);
    fits.then_some((namespace, name))
}

/// The user name of a service account.
pub fn account_user(namespace: &str, name: &str) -> String {
    format!("{ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The name of the node that a user name stands for.
pub fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:")
        .filter(|name| oarlock_model::selector::is_dns_subdomain(name))
}

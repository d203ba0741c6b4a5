//! Gives each namespace its `default` ServiceAccount, and gives it back when it is deleted.

use oarlock_sdk::controller::{
    Cluster, Description, Error, Key, Mapping, Outcome, Permission, Reconciler, Watch,
};
use serde_json::{Value, json};

const NAMESPACES: &str = "v1/namespaces";
const ACCOUNTS: &str = "v1/serviceaccounts";
const NAME: &str = "default";

#[derive(Default)]
pub struct ServiceAccountController;

oarlock_sdk::export_controller!(ServiceAccountController);

impl Reconciler for ServiceAccountController {
    fn describe(&self) -> Description {
        Description::new(
            "service-account-controller",
            vec![
                Watch::of(NAMESPACES).relevant(&["/status/phase", "/metadata/deletionTimestamp"]),
                Watch::of(ACCOUNTS)
                    .by(Mapping::NamespaceOf)
                    .relevant(&["/metadata/deletionTimestamp"]),
            ],
            vec![
                Permission::to("get list watch", "", "namespaces"),
                Permission::to("get list watch create", "", "serviceaccounts"),
            ],
        )
    }

    fn reconcile(&self, cluster: &Cluster<'_>, key: &Key) -> Result<Outcome, Error> {
        let Some(namespace) = cluster.get_as::<Value>(NAMESPACES, key)? else {
            return Ok(Outcome::Done);
        };
        let terminating = namespace.pointer("/metadata/deletionTimestamp").is_some();
        if terminating
            || cluster
                .get_as::<Value>(ACCOUNTS, &Key::new(&key.name, NAME))?
                .is_some()
        {
            return Ok(Outcome::Done);
        }
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": key.name},
        });
        match cluster.create(ACCOUNTS, &key.name, &account) {
            Err(error) if error.reason() != "AlreadyExists" && !ends(&error) => Err(error),
            _ => Ok(Outcome::Done),
        }
    }
}

/// The namespace began to end meanwhile.
fn ends(error: &Error) -> bool {
    error.is_not_found()
        || (error.code() == 403 && error.to_string().contains("because it is being terminated"))
}

#[cfg(test)]
mod tests {
    use oarlock_sdk::controller::testing::FakeCluster;

    use super::*;

    #[test]
    fn every_living_namespace_has_one() {
        let fake = FakeCluster::new();
        fake.given(NAMESPACES, json!({"metadata": {"name": "a"}}));
        fake.settle(&ServiceAccountController, "", "a", 3);
        assert!(fake.at(ACCOUNTS, "a", NAME).is_some());
        fake.remove(ACCOUNTS, "a", NAME);
        fake.settle(&ServiceAccountController, "", "a", 3);
        assert!(fake.at(ACCOUNTS, "a", NAME).is_some());
        fake.given(
            NAMESPACES,
            json!({"metadata": {"name": "b", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        );
        fake.settle(&ServiceAccountController, "", "b", 3);
        fake.settle(&ServiceAccountController, "", "absent", 3);
        assert_eq!(fake.all(ACCOUNTS).len(), 1);
    }
}

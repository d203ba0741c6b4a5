//! A controller that does whatever a controller must not do, for tests of the host: the key's name says what.

use oarlock_sdk::controller::{
    Cluster, Description, Error, Key, Outcome, Permission, Query, Reconciler, Watch,
};
use oarlock_sdk::host;

/// The controller.
#[derive(Debug, Default)]
pub struct Misbehaving;

impl Reconciler for Misbehaving {
    fn describe(&self) -> Description {
        let permissions = vec![Permission::to("get list watch create", "", "configmaps")];
        Description::new("misbehaving", vec![Watch::of("v1/configmaps")], permissions)
    }

    fn reconcile(&self, cluster: &Cluster<'_>, key: &Key) -> Result<Outcome, Error> {
        match key.name.as_str() {
            "spin" => loop {
                std::hint::black_box(key);
            },
            "panic" => panic!("told to panic over {}/{}", key.namespace, key.name),
            "fail" => Err(Error::new("told to fail")),
            "get" => {
                let found: Option<serde_json::Value> = cluster.get_as("v1/configmaps", key)?;
                Ok(if found.is_some() {
                    Outcome::Done
                } else {
                    Outcome::Requeue
                })
            }
            "list" => {
                let found: Vec<serde_json::Value> =
                    cluster.list_as("v1/configmaps", &Query::namespace(&key.namespace))?;
                Ok(Outcome::RequeueAfter(found.len() as u64))
            }
            "forever" => loop {
                cluster.get_as::<serde_json::Value>("v1/configmaps", key)?;
            },
            "clock" => {
                let now = host::now_ms();
                cluster.get_as::<serde_json::Value>("v1/configmaps", key)?;
                assert_eq!(now, host::now_ms(), "the clock stands still during a call");
                Ok(Outcome::RequeueAfter(now))
            }
            _ => Ok(Outcome::Done),
        }
    }
}

oarlock_sdk::export_controller!(Misbehaving);

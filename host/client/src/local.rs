//! `LocalCluster`: the cluster in this process. No HTTP and no copies: an event is parsed once for all watchers.

use std::sync::Arc;

use oarlock_registry::{Registry, User};

#[derive(Clone, Debug)]
pub struct LocalCluster {
    pub registry: Arc<Registry>,
    pub user: Arc<User>,
}

impl LocalCluster {
    /// `component` names the caller (`kube-scheduler`): field manager and user `system:COMPONENT`.
    pub fn new(registry: Arc<Registry>, component: &str) -> Self {
        let user = User {
            name: format!("system:{component}"),
            groups: vec![
                "system:masters".to_owned(),
                "system:authenticated".to_owned(),
            ],
            ..User::default()
        };
        Self {
            registry,
            user: Arc::new(user),
        }
    }
}

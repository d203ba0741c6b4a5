//! Objects that every cluster has from its first start. What is there already stays as it is.

mod flow;

use std::sync::Arc;

use oarlock_model::{ApiResult, Reason};
use serde_json::{Value, json};

use crate::{Body, Context, Registry, Target, User, services};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];
const FIELD_MANAGER: &str = "kube-apiserver";
/// What `services` hands out addresses of.
const SERVICE_RANGE: &str = "10.0.0.0/16";

impl Registry {
    pub(crate) async fn bootstrap(&self, now: jiff::Timestamp) -> ApiResult<()> {
        let user = User {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..User::default()
        };
        let mut ctx = Context::new(Arc::new(user), now);
        FIELD_MANAGER.clone_into(&mut ctx.field_manager);
        let mut flow_ctx = ctx.clone();
        flow::FIELD_MANAGER.clone_into(&mut flow_ctx.field_manager);
        // Issued together, so that they share commits: a first start waits for two, not for dozens.
        let mut first = Vec::new();
        for name in NAMESPACES {
            first.push(self.ensure(
                &ctx,
                "",
                "namespaces",
                "",
                json!({"metadata": {"name": name}}),
            ));
        }
        for (name, value, description) in PRIORITY_CLASSES {
            let object =
                json!({"metadata": {"name": name}, "value": value, "description": description});
            first.push(self.ensure(&ctx, "scheduling.k8s.io", "priorityclasses", "", object));
        }
        let flow_objects = [
            ("prioritylevelconfigurations", flow::priority_levels()),
            ("flowschemas", flow::flow_schemas()),
        ];
        for (resource, objects) in flow_objects {
            for object in objects {
                first.push(self.ensure(&flow_ctx, flow::GROUP, resource, "", object));
            }
        }
        let range = json!({
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": [SERVICE_RANGE]},
        });
        first.push(self.ensure(&ctx, "networking.k8s.io", "servicecidrs", "", range));
        futures::future::try_join_all(first).await?;
        let service = json!({
            "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "type": "ClusterIP", "clusterIP": services::first_ip(), "clusterIPs": [services::first_ip()],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6443}],
            },
        });
        self.ensure(&ctx, "", "services", "default", service).await
    }

    async fn ensure(
        &self,
        ctx: &Context,
        group: &str,
        resource: &str,
        namespace: &str,
        object: Value,
    ) -> ApiResult<()> {
        let Some(row) = self.row(group, resource) else {
            return Ok(());
        };
        let name = oarlock_model::meta::name(&object).to_owned();
        if self
            .store()
            .get(&crate::keys::key(&row, namespace, &name))
            .is_some()
        {
            return Ok(());
        }
        match self
            .create(ctx, &Target::new(&row, namespace, ""), Body::Value(object))
            .await
        {
            Err(error) if error.reason == Reason::AlreadyExists => Ok(()),
            other => other.map(drop),
        }
    }
}

//! Gives each namespace the ConfigMap `kube-root-ca.crt` with the certificate by which clients know the API server.

use oarlock_sdk::controller::{
    Cluster, Description, Error, Key, Mapping, Outcome, Permission, Reconciler, Watch,
};
use serde::Deserialize;
use serde_json::{Value, json};

const NAMESPACES: &str = "v1/namespaces";
const MAPS: &str = "v1/configmaps";
const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

#[derive(Default)]
pub struct RootCaPublisher {
    certificate: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    /// PEM
    certificate: String,
}

oarlock_sdk::export_controller!(RootCaPublisher);

impl Reconciler for RootCaPublisher {
    fn configure(&mut self, config: &str) -> Result<(), String> {
        let config: Config = serde_json::from_str(config).map_err(|e| e.to_string())?;
        self.certificate = config.certificate;
        Ok(())
    }

    fn describe(&self) -> Description {
        let mut description = Description::new(
            "root-ca-certificate-publisher",
            vec![
                Watch::of(NAMESPACES).relevant(&["/status/phase", "/metadata/deletionTimestamp"]),
                Watch::of(MAPS)
                    .by(Mapping::Custom)
                    .relevant(&["/data", "/metadata/deletionTimestamp"]),
            ],
            vec![
                Permission::to("get list watch", "", "namespaces"),
                Permission::to("get list watch create patch", "", "configmaps"),
            ],
        );
        description.config_schema =
            json!({"type": "object", "required": ["certificate"], "properties": {"certificate": {"type": "string"}}}).to_string();
        description
    }

    fn reconcile(&self, cluster: &Cluster<'_>, key: &Key) -> Result<Outcome, Error> {
        let Some(namespace) = cluster.get_as::<Value>(NAMESPACES, key)? else {
            return Ok(Outcome::Done);
        };
        if namespace.pointer("/metadata/deletionTimestamp").is_some() {
            return Ok(Outcome::Done);
        }
        let data = json!({"ca.crt": self.certificate});
        let at = Key::new(&key.name, NAME);
        let result = match cluster.get_as::<Value>(MAPS, &at)? {
            Some(map) if map["data"] == data => return Ok(Outcome::Done),
            // Keys that others put in go too.
            Some(map) => {
                let mut patch = data;
                for other in map["data"]
                    .as_object()
                    .into_iter()
                    .flat_map(|data| data.keys())
                    .filter(|k| *k != "ca.crt")
                {
                    patch[other] = Value::Null;
                }
                cluster.merge(MAPS, &at, &json!({ "data": patch }))
            }
            None => {
                let annotations = json!({"kubernetes.io/description": DESCRIPTION});
                let map = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": NAME, "namespace": key.name, "annotations": annotations},
                    "data": data,
                });
                cluster.create(MAPS, &key.name, &map)
            }
        };
        match result {
            Err(error) if error.reason() != "AlreadyExists" && !ends(&error) => Err(error),
            _ => Ok(Outcome::Done),
        }
    }

    fn keys_of(&self, _watch: u32, object: &Value, _gone: bool) -> Vec<Key> {
        let metadata = &object["metadata"];
        match (metadata["name"].as_str(), metadata["namespace"].as_str()) {
            (Some(NAME), Some(namespace)) => vec![Key::new("", namespace)],
            _ => Vec::new(),
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
    fn is_there_and_stays_as_it_is() {
        let mut publisher = RootCaPublisher::default();
        assert!(publisher.configure("{}").is_err());
        publisher.configure(r#"{"certificate": "PEM"}"#).unwrap();
        let fake = FakeCluster::new();
        fake.given(NAMESPACES, json!({"metadata": {"name": "a"}}));
        fake.settle(&publisher, "", "a", 3);
        assert_eq!(
            fake.at(MAPS, "a", NAME).unwrap()["data"],
            json!({"ca.crt": "PEM"})
        );
        fake.change(MAPS, "a", NAME, |map| {
            map["data"] = json!({"ca.crt": "other", "more": "x"})
        });
        let map = fake.at(MAPS, "a", NAME).unwrap();
        assert_eq!(publisher.keys_of(1, &map, false), [Key::new("", "a")]);
        fake.settle(&publisher, "", "a", 3);
        assert_eq!(
            fake.at(MAPS, "a", NAME).unwrap()["data"],
            json!({"ca.crt": "PEM"})
        );
        assert!(
            publisher
                .keys_of(
                    1,
                    &json!({"metadata": {"name": "x", "namespace": "a"}}),
                    false
                )
                .is_empty()
        );
    }
}

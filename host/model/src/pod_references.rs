//! What a pod, or a volume, names of other objects: secrets, config maps, claims. One definition for whoever lets a node have
//! them and for whoever forbids a node to name them.

use serde_json::Value;

/// Volumes of a pod whose credentials are `SOURCE.FIELD.name`.
const POD_VOLUME_SECRETS: [(&str, &str); 8] = [
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("csi", "nodePublishSecretRef"),
    ("flexVolume", "secretRef"),
    ("iscsi", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("storageos", "secretRef"),
];
/// The same of a persistent volume, where the node itself needs them.
const VOLUME_SECRETS: [(&str, &str); 10] = [
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("csi", "nodePublishSecretRef"),
    ("csi", "nodeStageSecretRef"),
    ("csi", "nodeExpandSecretRef"),
    ("flexVolume", "secretRef"),
    ("iscsi", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("storageos", "secretRef"),
];

fn list<'a>(of: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    of[field].as_array().into_iter().flatten()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|field| list(&pod["spec"], field))
}

pub fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["spec"], "volumes")
}

/// From the environments of containers: `env[].valueFrom.KEY.name` and `envFrom[].REF.name`.
fn environment<'a>(
    pod: &'a Value,
    key: &'a str,
    reference: &'a str,
) -> impl Iterator<Item = &'a Value> {
    containers(pod).flat_map(move |container| {
        let whole = list(container, "envFrom").map(move |from| &from[reference]["name"]);
        let single = list(container, "env").map(move |env| &env["valueFrom"][key]["name"]);
        whole.chain(single)
    })
}

fn projected<'a>(volume: &'a Value, source: &'a str) -> impl Iterator<Item = &'a Value> {
    list(&volume["projected"], "sources").map(move |of| &of[source]["name"])
}

fn texts<'a>(all: impl Iterator<Item = &'a Value>) -> Vec<&'a str> {
    all.filter_map(Value::as_str)
        .filter(|name| !name.is_empty())
        .collect()
}

/// The secrets that a pod names, all in its own namespace.
pub fn secrets(pod: &Value) -> Vec<&str> {
    let pull = list(&pod["spec"], "imagePullSecrets").map(|secret| &secret["name"]);
    let mounted = volumes(pod).flat_map(|volume| {
        let by_source = POD_VOLUME_SECRETS
            .iter()
            .map(|(source, field)| &volume[source][field]["name"]);
        by_source
            .chain([
                &volume["azureFile"]["secretName"],
                &volume["secret"]["secretName"],
            ])
            .chain(projected(volume, "secret"))
    });
    texts(
        pull.chain(environment(pod, "secretKeyRef", "secretRef"))
            .chain(mounted),
    )
}

/// The config maps that a pod names.
pub fn config_maps(pod: &Value) -> Vec<&str> {
    let mounted = volumes(pod).flat_map(|volume| {
        std::iter::once(&volume["configMap"]["name"]).chain(projected(volume, "configMap"))
    });
    texts(environment(pod, "configMapKeyRef", "configMapRef").chain(mounted))
}

/// The name of the claim behind a volume of a pod, whether named or made for the pod.
pub fn claim(pod: &Value, volume: &Value) -> Option<String> {
    if let Some(name) = volume["persistentVolumeClaim"]["claimName"].as_str() {
        return Some(name.to_owned());
    }
    let volume_name = volume["name"].as_str()?;
    let pod_name = crate::meta::name(pod);
    volume["ephemeral"]
        .is_object()
        .then(|| format!("{pod_name}-{volume_name}"))
}

/// The resource claims of a pod that are there: named, made from templates, or made for extended resources.
pub fn resource_claims(pod: &Value) -> Vec<&str> {
    let status = &pod["status"];
    let made = |name: &Value| {
        list(status, "resourceClaimStatuses")
            .find(|made| made["name"] == *name)
            .map_or(&Value::Null, |made| &made["resourceClaimName"])
    };
    let wanted = list(&pod["spec"], "resourceClaims").map(|claim| {
        if claim["resourceClaimName"].is_string() {
            &claim["resourceClaimName"]
        } else {
            made(&claim["name"])
        }
    });
    texts(wanted.chain([&status["extendedResourceClaimStatus"]["resourceClaimName"]]))
}

/// Namespaces and names of the secrets that a node needs for a persistent volume; those without a namespace are in that of
/// the claim.
pub fn volume_secrets(volume: &Value) -> Vec<(&str, &str)> {
    let spec = &volume["spec"];
    let of_claim = spec["claimRef"]["namespace"].as_str().unwrap_or_default();
    let azure = &spec["azureFile"];
    let by_source = VOLUME_SECRETS.iter().map(|(source, field)| {
        let reference = &spec[source][field];
        (&reference["namespace"], &reference["name"])
    });
    by_source
        .chain([(&azure["secretNamespace"], &azure["secretName"])])
        .filter_map(|(namespace, name)| {
            let name = name.as_str().filter(|name| !name.is_empty())?;
            let namespace = namespace.as_str().filter(|n| !n.is_empty());
            Some((namespace.unwrap_or(of_claim), name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_that_a_pod_names_is_found() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "c1"}}]}],
            "containers": [{"env": [
                {"valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
                {"valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}},
                {"name": "PLAIN", "value": "v"},
            ]}],
            "ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "s3"}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "s4"}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "s5"}}, {"configMap": {"name": "c3"}}]}},
                {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s6"}}},
                {"name": "d", "configMap": {"name": "c4"}},
                {"name": "e", "azureFile": {"secretName": "s7"}},
                {"name": "f", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "g", "ephemeral": {"volumeClaimTemplate": {}}},
            ],
            "resourceClaims": [
                {"name": "r1", "resourceClaimName": "direct"},
                {"name": "r2", "resourceClaimTemplateName": "t"},
                {"name": "r3", "resourceClaimTemplateName": "t"},
            ],
        }, "status": {
            "resourceClaimStatuses": [{"name": "r2", "resourceClaimName": "made"}, {"name": "r3"}],
            "extendedResourceClaimStatus": {"resourceClaimName": "extended"},
        }});
        let mut all = secrets(&pod);
        all.sort_unstable();
        assert_eq!(all, ["pull", "s1", "s2", "s3", "s4", "s5", "s6", "s7"]);
        let mut all = config_maps(&pod);
        all.sort_unstable();
        assert_eq!(all, ["c1", "c2", "c3", "c4"]);
        let claims: Vec<String> = volumes(&pod).filter_map(|v| claim(&pod, v)).collect();
        assert_eq!(claims, ["claim", "p-g"]);
        assert_eq!(resource_claims(&pod), ["direct", "made", "extended"]);
    }

    #[test]
    fn a_volume_names_secrets_of_its_claim_or_elsewhere() {
        let volume = json!({"spec": {
            "claimRef": {"namespace": "ns", "name": "c"},
            "csi": {
                "nodeStageSecretRef": {"namespace": "other", "name": "s1"},
                "controllerPublishSecretRef": {"namespace": "other", "name": "not for nodes"},
            },
            "azureFile": {"secretName": "s2"},
        }});
        assert_eq!(volume_secrets(&volume), [("other", "s1"), ("ns", "s2")]);
    }
}

//! An example of a validating policy: images of containers come from the registries that are allowed.
//!
//! `args`: `{"allowed": ["registry.example/", "docker.io/library/"], "warnOnLatest": true}`: prefixes of full image names
//! (`nginx` is `docker.io/library/nginx`). Pods, and whatever makes pods from a template.

use oarlock_sdk::admission::{Denial, Description, Policy, Request, Rule};
use serde::Deserialize;

/// The policy's arguments.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Args {
    allowed: Vec<String>,
    /// Accepted images without tag or digest, or with `latest`, give a warning.
    warn_on_latest: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            allowed: vec!["docker.io/library/".to_owned()],
            warn_on_latest: false,
        }
    }
}

/// The policy.
#[derive(Debug, Default)]
pub struct ImageRegistries {
    args: Args,
}

/// A pod, or what makes pods.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
    ephemeral_containers: Option<Vec<Container>>,
    template: Option<Box<Object>>,
    job_template: Option<Box<Object>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    image: String,
}

impl Spec {
    /// Every image, and the field that names it.
    fn images(&self, path: &str, found: &mut Vec<(String, String)>) {
        let lists = [
            ("containers", &self.containers),
            ("initContainers", &self.init_containers),
            ("ephemeralContainers", &self.ephemeral_containers),
        ];
        for (list, containers) in lists {
            for (at, container) in containers.iter().flatten().enumerate() {
                found.push((
                    format!("{path}.{list}[{at}].image"),
                    container.image.clone(),
                ));
            }
        }
        let below = [
            ("template", &self.template),
            ("jobTemplate", &self.job_template),
        ];
        for (name, object) in below {
            if let Some(spec) = object.as_ref().and_then(|o| o.spec.as_ref()) {
                spec.images(&format!("{path}.{name}.spec"), found);
            }
        }
    }
}

/// The name with its registry: `nginx` is `docker.io/library/nginx`.
fn full_name(image: &str) -> String {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => image.to_owned(),
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    }
}

fn is_latest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

impl Policy for ImageRegistries {
    fn describe(&self) -> Description {
        let rules = vec![
            Rule::of(
                "",
                &["pods", "pods/ephemeralcontainers", "replicationcontrollers"],
            ),
            Rule::of(
                "apps",
                &["deployments", "replicasets", "statefulsets", "daemonsets"],
            ),
            Rule::of("batch", &["jobs", "cronjobs"]),
        ];
        Description::validating("image-registries", rules)
    }

    fn configure(&mut self, args: &str) -> Result<(), String> {
        let args: Args = serde_json::from_str(args).map_err(|error| error.to_string())?;
        if args.allowed.iter().any(String::is_empty) {
            return Err("allowed: an empty prefix allows everything".to_owned());
        }
        self.args = args;
        Ok(())
    }

    fn validate(&self, request: &Request) -> Result<Vec<String>, Denial> {
        let mut images = Vec::new();
        if let Some(spec) = request.object_as::<Object>()?.spec {
            spec.images("spec", &mut images);
        }
        let mut warnings = Vec::new();
        let mut denial = Denial::new(String::new());
        for (field, image) in images {
            let name = full_name(&image);
            if !self
                .args
                .allowed
                .iter()
                .any(|a| name.starts_with(a.as_str()))
            {
                let why = format!("image {image:?} comes from a registry that is not allowed");
                denial = denial.because(field, why);
            } else if self.args.warn_on_latest && is_latest(&image) {
                warnings.push(format!("{field}: image {image:?} may change at any time"));
            }
        }
        if denial.causes.is_empty() {
            return Ok(warnings);
        }
        let texts: Vec<_> = denial
            .causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        denial.message = texts.join("; ");
        Err(denial)
    }
}

oarlock_sdk::export_policy!(ImageRegistries);

#[cfg(test)]
mod tests {
    use oarlock_sdk::admission::testing::{configured, creation};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn images_of_other_registries_are_refused() {
        let args = json!({"allowed": ["docker.io/library/", "registry.example/"]});
        let policy: ImageRegistries = configured(&args);
        let check = |object: Value, expect: &[&str]| {
            let answer = policy.validate(&creation("pods", &object));
            let fields: Vec<_> = answer
                .err()
                .into_iter()
                .flat_map(|denial| denial.causes)
                .map(|cause| cause.field)
                .collect();
            assert_eq!(fields, expect, "{object}");
        };
        let pod = |image: &str| json!({"spec": {"containers": [{"image": image}]}});
        check(pod("nginx"), &[]);
        check(pod("nginx:1.27"), &[]);
        check(pod("registry.example/a/b:1"), &[]);
        check(pod("me/nginx"), &["spec.containers[0].image"]);
        check(
            pod("registry.example.evil/a"),
            &["spec.containers[0].image"],
        );
        check(pod("localhost:5000/a"), &["spec.containers[0].image"]);
        check(
            json!({"spec": {"initContainers": [{"image": "a"}, {"image": "quay.io/a"}], "containers": null}}),
            &["spec.initContainers[1].image"],
        );
        check(
            json!({"spec": {"jobTemplate": {"spec": {"template": pod("quay.io/a")}}}}),
            &["spec.jobTemplate.spec.template.spec.containers[0].image"],
        );
        check(json!({"spec": {"replicas": 1}}), &[]);
    }

    #[test]
    fn latest_gives_a_warning() {
        let policy: ImageRegistries = configured(&json!({"warnOnLatest": true}));
        let check = |image: &str, expect: usize| {
            let pod = json!({"spec": {"containers": [{"image": image}]}});
            let warnings = policy.validate(&creation("pods", &pod)).expect("accepted");
            assert_eq!(warnings.len(), expect, "{image}");
        };
        check("nginx", 1);
        check("nginx:latest", 1);
        check("nginx:1.27", 0);
        check("nginx@sha256:00", 0);
    }

    #[test]
    fn bad_arguments_are_refused() {
        let mut policy = ImageRegistries::default();
        assert!(policy.configure(r#"{"allowed": [""]}"#).is_err());
        assert!(policy.configure(r#"{"registries": []}"#).is_err());
    }
}

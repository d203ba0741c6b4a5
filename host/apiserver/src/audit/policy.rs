//! The audit policy: which rule a request meets first, and what that says. Pure.
//! Source: <https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/#audit-k8s-io-v1-Policy>

use oarlock_model::Cause;
use oarlock_registry::User;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth::Attributes;
use crate::route::ResourcePath;

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub const ALL: [Self; 4] = [
        Self::None,
        Self::Metadata,
        Self::Request,
        Self::RequestResponse,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When in a request's life an event is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    const ALL: [Self; 4] = [
        Self::RequestReceived,
        Self::ResponseStarted,
        Self::ResponseComplete,
        Self::Panic,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stages(u8);

impl Stages {
    pub fn has(self, stage: Stage) -> bool {
        self.0 & (1 << stage as u8) != 0
    }

    fn add(&mut self, stage: Stage) {
        self.0 |= 1 << stage as u8;
    }
}

/// What the policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub level: Level,
    pub omitted: Stages,
    pub omits_managed_fields: bool,
}

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    #[serde(default)]
    rules: Vec<WrittenRule>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenRule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    verdict: Verdict,
    written: WrittenRule,
}

#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
    otherwise: Verdict,
}

impl Policy {
    /// From YAML or JSON; the error says all that is wrong.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
        let document: Document = serde_saphyr::from_str(text)
            .map_err(|error| format!("failed decoding: {}", error.without_snippet()))?;
        let Document {
            api_version, kind, ..
        } = &document;
        if api_version != "audit.k8s.io/v1" || kind != "Policy" {
            return Err(format!(
                "it must be a Policy of audit.k8s.io/v1, but says apiVersion {api_version:?} and kind {kind:?}"
            ));
        }
        let mut causes = Vec::new();
        for (index, rule) in document.rules.iter().enumerate() {
            check(rule, &format!("rules[{index}]"), &mut causes);
        }
        let mut everywhere = Stages::default();
        stages(
            &document.omit_stages,
            "omitStages",
            &mut everywhere,
            &mut causes,
        );
        let by_default = document.omit_managed_fields;
        let otherwise = Verdict {
            level: Level::None,
            omitted: everywhere,
            omits_managed_fields: by_default,
        };
        let mut rules = Vec::with_capacity(document.rules.len());
        for (index, written) in document.rules.into_iter().enumerate() {
            let at = format!("rules[{index}]");
            let mut omitted = everywhere;
            stages(
                &written.omit_stages,
                &format!("{at}.omitStages"),
                &mut omitted,
                &mut causes,
            );
            let known = Level::ALL
                .into_iter()
                .find(|level| level.as_str() == written.level);
            let verdict = Verdict {
                level: known.unwrap_or(Level::None),
                omitted,
                omits_managed_fields: written.omit_managed_fields.unwrap_or(by_default),
            };
            rules.push(Rule { verdict, written });
        }
        if !causes.is_empty() {
            let told: Vec<String> = causes
                .iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message))
                .collect();
            return Err(told.join("; "));
        }
        if rules.is_empty() {
            return Err("it has no rules".to_owned());
        }
        Ok(Self { rules, otherwise })
    }

    /// By the first rule that fits.
    pub fn judge(&self, user: Option<&User>, attributes: &Attributes<'_>) -> Verdict {
        self.rules
            .iter()
            .find(|rule| rule.written.fits(user, attributes))
            .map_or(self.otherwise, |rule| rule.verdict)
    }
}

fn stages(names: &[String], at: &str, into: &mut Stages, causes: &mut Vec<Cause>) {
    for (index, name) in names.iter().enumerate() {
        match Stage::ALL.into_iter().find(|stage| stage.as_str() == name) {
            Some(stage) => into.add(stage),
            None => {
                let all = Stage::ALL.map(Stage::as_str).join(",");
                causes.push(Cause::invalid(
                    format!("{at}[{index}]"),
                    &json!(name),
                    &format!("allowed stages are {all}"),
                ));
            }
        }
    }
}

fn check(rule: &WrittenRule, at: &str, causes: &mut Vec<Cause>) {
    let levels = Level::ALL.map(Level::as_str);
    if rule.level.is_empty() {
        causes.push(Cause::required(format!("{at}.level"), ""));
    } else if !levels.contains(&rule.level.as_str()) {
        causes.push(Cause::not_supported(
            format!("{at}.level"),
            &json!(rule.level),
            &levels,
        ));
    }
    for (index, url) in rule.non_resource_urls.iter().enumerate() {
        if url == "*" {
            continue;
        }
        let mut fault = |why| {
            causes.push(Cause::invalid(
                format!("{at}.nonResourceURLs[{index}]"),
                &json!(url),
                why,
            ));
        };
        if !url.starts_with('/') {
            fault("non-resource URL rules must begin with a '/' character");
        }
        if url.find('*').is_some_and(|star| star + 1 < url.len()) {
            fault("non-resource URL wildcards '*' must be the final character of the rule");
        }
    }
    for of in &rule.resources {
        let named = oarlock_model::selector::is_dns_subdomain(&of.group);
        if !of.group.is_empty() && !named {
            causes.push(Cause::invalid(
                format!("{at}.resources.group"),
                &json!(of.group),
                "must be a DNS subdomain: the group alone, without its version",
            ));
        }
        if !of.resource_names.is_empty() && of.resources.is_empty() {
            causes.push(Cause::invalid(
                format!("{at}.resources.resourceNames"),
                &json!(of.resource_names),
                "using resourceNames requires at least one resource",
            ));
        }
    }
    let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    if !rule.non_resource_urls.is_empty() && of_resources {
        causes.push(Cause::invalid(
            format!("{at}.nonResourceURLs"),
            &json!(rule.non_resource_urls),
            "rules cannot apply to both regular resources and non-resource URLs",
        ));
    }
}

fn lists(list: &[String], text: &str) -> bool {
    list.iter().any(|one| one == text)
}

impl WrittenRule {
    fn fits(&self, user: Option<&User>, attributes: &Attributes<'_>) -> bool {
        let is_user = |user: &User| lists(&self.users, &user.name);
        let in_group = |user: &User| user.groups.iter().any(|g| lists(&self.user_groups, g));
        if !(self.users.is_empty() || user.is_some_and(is_user))
            || !(self.user_groups.is_empty() || user.is_some_and(in_group))
            || !(self.verbs.is_empty() || lists(&self.verbs, attributes.verb))
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return attributes
                .resource
                .is_some_and(|at| self.fits_resource(&at));
        }
        self.non_resource_urls.is_empty()
            || attributes.resource.is_none()
                && self
                    .non_resource_urls
                    .iter()
                    .any(|url| fits_path(attributes.path, url))
    }

    fn fits_resource(&self, at: &ResourcePath<'_>) -> bool {
        (self.namespaces.is_empty() || lists(&self.namespaces, at.namespace))
            && (self.resources.is_empty() || self.resources.iter().any(|of| of.fits(at)))
    }
}

fn fits_path(path: &str, pattern: &str) -> bool {
    pattern == path
        || pattern
            .strip_suffix('*')
            .is_some_and(|start| path.starts_with(start))
}

impl GroupResources {
    fn fits(&self, at: &ResourcePath<'_>) -> bool {
        if self.group != at.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !lists(&self.resource_names, at.name) {
            return false;
        }
        let sub = at.first_subresource();
        let one = |pattern: &String| match pattern.split_once('/') {
            None => pattern == "*" || (sub.is_empty() && pattern == at.resource),
            // All subresources of a resource are written with the resource itself among them.
            Some((resource, "*")) => resource == at.resource,
            Some(("*", wanted)) => !sub.is_empty() && wanted == sub,
            Some((resource, wanted)) => resource == at.resource && wanted == sub,
        };
        self.resources.iter().any(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::resource_path;

    const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy::read(
            format!(
                "{HEAD}omitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
                 - {{level: None, users: [quiet]}}\n\
                 - {{level: None, nonResourceURLs: ['/healthz*', /version]}}\n\
                 - {{level: Request, userGroups: [system:nodes], verbs: [update], resources: [{{group: '', resources: [nodes/status]}}]}}\n\
                 - {{level: Metadata, resources: [{{group: '', resources: ['pods/*', secrets], resourceNames: [p, s]}}], omitManagedFields: false}}\n\
                 - {{level: RequestResponse, resources: [{{group: apps, resources: ['*/scale']}}], omitStages: [Panic]}}\n\
                 - {{level: Metadata, resources: [{{group: batch}}], namespaces: [a]}}\n\
                 - {{level: Request, namespaces: ['']}}\n"
            )
            .as_bytes(),
        )
        .unwrap();
        let judge = |user: &User, verb: &str, path: &str| {
            let attributes = Attributes {
                verb,
                path,
                resource: resource_path(path),
                ..Attributes::default()
            };
            policy.judge(Some(user), &attributes)
        };
        let me = User {
            name: "me".to_owned(),
            groups: vec!["system:nodes".to_owned()],
            ..User::default()
        };
        let quiet = User {
            name: "quiet".to_owned(),
            ..User::default()
        };
        let level = |verb: &str, path: &str| judge(&me, verb, path).level;
        assert_eq!(judge(&quiet, "list", "/api/v1/pods").level, Level::None);
        assert_eq!(level("list", "/api/v1/pods"), Level::Request);
        assert_eq!(level("get", "/healthz/ping"), Level::None);
        assert_eq!(level("get", "/version"), Level::None);
        assert_eq!(level("get", "/version/x"), Level::None);
        let node = "/api/v1/nodes/n/status";
        assert_eq!(level("update", node), Level::Request);
        let pod = "/api/v1/namespaces/b/pods/p";
        let verdict = judge(&me, "get", pod);
        assert_eq!(verdict.level, Level::Metadata);
        assert!(!verdict.omits_managed_fields);
        assert!(verdict.omitted.has(Stage::RequestReceived));
        assert!(!verdict.omitted.has(Stage::Panic));
        assert_eq!(level("get", &format!("{pod}/log")), Level::Metadata);
        assert_eq!(level("get", &format!("{pod}q/log")), Level::None);
        assert_eq!(
            level("get", "/api/v1/namespaces/b/secrets/s"),
            Level::Metadata
        );
        let scale = judge(&me, "get", "/apis/apps/v1/namespaces/b/deployments/d/scale");
        assert_eq!(scale.level, Level::RequestResponse);
        assert!(scale.omitted.has(Stage::Panic) && scale.omits_managed_fields);
        assert_eq!(
            level("get", "/apis/apps/v1/namespaces/b/deployments/d"),
            Level::None
        );
        assert_eq!(
            level("list", "/apis/batch/v1/namespaces/a/jobs"),
            Level::Metadata
        );
        assert_eq!(
            level("list", "/apis/batch/v1/namespaces/b/jobs"),
            Level::None
        );
        assert_eq!(level("get", "/metrics"), Level::None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |rest: &str, expect: &str| {
            let error = Policy::read(format!("{HEAD}{rest}").as_bytes()).unwrap_err();
            assert!(error.contains(expect), "{rest}: {error}");
        };
        check("rules: []", "it has no rules");
        check(
            "rules:\n- {level: Loud}",
            r#"rules[0].level: Unsupported value: "Loud": supported values: "None", "Metadata", "Request", "RequestResponse""#,
        );
        check("rules:\n- {users: [a]}", "rules[0].level: Required value");
        check("rules:\n- {levle: None}", "levle");
        check(
            "rules:\n- {level: None, nonResourceURLs: ['/a*b', b]}",
            "must be the final character of the rule; rules[0].nonResourceURLs[1]",
        );
        check(
            "rules:\n- {level: None, nonResourceURLs: [/a], namespaces: [b]}",
            "rules cannot apply to both regular resources and non-resource URLs",
        );
        check(
            "rules:\n- {level: None, resources: [{group: apps/v1}, {resourceNames: [x]}], omitStages: [Late]}",
            r#"rules[0].omitStages[0]: Invalid value: "Late": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic"#,
        );
        let error = Policy::read(b"kind: Policy\nrules: []\n").unwrap_err();
        assert!(error.contains("audit.k8s.io/v1"), "{error}");
    }
}

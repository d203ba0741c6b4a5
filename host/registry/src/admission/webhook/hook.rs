//! One webhook of a configuration, ready to be asked, and which writes it is about.

use std::sync::Arc;
use std::time::Duration;

use oarlock_cel::{Program, policy};
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult};
use serde_json::Value;

use crate::admission::matching::Matching;
use crate::admission::policy::Names;
use crate::admission::{AdmissionRequest, Operation};
use crate::remote::ClientConfig;
use crate::{Registry, Target};

#[derive(Debug)]
pub(super) struct Hook {
    pub name: String,
    pub configuration: String,
    /// Tells it from others of the same name.
    pub uid: String,
    pub client: ClientConfig,
    pub timeout: Duration,
    /// What cannot be asked is as if it were not there.
    pub ignores_failures: bool,
    /// It has no side effects when nothing is written.
    pub dry_runs: bool,
    pub reinvoked: bool,
    /// Of AdmissionReview; `None`: it understands none that we know.
    pub review_version: Option<&'static str>,
    matching: Matching,
    conditions: Vec<Program>,
    /// Why it cannot be matched. (Validation lets no such webhook in.)
    broken: Option<String>,
}

fn list(of: &Value) -> &[Value] {
    of.as_array().map_or(&[], Vec::as_slice)
}

impl Hook {
    pub fn all_of(configuration: &str, object: &Value) -> Vec<Arc<Self>> {
        let hooks = list(&object["webhooks"]).iter().enumerate();
        hooks
            .map(|(at, hook)| Arc::new(Self::of(configuration, at, hook)))
            .collect()
    }

    fn of(configuration: &str, at: usize, hook: &Value) -> Self {
        let name = hook["name"].as_str().unwrap_or_default().to_owned();
        let mut broken = None;
        let matching = Matching::of(hook).unwrap_or_else(|why| {
            broken = Some(why);
            Matching::nothing()
        });
        let env = policy::env(false);
        let mut conditions = Vec::new();
        for one in list(&hook["matchConditions"]) {
            let text = one["expression"].as_str().unwrap_or_default();
            match policy::compile(text, &env, policy::Wanted::Bool) {
                Ok(program) => conditions.push(program),
                Err(why) => broken = broken.or(Some(why)),
            }
        }
        let known = |version: &Value| match version.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        };
        Self {
            uid: format!("{configuration}/{name}/{at}"),
            configuration: configuration.to_owned(),
            name,
            client: ClientConfig::of(&hook["clientConfig"]),
            timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(10)),
            ignores_failures: hook["failurePolicy"] == "Ignore",
            dry_runs: matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            reinvoked: hook["reinvocationPolicy"] == "IfNeeded",
            review_version: list(&hook["admissionReviewVersions"])
                .iter()
                .find_map(known),
            matching,
            conditions,
            broken,
        }
    }

    /// By the rules alone; cheap.
    pub fn may_concern(&self, target: &Target, operation: Operation) -> bool {
        self.broken.is_some() || self.matching.may_fit(target, operation)
    }

    /// The kind, in the version in which the webhook wants to be told, if it is to be asked.
    pub fn concerned(
        &self,
        registry: &Registry,
        request: &AdmissionRequest<'_>,
    ) -> ApiResult<Option<Arc<Row>>> {
        if let Some(why) = &self.broken {
            return Err(ApiError::internal(why));
        }
        let Some(row) = self
            .matching
            .row(registry, request.target, request.operation)
        else {
            return Ok(None);
        };
        if !self.matching.fits_object(request) {
            return Ok(None);
        }
        let target = request.target;
        match self.matching.fits_namespace(registry, request) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(_) => return Err(ApiError::not_found("", "namespaces", &target.namespace)),
        }
        if self.conditions.is_empty() {
            return Ok(Some(row));
        }
        let names = Names::new(registry, request, None);
        let activation = names.activation(&[]);
        match policy::matches(self.conditions.iter(), &activation, self.ignores_failures) {
            Ok(true) => Ok(Some(row)),
            Ok(false) => Ok(None),
            Err(why) => {
                let of = &target.row;
                Err(ApiError::forbidden(
                    &of.group,
                    &of.resource,
                    &target.name,
                    &why,
                ))
            }
        }
    }
}

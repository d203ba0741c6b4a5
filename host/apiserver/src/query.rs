//! Query parameters, read strictly and with upstream's messages. Unknown parameters are ignored, as upstream does.

use std::borrow::Cow;

use oarlock_model::{Cause, FieldSelector, LabelSelector};
use oarlock_registry::{DeleteOptions, FieldValidation, ListOptions, VersionMatch, WatchOptions};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::failure::Failure;

/// More parameters than this are refused.
const MAX_PARAMETERS: usize = 256;
const MAX_FIELD_MANAGER_BYTES: usize = 128;
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// The decoded parameters, in order.
#[derive(Debug, Default)]
pub(crate) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    pub fn parse(text: Option<&'a str>) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for part in text.unwrap_or("").split('&').filter(|p| !p.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err(Failure::bad_request("too many query parameters"));
            }
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode(key), decode(value)));
        }
        Ok(Self { pairs })
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_ref())
    }

    /// Whether one of the values of a parameter is this one.
    pub fn has(&self, key: &str, value: &str) -> bool {
        self.pairs.iter().any(|(k, v)| k == key && v == value)
    }

    fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or("")
    }

    /// Absent, `0` and `false` are false; everything else (even `?watch`) is true.
    pub fn flag(&self, key: &str) -> bool {
        self.optional_flag(key).unwrap_or(false)
    }

    pub fn optional_flag(&self, key: &str) -> Option<bool> {
        self.get(key)
            .map(|v| !(v == "0" || v.eq_ignore_ascii_case("false")))
    }

    fn int(&self, key: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.get(key).filter(|t| !t.is_empty()) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            let numeric = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let why = if numeric {
                "value out of range"
            } else {
                "invalid syntax"
            };
            Failure::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
        })
    }

    fn all(&self, key: &str) -> Vec<&str> {
        self.pairs
            .iter()
            .filter(|(k, _)| k == key)
            .map(|(_, v)| v.as_ref())
            .filter(|v| !v.is_empty())
            .collect()
    }

    pub fn pretty(&self) -> Option<bool> {
        self.optional_flag("pretty")
    }

    fn selectors(&self) -> Result<(LabelSelector, FieldSelector), Failure> {
        let labels = match self.text("labelSelector") {
            "" => LabelSelector::everything(),
            text => LabelSelector::parse(text).map_err(|e| Failure::bad_request(e.to_string()))?,
        };
        let fields = match self.text("fieldSelector") {
            "" => FieldSelector::everything(),
            text => FieldSelector::parse(text).map_err(|e| Failure::bad_request(e.to_string()))?,
        };
        Ok((labels, fields))
    }

    pub fn list_options(&self) -> Result<ListOptions, Failure> {
        let limit = self.int("limit")?.unwrap_or(0);
        self.int("timeoutSeconds")?;
        let (labels, fields) = self.selectors()?;
        let (version, token) = (self.text("resourceVersion"), self.text("continue"));
        let mut causes = Vec::new();
        let mut forbid = |field: &str, text: &str| causes.push(Cause::forbidden(field, text));
        let wanted = self.text("resourceVersionMatch");
        if !wanted.is_empty() {
            if version.is_empty() {
                let text = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                forbid("resourceVersionMatch", text);
            }
            if !token.is_empty() {
                let text = "resourceVersionMatch is forbidden when continue is provided";
                forbid("resourceVersionMatch", text);
            }
            if wanted == "Exact" && version == "0" {
                let text = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                forbid("resourceVersionMatch", text);
            }
        }
        if self.get("sendInitialEvents").is_some() {
            forbid(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            );
        }
        let version_match = match wanted {
            "" => None,
            "Exact" => Some(VersionMatch::Exact),
            NOT_OLDER_THAN => Some(VersionMatch::NotOlderThan),
            other => {
                let supported = ["Exact", NOT_OLDER_THAN, ""];
                causes.push(Cause::not_supported(
                    "resourceVersionMatch",
                    &json!(other),
                    &supported,
                ));
                None
            }
        };
        refuse("ListOptions", causes)?;
        Ok(ListOptions {
            labels,
            fields,
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: token.to_owned(),
            resource_version: version.to_owned(),
            version_match,
        })
    }

    pub fn watch_options(&self) -> Result<WatchOptions, Failure> {
        self.int("limit")?;
        let (labels, fields) = self.selectors()?;
        let send_initial_events = self.optional_flag("sendInitialEvents");
        let wanted = self.text("resourceVersionMatch");
        let mut causes = Vec::new();
        if send_initial_events.is_some() && wanted != NOT_OLDER_THAN {
            let text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            causes.push(Cause::forbidden("resourceVersionMatch", text));
        }
        if !wanted.is_empty() {
            if send_initial_events.is_none() {
                let text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                causes.push(Cause::forbidden("resourceVersionMatch", text));
            }
            if wanted != NOT_OLDER_THAN {
                causes.push(Cause::not_supported(
                    "resourceVersionMatch",
                    &json!(wanted),
                    &[NOT_OLDER_THAN],
                ));
            }
        }
        if !self.text("continue").is_empty() {
            let text = "resourceVersionMatch is forbidden when continue is provided";
            causes.push(Cause::forbidden("resourceVersionMatch", text));
        }
        refuse("ListOptions", causes)?;
        Ok(WatchOptions {
            labels,
            fields,
            resource_version: self.text("resourceVersion").to_owned(),
            version_match: (wanted == NOT_OLDER_THAN).then_some(VersionMatch::NotOlderThan),
            send_initial_events,
            bookmarks: self.flag("allowWatchBookmarks"),
        })
    }

    /// How long a watch may take, in seconds, if the caller said so.
    pub fn timeout_seconds(&self) -> Result<Option<u64>, Failure> {
        Ok(self
            .int("timeoutSeconds")?
            .and_then(|s| u64::try_from(s).ok())
            .filter(|&s| s > 0))
    }

    /// `dryRun`, `fieldManager`, `fieldValidation` and `force` of a write; `kind` as in `CreateOptions`.
    pub fn write_options(
        &self,
        kind: &str,
        patch: Option<PatchForm>,
        agent: &str,
    ) -> Result<WriteOptions, Failure> {
        if self.pairs.is_empty() && patch != Some(PatchForm::Apply) {
            return Ok(WriteOptions {
                field_manager: default_manager(agent),
                ..WriteOptions::default()
            });
        }
        let manager = self.text("fieldManager");
        let force = self.optional_flag("force");
        let mut causes = Vec::new();
        match patch {
            Some(PatchForm::Apply) if manager.is_empty() => {
                causes.push(Cause::required(
                    "fieldManager",
                    "is required for apply patch",
                ));
            }
            Some(PatchForm::Other) if force.is_some() => {
                causes.push(Cause::forbidden(
                    "force",
                    "may not be specified for non-apply patch",
                ));
            }
            _ => {}
        }
        check_manager(manager, &mut causes);
        let dry_run = check_dry_run(&self.all("dryRun"), &mut causes);
        let field_validation = match self.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                causes.push(Cause::not_supported(
                    "fieldValidation",
                    &json!(other),
                    &supported,
                ));
                FieldValidation::Warn
            }
        };
        refuse(kind, causes)?;
        let field_manager = if manager.is_empty() {
            default_manager(agent)
        } else {
            manager.to_owned()
        };
        Ok(WriteOptions {
            dry_run,
            field_manager,
            field_validation,
            force: force.unwrap_or(false),
        })
    }

    /// The options of a delete without a body, and whether it is a dry run.
    pub fn delete_options(&self) -> Result<(DeleteOptions, bool), Failure> {
        let grace_period_seconds = self.int("gracePeriodSeconds")?;
        let propagation = self.get("propagationPolicy").filter(|p| !p.is_empty());
        let options = DeleteOptions {
            grace_period_seconds,
            propagation_policy: propagation.map(str::to_owned),
            orphan_dependents: self.optional_flag("orphanDependents"),
            ..DeleteOptions::default()
        };
        let dry_run = check_delete(&options, &self.all("dryRun"))?;
        Ok((options, dry_run))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchForm {
    Apply,
    Other,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    pub force: bool,
}

/// Checks a delete's options; true for a dry run.
pub(crate) fn check_delete(options: &DeleteOptions, dry_run: &[&str]) -> Result<bool, Failure> {
    let mut causes = Vec::new();
    if let Some(policy) = options.propagation_policy.as_deref() {
        let supported = ["Foreground", "Background", "Orphan", "nil"];
        if options.orphan_dependents.is_some() {
            let text = "orphanDependents and deletionPropagation cannot be both set";
            causes.push(Cause::invalid("propagationPolicy", &json!(policy), text));
        } else if !supported[..3].contains(&policy) {
            causes.push(Cause::not_supported(
                "propagationPolicy",
                &json!(policy),
                &supported,
            ));
        }
    }
    let dry_run = check_dry_run(dry_run, &mut causes);
    refuse("DeleteOptions", causes)?;
    Ok(dry_run)
}

fn check_dry_run(values: &[&str], causes: &mut Vec<Cause>) -> bool {
    if values.iter().any(|&v| v != "All") {
        let all: Vec<Value> = values.iter().map(|&v| json!(v)).collect();
        causes.push(Cause::not_supported("dryRun", &Value::Array(all), &["All"]));
    }
    !values.is_empty()
}

fn check_manager(manager: &str, causes: &mut Vec<Cause>) {
    if manager.len() > MAX_FIELD_MANAGER_BYTES {
        causes.push(Cause::too_long("fieldManager", MAX_FIELD_MANAGER_BYTES));
    }
    if manager.chars().any(char::is_control) {
        let text = "should only contain printable characters";
        causes.push(Cause::invalid("fieldManager", &json!(manager), text));
    }
}

/// The part of the user agent before the first slash, as upstream names managers that did not name themselves.
fn default_manager(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or("");
    let mut manager = String::with_capacity(name.len().min(MAX_FIELD_MANAGER_BYTES));
    for c in name.chars().filter(|c| !c.is_control()) {
        if manager.len() + c.len_utf8() > MAX_FIELD_MANAGER_BYTES {
            break;
        }
        manager.push(c);
    }
    manager
}

fn refuse(kind: &str, causes: Vec<Cause>) -> Result<(), Failure> {
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Failure::options(kind, causes))
    }
}

fn decode(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
    }
    if text.contains('%') {
        percent_decode_str(text).decode_utf8_lossy()
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(failure: Failure) -> String {
        failure.body().unwrap()["message"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn list_refusals() {
        let check = |query: &str, code: u16, expect: &str| {
            let failure = Query::parse(Some(query))
                .unwrap()
                .list_options()
                .unwrap_err();
            assert_eq!(failure.code(), code, "{query}");
            assert_eq!(message(failure), expect, "{query}");
        };
        check(
            "limit=x",
            400,
            r#"strconv.ParseInt: parsing "x": invalid syntax"#,
        );
        check(
            "limit=99999999999999999999",
            400,
            r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#,
        );
        check(
            "resourceVersionMatch=Exact",
            422,
            r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#,
        );
        check(
            "sendInitialEvents=true",
            422,
            r#"ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"#,
        );
    }

    #[test]
    fn watch_refusals() {
        let check = |query: &str, expect: &str| {
            let failure = Query::parse(Some(query))
                .unwrap()
                .watch_options()
                .unwrap_err();
            assert_eq!(
                message(failure),
                format!("ListOptions.meta.k8s.io \"\" is invalid: {expect}"),
                "{query}"
            );
        };
        check(
            "sendInitialEvents=true&resourceVersionMatch=Exact",
            r#"[resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan, resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"]"#,
        );
        check(
            "continue=x",
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
        );
    }

    #[test]
    fn write_refusals_and_defaults() {
        let options = |query: &str, patch| {
            Query::parse(Some(query)).unwrap().write_options(
                "PatchOptions",
                patch,
                "kubectl/v1.37 (linux)",
            )
        };
        let defaulted = options("", None).unwrap();
        assert_eq!(defaulted.field_manager, "kubectl");
        assert!(
            options("dryRun=All&fieldManager=a%20b", None)
                .unwrap()
                .dry_run
        );
        let check = |query: &str, patch, expect: &str| {
            assert_eq!(
                message(options(query, patch).unwrap_err()),
                format!("PatchOptions.meta.k8s.io \"\" is invalid: {expect}")
            );
        };
        check(
            "dryRun=Bad",
            None,
            r#"dryRun: Unsupported value: ["Bad"]: supported values: "All""#,
        );
        check(
            "",
            Some(PatchForm::Apply),
            "fieldManager: Required value: is required for apply patch",
        );
        check(
            "force=true",
            Some(PatchForm::Other),
            "force: Forbidden: may not be specified for non-apply patch",
        );
        check(
            "fieldValidation=Bogus",
            None,
            r#"fieldValidation: Unsupported value: "Bogus": supported values: "", "Ignore", "Strict", "Warn""#,
        );
    }

    #[test]
    fn flags_are_true_unless_denied() {
        for (query, expect) in [
            ("watch", true),
            ("watch=bogus", true),
            ("watch=False", false),
            ("watch=0", false),
            ("", false),
        ] {
            assert_eq!(
                Query::parse(Some(query)).unwrap().flag("watch"),
                expect,
                "{query}"
            );
        }
    }
}

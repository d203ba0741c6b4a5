//! Checks what is written down and compiles its expressions; upstream's sentences.

use std::collections::HashSet;

use http::Uri;
use oarlock_cel::{Env, Program, Type};
use oarlock_model::{Cause, selector};
use serde_json::json;

use super::document::{self, Mapped};
use super::{Jwt, Mapping, Rule};
use crate::oidc::fetch;

const MAX_ISSUERS: usize = 64;
const RESERVED: [&str; 2] = ["kubernetes.io", "k8s.io"];
const UNVERIFIED: &str = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";

/// All issuers, or everything that is wrong with them as one text.
pub(super) fn all(all: Vec<document::Jwt>, algorithms: &[String]) -> Result<Vec<Jwt>, String> {
    let mut causes = Vec::new();
    if all.len() > MAX_ISSUERS {
        let why = format!(
            "jwt: Too many: {}: must have at most {MAX_ISSUERS} items",
            all.len()
        );
        return Err(why);
    }
    let (mut urls, mut discoveries) = (HashSet::new(), HashSet::new());
    for (index, jwt) in all.iter().enumerate() {
        let at = format!("jwt[{index}].issuer");
        if !jwt.issuer.url.is_empty() && !urls.insert(&jwt.issuer.url) {
            causes.push(Cause::duplicate(
                format!("{at}.url"),
                &json!(jwt.issuer.url),
            ));
        }
        let discovery = &jwt.issuer.discovery_url;
        if !discovery.is_empty() && !discoveries.insert(discovery) {
            causes.push(Cause::duplicate(
                format!("{at}.discoveryURL"),
                &json!(discovery),
            ));
        }
    }
    let checked: Vec<Option<Jwt>> = all
        .into_iter()
        .enumerate()
        .map(|(index, jwt)| one(jwt, &format!("jwt[{index}]"), algorithms, &mut causes))
        .collect();
    let texts: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    match texts.as_slice() {
        [] => Ok(checked.into_iter().flatten().collect()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

/// `None` if something is wrong, which `causes` then tell.
fn one(
    jwt: document::Jwt,
    at: &str,
    algorithms: &[String],
    causes: &mut Vec<Cause>,
) -> Option<Jwt> {
    issuer(&jwt.issuer, &format!("{at}.issuer"), causes);
    let mut compiler = Compiler {
        env: Env::new().with_variable("claims", Type::map(Type::String, Type::Dyn)),
        causes,
    };
    let mut verified = false;
    let mut required = Vec::new();
    let mut claim_rules = Vec::new();
    let (mut claims, mut expressions) = (HashSet::new(), HashSet::new());
    for (index, rule) in jwt.claim_validation_rules.iter().enumerate() {
        let at = format!("{at}.claimValidationRules[{index}]");
        let causes = &mut *compiler.causes;
        match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => causes.push(Cause::invalid(
                at,
                &json!(rule.claim),
                "claim and expression can't both be set",
            )),
            (true, true) => causes.push(Cause::required(at, "claim or expression is required")),
            (false, true) => {
                if !rule.message.is_empty() {
                    let why = "may not be specified when claim is set";
                    causes.push(Cause::invalid(
                        format!("{at}.message"),
                        &json!(rule.message),
                        why,
                    ));
                }
                if !claims.insert(&rule.claim) {
                    causes.push(Cause::duplicate(format!("{at}.claim"), &json!(rule.claim)));
                }
                required.push((rule.claim.clone(), rule.required_value.clone()));
            }
            (true, false) => {
                if !rule.required_value.is_empty() {
                    let why = "may not be specified when expression is set";
                    causes.push(Cause::invalid(
                        format!("{at}.requiredValue"),
                        &json!(rule.required_value),
                        why,
                    ));
                }
                let at = format!("{at}.expression");
                if !expressions.insert(&rule.expression) {
                    causes.push(Cause::duplicate(at, &json!(rule.expression)));
                    continue;
                }
                if let Some(program) = compiler.condition(&rule.expression, at) {
                    verified |= program.selects("claims", "email_verified");
                    let message = rule.message.clone();
                    claim_rules.push(Rule { program, message });
                }
            }
        }
    }
    let mappings = jwt.claim_mappings;
    let at_mappings = format!("{at}.claimMappings");
    let username = compiler.mapping(&mappings.username, &format!("{at_mappings}.username"), true);
    let groups = compiler.mapping(&mappings.groups, &format!("{at_mappings}.groups"), false);
    let mut by_email = false;
    if let Some(Mapping::Expression(program)) = &username {
        by_email = program.selects("claims", "email");
        verified |= program.selects("claims", "email_verified");
    }
    let uid = compiler.uid(&mappings.uid, &format!("{at_mappings}.uid"));
    let mut extra = Vec::new();
    let mut keys = HashSet::new();
    for (index, one) in mappings.extra.iter().enumerate() {
        let at = format!("{at_mappings}.extra[{index}]");
        extra_key(&one.key, &format!("{at}.key"), compiler.causes);
        if !keys.insert(&one.key) {
            let cause = Cause::duplicate(format!("{at}.key"), &json!(one.key));
            compiler.causes.push(cause);
            continue;
        }
        let at = format!("{at}.valueExpression");
        if one.value_expression.is_empty() {
            compiler.causes.push(Cause::required(at, ""));
        } else if let Some(program) = compiler.program(&one.value_expression, at) {
            verified |= program.selects("claims", "email_verified");
            extra.push((one.key.clone(), program));
        }
    }
    if by_email && !verified {
        compiler.causes.push(Cause::invalid(
            format!("{at_mappings}.username.expression"),
            &json!(mappings.username.expression),
            UNVERIFIED,
        ));
    }
    compiler.env = Env::new().with_variable("user", user_type());
    let mut user_rules = Vec::new();
    let mut expressions = HashSet::new();
    for (index, rule) in jwt.user_validation_rules.iter().enumerate() {
        let at = format!("{at}.userValidationRules[{index}].expression");
        if rule.expression.is_empty() {
            compiler.causes.push(Cause::required(at, ""));
        } else if !expressions.insert(&rule.expression) {
            let cause = Cause::duplicate(at, &json!(rule.expression));
            compiler.causes.push(cause);
        } else if let Some(program) = compiler.condition(&rule.expression, at) {
            let message = rule.message.clone();
            user_rules.push(Rule { program, message });
        }
    }
    let text = |text: String| (!text.is_empty()).then_some(text);
    Some(Jwt {
        url: jwt.issuer.url,
        discovery_url: text(jwt.issuer.discovery_url),
        ca_pem: text(jwt.issuer.certificate_authority),
        audiences: jwt.issuer.audiences,
        algorithms: algorithms.to_vec(),
        username: username?,
        groups,
        uid,
        extra,
        required,
        claim_rules,
        user_rules,
    })
}

fn issuer(issuer: &document::Issuer, at: &str, causes: &mut Vec<Cause>) {
    if issuer.url.is_empty() {
        causes.push(Cause::required(format!("{at}.url"), ""));
    } else {
        url(&issuer.url, &format!("{at}.url"), causes);
    }
    let discovery = &issuer.discovery_url;
    if !discovery.is_empty() {
        let at = format!("{at}.discoveryURL");
        if issuer.url.trim_end_matches('/') == discovery.trim_end_matches('/') {
            let why = "discoveryURL must be different from URL";
            causes.push(Cause::invalid(&at, &json!(discovery), why));
        }
        url(discovery, &at, causes);
    }
    audiences(issuer, at, causes);
    if !issuer.certificate_authority.is_empty()
        && let Err(why) = fetch::roots(&issuer.certificate_authority)
    {
        let at = format!("{at}.certificateAuthority");
        causes.push(Cause::invalid(at, &json!("<omitted>"), &why));
    }
}

fn url(text: &str, at: &str, causes: &mut Vec<Cause>) {
    let mut refuse = |why: &str| causes.push(Cause::invalid(at, &json!(text), why));
    let (plain, fragment) = text.split_once('#').unwrap_or((text, ""));
    let uri: Uri = match plain.parse() {
        Ok(uri) => uri,
        Err(error) => return refuse(&error.to_string()),
    };
    if uri.scheme_str() != Some("https") {
        refuse("URL scheme must be https");
    }
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        refuse("URL must not contain a username or password");
    }
    if uri.query().is_some_and(|query| !query.is_empty()) {
        refuse("URL must not contain a query");
    }
    if !fragment.is_empty() {
        refuse("URL must not contain a fragment");
    }
}

fn audiences(issuer: &document::Issuer, at: &str, causes: &mut Vec<Cause>) {
    let (all, policy) = (&issuer.audiences, issuer.audience_match_policy.as_str());
    let field = format!("{at}.audiences");
    if all.is_empty() {
        let why = format!("at least one {field} is required");
        causes.push(Cause::required(field, &why));
        return;
    }
    let mut seen = HashSet::new();
    for (index, audience) in all.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if audience.is_empty() {
            causes.push(Cause::required(&field, ""));
        }
        if !seen.insert(audience) {
            causes.push(Cause::duplicate(field, &json!(audience)));
        }
    }
    let why = match all.len() {
        1 if !policy.is_empty() && policy != "MatchAny" => {
            "audienceMatchPolicy must be empty or MatchAny for single audience"
        }
        2.. if policy != "MatchAny" => {
            "audienceMatchPolicy must be MatchAny for multiple audiences"
        }
        _ => return,
    };
    let field = format!("{at}.audienceMatchPolicy");
    causes.push(Cause::invalid(field, &json!(policy), why));
}

fn extra_key(key: &str, at: &str, causes: &mut Vec<Cause>) {
    let (domain, path) = key.split_once('/').unwrap_or((key, ""));
    if key.is_empty() {
        causes.push(Cause::required(at, ""));
        return;
    }
    let mut refuse = |why: &str| causes.push(Cause::invalid(at, &json!(key), why));
    if path.is_empty() || !selector::is_dns_subdomain(domain) {
        refuse("must be a domain-prefixed path (such as \"acme.io/foo\")");
    }
    if key != key.to_lowercase() {
        refuse("must be lowercase");
    }
    let reserved = |of: &str| {
        domain
            .strip_suffix(of)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if key.contains('/') && RESERVED.iter().any(|of| reserved(of)) {
        refuse("k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
    }
}

fn user_type() -> Type {
    let texts = || Type::list(Type::String);
    Type::object(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", texts()),
            ("extra", Type::map(Type::String, texts())),
        ],
    )
}

struct Compiler<'a> {
    env: Env,
    causes: &'a mut Vec<Cause>,
}

impl Compiler<'_> {
    fn program(&mut self, text: &str, at: String) -> Option<Program> {
        match Program::compile(text, &self.env) {
            Ok(program) => Some(program),
            Err(why) => {
                let why = format!("compilation failed: {why}");
                self.causes.push(Cause::invalid(at, &json!(text), &why));
                None
            }
        }
    }

    fn condition(&mut self, text: &str, at: String) -> Option<Program> {
        let program = self.program(text, at.clone())?;
        if *program.result() == Type::Bool {
            return Some(program);
        }
        let cause = Cause::invalid(at, &json!(text), "must evaluate to bool");
        self.causes.push(cause);
        None
    }

    fn mapping(&mut self, of: &Mapped, at: &str, needed: bool) -> Option<Mapping> {
        match (of.claim.is_empty(), of.expression.is_empty()) {
            (false, false) => {
                let why = "claim and expression can't both be set";
                self.causes.push(Cause::invalid(at, &json!(""), why));
                None
            }
            (true, true) => {
                if needed {
                    let why = "claim or expression is required";
                    self.causes.push(Cause::required(at, why));
                }
                None
            }
            (true, false) => {
                if let Some(prefix) = &of.prefix {
                    let why = "may not be specified when expression is set";
                    let at = format!("{at}.prefix");
                    self.causes.push(Cause::invalid(at, &json!(prefix), why));
                }
                self.program(&of.expression, format!("{at}.expression"))
                    .map(Mapping::Expression)
            }
            (false, true) => {
                let Some(prefix) = of.prefix.clone() else {
                    let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    let cause = Cause::required(format!("{at}.prefix"), why);
                    self.causes.push(cause);
                    return None;
                };
                let claim = of.claim.clone();
                Some(Mapping::Claim { claim, prefix })
            }
        }
    }

    fn uid(&mut self, of: &Mapped, at: &str) -> Option<Mapping> {
        let with_prefix = Mapped {
            prefix: (!of.claim.is_empty()).then(String::new),
            claim: of.claim.clone(),
            expression: of.expression.clone(),
        };
        self.mapping(&with_prefix, at, false)
    }
}

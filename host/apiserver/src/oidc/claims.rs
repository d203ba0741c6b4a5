//! What a token claims becomes a user, and the rules that claims and user must keep; sentences are upstream's.

use oarlock_cel::policy::failed;
use oarlock_cel::{Activation, Program, Value as Cel};
use oarlock_registry::User;
use serde_json::{Value, json};

use super::config::{Jwt, Mapping, Rule};
use crate::auth::AUTHENTICATED;

const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The user that these claims (which are to be believed) are about.
pub(super) fn user(jwt: &Jwt, claims: &Value) -> Result<User, String> {
    let mut user = User {
        name: username(&jwt.username, claims)?,
        ..User::default()
    };
    if let Some(mapping) = &jwt.groups {
        user.groups = groups(mapping, claims)?;
    }
    match &jwt.uid {
        None => {}
        Some(Mapping::Claim { claim, .. }) => {
            user.uid = text(claims, claim)
                .map_err(|why| format!("oidc: parse uid claim {claim:?}: {why}"))?;
        }
        Some(Mapping::Expression(program)) => {
            let told = |why: &str| format!("oidc: error evaluating uid claim expression: {why}");
            let value = evaluate(program, "claims", claims).map_err(|why| told(&why))?;
            let Value::String(uid) = value else {
                return Err(told("uid claim expression must return a string"));
            };
            user.uid = uid;
        }
    }
    if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
        user.extra
            .push((CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]));
    }
    for (key, program) in &jwt.extra {
        let values = evaluate(program, "claims", claims)?;
        let values = texts(values).map_err(|why| {
            let expression = program.text();
            format!("oidc: error evaluating extra claim expression: {expression}: {why}")
        })?;
        if !values.is_empty() {
            user.extra.push((key.clone(), values));
        }
    }
    user.extra.sort();
    for (claim, wanted) in &jwt.required {
        if claims.get(claim).is_none() {
            return Err(format!(
                "oidc: required claim {claim} not present in ID token"
            ));
        }
        let value =
            text(claims, claim).map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
        if value != *wanted {
            return Err(format!(
                "oidc: required claim {claim} value does not match. Got = {value}, want = {wanted}"
            ));
        }
    }
    keep(&jwt.claim_rules, "claims", claims)
        .map_err(|why| format!("oidc: error evaluating claim validation expression: {why}"))?;
    if !jwt.user_rules.is_empty() {
        let extra: serde_json::Map<String, Value> = user
            .extra
            .iter()
            .map(|(key, values)| (key.clone(), json!(values)))
            .collect();
        let shown =
            json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": extra});
        keep(&jwt.user_rules, "user", &shown)
            .map_err(|why| format!("oidc: error evaluating user info validation rule: {why}"))?;
    }
    if !user.groups.iter().any(|group| group == AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    Ok(user)
}

fn username(mapping: &Mapping, claims: &Value) -> Result<String, String> {
    let (claim, prefix) = match mapping {
        Mapping::Claim { claim, prefix } => (claim, prefix),
        Mapping::Expression(program) => {
            let told =
                |why: &str| format!("oidc: error evaluating username claim expression: {why}");
            return match evaluate(program, "claims", claims).map_err(|why| told(&why))? {
                Value::String(name) if name.is_empty() => {
                    Err("oidc: empty username via CEL expression is not allowed".to_owned())
                }
                Value::String(name) => Ok(name),
                _ => Err(told("username claim expression must return a string")),
            };
        }
    };
    let name = text(claims, claim)
        .map_err(|why| format!("oidc: parse username claims {claim:?}: {why}"))?;
    if claim == "email" {
        match claims.get("email_verified") {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Bool(false) | Value::Null) => {
                return Err("oidc: email not verified".to_owned());
            }
            Some(other) => {
                let why = mismatch(other, "bool");
                return Err(format!("oidc: parse 'email_verified' claim: {why}"));
            }
        }
    }
    Ok(format!("{prefix}{name}"))
}

fn groups(mapping: &Mapping, claims: &Value) -> Result<Vec<String>, String> {
    match mapping {
        Mapping::Claim { claim, prefix } => {
            let told = |value: &Value| {
                let why = mismatch(value, "string");
                format!("oidc: parse groups claim {claim:?}: {why}")
            };
            let all = match claims.get(claim) {
                None | Some(Value::Null) => return Ok(Vec::new()),
                Some(Value::String(one)) => vec![one.clone()],
                Some(value @ Value::Array(all)) => {
                    let texts: Option<Vec<String>> =
                        all.iter().map(|v| v.as_str().map(str::to_owned)).collect();
                    texts.ok_or_else(|| told(value))?
                }
                Some(other) => return Err(told(other)),
            };
            Ok(all.iter().map(|group| format!("{prefix}{group}")).collect())
        }
        Mapping::Expression(program) => evaluate(program, "claims", claims)
            .and_then(texts)
            .map_err(|why| format!("oidc: error evaluating group claim expression: {why}")),
    }
}

/// A claim that must be a text.
fn text(claims: &Value, claim: &str) -> Result<String, String> {
    match claims.get(claim) {
        None => Err("claim not present".to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Null) => Ok(String::new()),
        Some(other) => Err(mismatch(other, "string")),
    }
}

/// What Go says of a value of the wrong kind.
fn mismatch(value: &Value, wanted: &str) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into Go value of type {wanted}")
}

fn evaluate(program: &Program, name: &str, value: &Value) -> Result<Value, String> {
    let names = Activation::new().with(name, Cel::json(value));
    let found = program
        .eval(&names)
        .map_err(|error| failed(program.text(), &error))?;
    found
        .to_json()
        .map_err(|error| failed(program.text(), &error))
}

/// One text or a list of texts, without empty ones.
fn texts(value: Value) -> Result<Vec<String>, String> {
    let wrong = || "expression must return a string or a list of strings".to_owned();
    let mut all = match value {
        Value::Null => Vec::new(),
        Value::String(one) => vec![one],
        Value::Array(all) => all
            .into_iter()
            .map(|value| match value {
                Value::String(text) => Ok(text),
                _ => Err(wrong()),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    all.retain(|text| !text.is_empty());
    Ok(all)
}

fn keep(rules: &[Rule], name: &str, value: &Value) -> Result<(), String> {
    for rule in rules {
        if evaluate(&rule.program, name, value)? != true {
            return Err(format!(
                "validation expression '{}' failed: {}",
                rule.program.text(),
                rule.message
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oidc::config::AuthenticationConfig;

    fn by(mappings: &str, rest: &str, claims: Value) -> Result<User, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {{url: https://i, audiences: [a]}}\n  claimMappings: {mappings}\n{rest}"
        );
        std::fs::write(&file, text).unwrap();
        let config = AuthenticationConfig::read(&file).unwrap();
        user(&config.jwt[0], &claims)
    }

    #[test]
    fn claims_are_mapped() {
        let found = by(
            "{username: {claim: sub, prefix: 'o:'}, groups: {claim: groups, prefix: 'g:'}, uid: {claim: id}}",
            "",
            json!({"sub": "jane", "groups": ["a", "b"], "id": "7", "jti": "t"}),
        )
        .unwrap();
        assert_eq!((found.name.as_str(), found.uid.as_str()), ("o:jane", "7"));
        assert_eq!(found.groups, ["g:a", "g:b", AUTHENTICATED]);
        assert_eq!(
            found.extra,
            [(CREDENTIAL_ID.to_owned(), vec!["JTI=t".to_owned()])]
        );
        let found = by(
            "{username: {expression: \"claims.sub + '@x'\"}, groups: {expression: \"claims.roles.split(',')\"}, uid: {expression: claims.id}, extra: [{key: example.com/a, valueExpression: \"claims.list\"}, {key: example.com/b, valueExpression: \"''\"}]}",
            "  claimValidationRules: [{expression: 'claims.exp - claims.nbf <= 100', message: too long}]\n  userValidationRules: [{expression: \"!user.username.startsWith('system:')\", message: reserved}]\n",
            json!({"sub": "jane", "roles": "a,,b", "id": "7", "list": ["p", "q"], "exp": 150, "nbf": 100}),
        )
        .unwrap();
        assert_eq!((found.name.as_str(), found.uid.as_str()), ("jane@x", "7"));
        assert_eq!(found.groups, ["a", "b", AUTHENTICATED]);
        let values = vec!["p".to_owned(), "q".to_owned()];
        assert_eq!(found.extra, [("example.com/a".to_owned(), values)]);
    }

    #[test]
    fn refusals_read_as_upstream() {
        let sub = "{username: {claim: sub, prefix: ''}, groups: {claim: groups, prefix: ''}}";
        let email = "{username: {claim: email, prefix: ''}}";
        let expression = "{username: {expression: claims.sub}}";
        for (mappings, rest, claims, expect) in [
            (
                sub,
                "",
                json!({}),
                r#"oidc: parse username claims "sub": claim not present"#,
            ),
            (
                sub,
                "",
                json!({"sub": 7}),
                r#"oidc: parse username claims "sub": json: cannot unmarshal number into Go value of type string"#,
            ),
            (
                sub,
                "",
                json!({"sub": "a", "groups": {}}),
                r#"oidc: parse groups claim "groups": json: cannot unmarshal object into Go value of type string"#,
            ),
            (
                email,
                "",
                json!({"email": "a@b", "email_verified": false}),
                "oidc: email not verified",
            ),
            (
                expression,
                "",
                json!({"sub": ""}),
                "oidc: empty username via CEL expression is not allowed",
            ),
            (
                expression,
                "",
                json!({"sub": 3}),
                "oidc: error evaluating username claim expression: username claim expression must return a string",
            ),
            (
                expression,
                "",
                json!({}),
                "oidc: error evaluating username claim expression: expression 'claims.sub' resulted in error: no such key: sub",
            ),
            (
                sub,
                "  claimValidationRules: [{claim: hd, requiredValue: x}]\n",
                json!({"sub": "a"}),
                "oidc: required claim hd not present in ID token",
            ),
            (
                sub,
                "  claimValidationRules: [{claim: hd, requiredValue: x}]\n",
                json!({"sub": "a", "hd": "y"}),
                "oidc: required claim hd value does not match. Got = y, want = x",
            ),
            (
                sub,
                "  claimValidationRules: [{expression: 'claims.level > 3', message: too low}]\n",
                json!({"sub": "a", "level": 2}),
                "oidc: error evaluating claim validation expression: validation expression 'claims.level > 3' failed: too low",
            ),
            (
                sub,
                "  userValidationRules: [{expression: \"!user.username.startsWith('system:')\", message: reserved}]\n",
                json!({"sub": "system:admin"}),
                "oidc: error evaluating user info validation rule: validation expression '!user.username.startsWith('system:')' failed: reserved",
            ),
        ] {
            assert_eq!(by(mappings, rest, claims).unwrap_err(), expect);
        }
    }
}

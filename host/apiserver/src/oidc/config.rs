//! Which issuers are believed, and what their claims mean: from the `--oidc-*` flags or from a file
//! (`AuthenticationConfiguration`). Both come to the same [`Jwt`]; refusals are upstream's.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration>

mod document;
mod validate;

use std::path::{Path, PathBuf};

use oarlock_cel::Program;

use document::{Document, Mapped};

/// What `ring` checks, and what upstream takes besides (a token that is signed so is never good).
const ALGORITHMS: [&str; 9] = [
    "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
];

#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("cannot read {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file is no such document.
    #[error("the authentication configuration cannot be read: {0}")]
    Document(String),
    #[error("{0}")]
    Invalid(String),
    #[error("certificate authority: {0}")]
    Authority(String),
    #[error(
        "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"
    )]
    Incomplete,
    #[error("unsupported signing algorithm {0:?}")]
    Algorithm(String),
    #[error("invalid required claim {0:?}: want key=value")]
    RequiredClaim(String),
}

/// One issuer, checked and compiled.
#[derive(Debug)]
pub struct Jwt {
    pub(super) url: String,
    pub(super) discovery_url: Option<String>,
    /// `None`: whom the system trusts.
    pub(super) ca_pem: Option<String>,
    pub(super) audiences: Vec<String>,
    pub(super) algorithms: Vec<String>,
    pub(super) username: Mapping,
    pub(super) groups: Option<Mapping>,
    pub(super) uid: Option<Mapping>,
    pub(super) extra: Vec<(String, Program)>,
    /// Claims that must have these values.
    pub(super) required: Vec<(String, String)>,
    pub(super) claim_rules: Vec<Rule>,
    pub(super) user_rules: Vec<Rule>,
}

#[derive(Debug)]
pub(super) enum Mapping {
    Claim { claim: String, prefix: String },
    Expression(Program),
}

#[derive(Debug)]
pub(super) struct Rule {
    pub program: Program,
    pub message: String,
}

/// `--authentication-config`.
#[derive(Debug, Default)]
pub struct AuthenticationConfig {
    pub jwt: Vec<Jwt>,
    /// Whether callers without credentials are let in, and the only paths for them (none: all). `None`: not said.
    pub anonymous: Option<(bool, Vec<String>)>,
}

impl AuthenticationConfig {
    pub fn read(path: &Path) -> Result<Self, OidcError> {
        Self::parse(&read(path)?)
    }

    fn parse(text: &str) -> Result<Self, OidcError> {
        let value = crate::body::yaml(text.as_bytes()).map_err(OidcError::Document)?;
        let document: Document =
            serde_json::from_value(value).map_err(|why| OidcError::Document(why.to_string()))?;
        if !document.is_known() {
            return Err(OidcError::Document(format!(
                "no kind {:?} is registered for version {:?}",
                document.kind, document.api_version
            )));
        }
        let anonymous = document.anonymous.map(|anonymous| {
            let paths: Vec<String> = anonymous.conditions.into_iter().map(|c| c.path).collect();
            (anonymous.enabled, paths)
        });
        if matches!(&anonymous, Some((false, paths)) if !paths.is_empty()) {
            let why = "anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined";
            return Err(OidcError::Invalid(why.to_owned()));
        }
        let algorithms: Vec<String> = ALGORITHMS.map(str::to_owned).to_vec();
        let jwt = validate::all(document.jwt, &algorithms).map_err(OidcError::Invalid)?;
        Ok(Self { jwt, anonymous })
    }
}

fn read(path: &Path) -> Result<String, OidcError> {
    std::fs::read_to_string(path).map_err(|source| OidcError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The `--oidc-*` flags.
#[derive(Clone, Debug, Default)]
pub struct OidcFlags {
    pub issuer_url: String,
    pub client_id: String,
    /// Empty: `sub`.
    pub username_claim: String,
    /// Empty: the issuer's URL and `#`, unless the claim is `email`; `-`: none.
    pub username_prefix: String,
    /// Empty: no groups.
    pub groups_claim: String,
    pub groups_prefix: String,
    pub ca_file: Option<PathBuf>,
    /// `key=value`.
    pub required_claims: Vec<String>,
    /// Empty: RS256.
    pub signing_algs: Vec<String>,
}

impl OidcFlags {
    fn any(&self) -> bool {
        let texts = [
            &self.issuer_url,
            &self.client_id,
            &self.username_claim,
            &self.username_prefix,
            &self.groups_claim,
            &self.groups_prefix,
        ];
        texts.iter().any(|text| !text.is_empty())
            || self.ca_file.is_some()
            || !self.required_claims.is_empty()
            || !self.signing_algs.is_empty()
    }

    /// `None`: no flag is set.
    pub fn issuer(&self) -> Result<Option<Jwt>, OidcError> {
        if !self.any() {
            return Ok(None);
        }
        if self.issuer_url.is_empty() || self.client_id.is_empty() {
            return Err(OidcError::Incomplete);
        }
        if let Some(bad) = self
            .signing_algs
            .iter()
            .find(|algorithm| !ALGORITHMS.contains(&algorithm.as_str()))
        {
            return Err(OidcError::Algorithm(bad.clone()));
        }
        let algorithms = if self.signing_algs.is_empty() {
            vec!["RS256".to_owned()]
        } else {
            self.signing_algs.clone()
        };
        let claim = match self.username_claim.as_str() {
            "" => "sub",
            claim => claim,
        };
        let prefix = match self.username_prefix.as_str() {
            "-" => String::new(),
            "" if claim != "email" => format!("{}#", self.issuer_url),
            prefix => prefix.to_owned(),
        };
        let mut wanted = document::Jwt::default();
        wanted.issuer.url.clone_from(&self.issuer_url);
        wanted.issuer.audiences = vec![self.client_id.clone()];
        if let Some(file) = &self.ca_file {
            wanted.issuer.certificate_authority = read(file)?;
        }
        wanted.claim_mappings.username = Mapped::of_claim(claim, &prefix);
        if !self.groups_claim.is_empty() {
            wanted.claim_mappings.groups =
                Mapped::of_claim(&self.groups_claim, &self.groups_prefix);
        }
        for required in &self.required_claims {
            let (claim, value) = required
                .split_once('=')
                .ok_or_else(|| OidcError::RequiredClaim(required.clone()))?;
            wanted.claim_validation_rules.push(document::ClaimRule {
                claim: claim.to_owned(),
                required_value: value.to_owned(),
                ..document::ClaimRule::default()
            });
        }
        let mut all = validate::all(vec![wanted], &algorithms).map_err(OidcError::Invalid)?;
        Ok(all.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(jwt: &str) -> Result<AuthenticationConfig, OidcError> {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        AuthenticationConfig::parse(&format!("{head}{jwt}"))
    }

    fn why(jwt: &str) -> String {
        config(jwt).unwrap_err().to_string()
    }

    const ISSUER: &str =
        "jwt:\n- issuer: {url: https://i, audiences: [a]}\n  claimMappings:\n    username: ";

    #[test]
    fn flags_are_an_issuer() {
        let flags = OidcFlags {
            issuer_url: "https://issuer".to_owned(),
            client_id: "me".to_owned(),
            groups_claim: "groups".to_owned(),
            required_claims: vec!["hd=example.com".to_owned()],
            ..OidcFlags::default()
        };
        let jwt = flags.issuer().unwrap().unwrap();
        assert!(
            matches!(&jwt.username, Mapping::Claim { claim, prefix } if claim == "sub" && prefix == "https://issuer#")
        );
        assert!(matches!(&jwt.groups, Some(Mapping::Claim { prefix, .. }) if prefix.is_empty()));
        assert_eq!(jwt.required, [("hd".to_owned(), "example.com".to_owned())]);
        assert_eq!(jwt.algorithms, ["RS256"]);
        let prefix = |claim: &str, prefix: &str| {
            let flags = OidcFlags {
                username_claim: claim.to_owned(),
                username_prefix: prefix.to_owned(),
                ..flags.clone()
            };
            match flags.issuer().unwrap().unwrap().username {
                Mapping::Claim { prefix, .. } => prefix,
                Mapping::Expression(_) => panic!(),
            }
        };
        assert_eq!(prefix("email", ""), "");
        assert_eq!(prefix("sub", "-"), "");
        assert_eq!(prefix("sub", "x:"), "x:");
        assert!(OidcFlags::default().issuer().unwrap().is_none());
        let part = OidcFlags {
            client_id: "me".to_owned(),
            ..OidcFlags::default()
        };
        assert!(matches!(part.issuer(), Err(OidcError::Incomplete)));
        let plain = OidcFlags {
            issuer_url: "http://issuer".to_owned(),
            ..flags
        };
        assert_eq!(
            plain.issuer().unwrap_err().to_string(),
            r#"jwt[0].issuer.url: Invalid value: "http://issuer": URL scheme must be https"#
        );
    }

    #[test]
    fn a_file_is_read_strictly() {
        let good = format!(
            "{ISSUER}{{expression: \"'x:' + claims.sub\"}}\n    groups: {{claim: g, prefix: \"\"}}\n    uid: {{claim: u}}\n    extra: [{{key: example.com/tenant, valueExpression: claims.tenant}}]\n  claimValidationRules: [{{claim: hd, requiredValue: h}}, {{expression: \"claims.level > 3\", message: low}}]\n  userValidationRules: [{{expression: \"!user.username.startsWith('system:')\", message: reserved}}]\nanonymous: {{enabled: true, conditions: [{{path: /livez}}]}}\n"
        );
        let read = config(&good).unwrap();
        assert_eq!(read.anonymous, Some((true, vec!["/livez".to_owned()])));
        assert_eq!((read.jwt.len(), read.jwt[0].extra.len()), (1, 1));
        assert!(why("jwt: []\nother: 1\n").contains("unknown field `other`"));
        let other = "apiVersion: apiserver.config.k8s.io/v2\nkind: AuthenticationConfiguration\n";
        assert_eq!(
            AuthenticationConfig::parse(other).unwrap_err().to_string(),
            "the authentication configuration cannot be read: no kind \"AuthenticationConfiguration\" is registered for version \"apiserver.config.k8s.io/v2\""
        );
    }

    #[test]
    fn what_is_wrong_is_told_as_upstream() {
        for (jwt, expect) in [
            (
                "jwt: [{issuer: {url: \"\", audiences: []}, claimMappings: {username: {claim: sub, prefix: \"\"}}}]",
                "[jwt[0].issuer.url: Required value, jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required]".to_owned(),
            ),
            (
                &format!("{ISSUER}{{claim: sub}}"),
                "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing".to_owned(),
            ),
            (
                &format!("{ISSUER}{{}}"),
                "jwt[0].claimMappings.username: Required value: claim or expression is required".to_owned(),
            ),
            (
                &format!("{ISSUER}{{claim: a, prefix: \"\", expression: b}}"),
                "jwt[0].claimMappings.username: Invalid value: \"\": claim and expression can't both be set".to_owned(),
            ),
            (
                &format!("{ISSUER}{{expression: claims.email}}"),
                "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression".to_owned(),
            ),
            (
                &format!("{ISSUER}{{claim: sub, prefix: \"\"}}\n  claimValidationRules: [{{expression: claims.x}}]"),
                "jwt[0].claimValidationRules[0].expression: Invalid value: \"claims.x\": must evaluate to bool".to_owned(),
            ),
            (
                &format!("{ISSUER}{{claim: sub, prefix: \"\"}}\n    extra: [{{key: a.kubernetes.io/B, valueExpression: claims.x}}]"),
                "[jwt[0].claimMappings.extra[0].key: Invalid value: \"a.kubernetes.io/B\": must be lowercase, jwt[0].claimMappings.extra[0].key: Invalid value: \"a.kubernetes.io/B\": k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use]".to_owned(),
            ),
            (
                "jwt: [{issuer: {url: https://i, audiences: [a, a]}, claimMappings: {username: {claim: sub, prefix: \"\"}}}]",
                "[jwt[0].issuer.audiences[1]: Duplicate value: \"a\", jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences]".to_owned(),
            ),
        ] {
            assert_eq!(why(jwt), expect);
        }
        let compiled = why(&format!("{ISSUER}{{expression: \"claims.\"}}"));
        assert!(
            compiled.starts_with("jwt[0].claimMappings.username.expression: Invalid value: \"claims.\": compilation failed: ERROR"),
            "{compiled}"
        );
        let two = "- issuer: {url: https://i, audiences: [a]}\n  claimMappings: {username: {claim: sub, prefix: \"\"}}\n";
        assert_eq!(
            why(&format!("jwt:\n{two}{two}")),
            "jwt[1].issuer.url: Duplicate value: \"https://i\""
        );
    }
}

//! Flags about users whose tokens others issue, and what they make of a server's access.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use oarlock_apiserver::{Access, AuthenticationConfig, OidcFlags, OidcIssuer};

#[derive(Debug, Args)]
pub struct Issuers {
    /// File with an AuthenticationConfiguration (apiserver.config.k8s.io/v1); instead of the --oidc-* flags
    #[arg(long, value_name = "FILE")]
    authentication_config: Option<PathBuf>,
    /// URL of the OpenID issuer, https only; its tokens identify users
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "URL"
    )]
    oidc_issuer_url: String,
    /// The audience that the issuer's tokens must have
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ID")]
    oidc_client_id: String,
    /// The claim that is the user name [default: sub]
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "CLAIM"
    )]
    oidc_username_claim: String,
    /// What stands before user names; `-`: nothing [default: the issuer's URL and #, unless the claim is email]
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT",
        allow_hyphen_values = true
    )]
    oidc_username_prefix: String,
    /// The claim that holds the user's groups [default: none]
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "CLAIM"
    )]
    oidc_groups_claim: String,
    /// What stands before names of groups
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    oidc_groups_prefix: String,
    /// Who vouches for the issuer's server [default: whom the system trusts]
    #[arg(long, value_name = "FILE")]
    oidc_ca_file: Option<PathBuf>,
    /// A claim that tokens must have with this value; may be given several times
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE")]
    oidc_required_claim: Vec<String>,
    /// How tokens may be signed [default: RS256]
    #[arg(long, value_delimiter = ',', value_name = "ALG")]
    oidc_signing_algs: Vec<String>,
}

impl Issuers {
    /// Lets the issuers' users in.
    pub fn admit(&self, access: &mut Access) -> Result<()> {
        let flags = OidcFlags {
            issuer_url: self.oidc_issuer_url.clone(),
            client_id: self.oidc_client_id.clone(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            ca_file: self.oidc_ca_file.clone(),
            required_claims: self.oidc_required_claim.clone(),
            signing_algs: self.oidc_signing_algs.clone(),
        };
        let mut all = Vec::from_iter(flags.issuer().context("cannot use the --oidc-* flags")?);
        if let Some(file) = &self.authentication_config {
            anyhow::ensure!(
                all.is_empty(),
                "authentication-config file and oidc-* flags are mutually exclusive"
            );
            let config = AuthenticationConfig::read(file)
                .with_context(|| format!("cannot use {}", file.display()))?;
            all = config.jwt;
            if let Some((anonymous, paths)) = config.anonymous {
                access.anonymous = anonymous;
                access.anonymous_paths = paths;
            }
        }
        for jwt in all {
            access.tokens.push(OidcIssuer::start(jwt)?);
        }
        Ok(())
    }
}

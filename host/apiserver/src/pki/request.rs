//! Certificates made from requests (PKCS #10): what each of the cluster's own signers takes, and the signing.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>

use jiff::Timestamp;
use rcgen::{
    CertificateSigningRequestParams, DnType, DnValue, ExtendedKeyUsagePurpose as Extended, IsCa,
    KeyUsagePurpose as Usage, SanType, SerialNumber,
};

use super::{LEAF_DAYS, Pki};

pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(crate) const LEGACY: &str = "kubernetes.io/legacy-unknown";

const DAY_SECONDS: i64 = 24 * 3600;
const LEAST_SECONDS: i64 = 600;
/// Clocks of clients may be behind ours.
const BACKDATE_SECONDS: i64 = 300;

/// Who asks, and for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub signer: &'a str,
    pub request_pem: &'a str,
    pub usages: &'a [&'a str],
    pub seconds: Option<i64>,
}

impl Pki {
    /// The certificate as PEM text, or why there is none.
    pub(crate) fn sign(&self, wanted: &Wanted<'_>, now: Timestamp) -> Result<String, String> {
        let read = CertificateSigningRequestParams::from_pem(wanted.request_pem);
        let mut request = read.map_err(|error| format!("unable to parse csr: {error}"))?;
        acceptable(wanted, &request)?;
        let params = &mut request.params;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.custom_extensions.clear();
        params.serial_number = Some(serial());
        params.key_usages.clear();
        params.extended_key_usages.clear();
        for name in wanted.usages {
            match purpose(name) {
                Some(Purpose::Basic(usage)) => params.key_usages.push(usage),
                Some(Purpose::Extended(usage)) => params.extended_key_usages.push(usage),
                None => return Err(format!("unrecognized usage values: [{name:?}]")),
            }
        }
        let longest = LEAF_DAYS * DAY_SECONDS;
        let seconds = wanted.seconds.unwrap_or(longest);
        let lasts = seconds.clamp(LEAST_SECONDS, longest);
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let at = |second: i64| epoch + std::time::Duration::from_secs(second.unsigned_abs());
        params.not_before = at(now.as_second() - BACKDATE_SECONDS);
        params.not_after = at(now.as_second() + lasts);
        let signed = request.signed_by(&self.issuer);
        Ok(signed.map_err(|error| error.to_string())?.pem())
    }
}

/// The common name in a request that fits the signer of kubelets' client certificates.
pub(crate) fn kubelet_client_name(request_pem: &str, usages: &[&str]) -> Option<String> {
    let of = CertificateSigningRequestParams::from_pem(request_pem).ok()?;
    let wanted = Wanted {
        signer: KUBELET_CLIENT,
        request_pem,
        usages,
        seconds: None,
    };
    acceptable(&wanted, &of).ok()?;
    subject(&of, &DnType::CommonName).pop()
}

/// A number that no other certificate has; positive.
fn serial() -> SerialNumber {
    let mut bytes = uuid::Uuid::new_v4().into_bytes();
    bytes[0] &= 0x7f;
    SerialNumber::from(bytes.to_vec())
}

enum Purpose {
    Basic(Usage),
    Extended(Extended),
}

fn purpose(name: &str) -> Option<Purpose> {
    use Purpose::{Basic, Extended as Ext};
    Some(match name {
        "signing" | "digital signature" => Basic(Usage::DigitalSignature),
        "content commitment" => Basic(Usage::ContentCommitment),
        "key encipherment" => Basic(Usage::KeyEncipherment),
        "key agreement" => Basic(Usage::KeyAgreement),
        "data encipherment" => Basic(Usage::DataEncipherment),
        "cert sign" => Basic(Usage::KeyCertSign),
        "crl sign" => Basic(Usage::CrlSign),
        "encipher only" => Basic(Usage::EncipherOnly),
        "decipher only" => Basic(Usage::DecipherOnly),
        "any" => Ext(Extended::Any),
        "server auth" => Ext(Extended::ServerAuth),
        "client auth" => Ext(Extended::ClientAuth),
        "code signing" => Ext(Extended::CodeSigning),
        "email protection" | "s/mime" => Ext(Extended::EmailProtection),
        "timestamping" => Ext(Extended::TimeStamping),
        "ocsp signing" => Ext(Extended::OcspSigning),
        _ => return None,
    })
}

fn acceptable(wanted: &Wanted<'_>, of: &CertificateSigningRequestParams) -> Result<(), String> {
    match wanted.signer {
        CLIENT => client_usages(wanted.usages),
        KUBELET_CLIENT => {
            nodes_group(of)?;
            for (kind, is_kind) in NAME_KINDS {
                no_names(of, kind, is_kind)?;
            }
            node_name(of)?;
            node_usages(wanted.usages, "client auth")
        }
        KUBELET_SERVING => {
            nodes_group(of)?;
            node_name(of)?;
            let [dns, email, ip, uri] = NAME_KINDS;
            let names = &of.params.subject_alt_names;
            if !names.iter().any(|name| dns.1(name) || ip.1(name)) {
                return Err("DNS or IP subjectAltName is required".to_owned());
            }
            no_names(of, email.0, email.1)?;
            no_names(of, uri.0, uri.1)?;
            node_usages(wanted.usages, "server auth")
        }
        LEGACY => Ok(()),
        other => Err(format!("unknown signer {other:?}")),
    }
}

fn client_usages(usages: &[&str]) -> Result<(), String> {
    const ALLOWED: [&str; 4] = [
        "signing",
        "digital signature",
        "key encipherment",
        "client auth",
    ];
    if let Some(usage) = usages.iter().find(|usage| !ALLOWED.contains(usage)) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    if !usages.contains(&"client auth") {
        return Err("missing required usage for client certificate: client auth".to_owned());
    }
    Ok(())
}

/// Exactly these; who has no RSA key may leave out the encipherment.
fn node_usages(usages: &[&str], purpose: &str) -> Result<(), String> {
    let all = ["digital signature", "key encipherment", purpose];
    let needed = |usage: &&str| *usage == "key encipherment" || usages.contains(usage);
    if usages.iter().all(|usage| all.contains(usage)) && all.iter().all(needed) {
        return Ok(());
    }
    let mut sorted = all;
    sorted.sort_unstable();
    Err(format!("usages did not match [{}]", sorted.join(" ")))
}

type IsKind = fn(&SanType) -> bool;

const NAME_KINDS: [(&str, IsKind); 4] = [
    ("DNS", |name| matches!(name, SanType::DnsName(_))),
    ("Email", |name| matches!(name, SanType::Rfc822Name(_))),
    ("IP", |name| matches!(name, SanType::IpAddress(_))),
    ("URI", |name| matches!(name, SanType::URI(_))),
];

fn no_names(
    of: &CertificateSigningRequestParams,
    kind: &str,
    is_kind: IsKind,
) -> Result<(), String> {
    if of.params.subject_alt_names.iter().any(is_kind) {
        return Err(format!("{kind} subjectAltNames are not allowed"));
    }
    Ok(())
}

fn nodes_group(of: &CertificateSigningRequestParams) -> Result<(), String> {
    match subject(of, &DnType::OrganizationName).as_slice() {
        [group] if group == "system:nodes" => Ok(()),
        _ => Err("subject organization is not system:nodes".to_owned()),
    }
}

fn node_name(of: &CertificateSigningRequestParams) -> Result<(), String> {
    match subject(of, &DnType::CommonName).as_slice() {
        [name] if name.starts_with("system:node:") => Ok(()),
        _ => Err("subject common name does not begin with system:node: ".to_owned()),
    }
}

/// All values of one kind in the subject; a kind of text that is not read counts as an empty one.
fn subject(of: &CertificateSigningRequestParams, wanted: &DnType) -> Vec<String> {
    let names = of.params.distinguished_name.iter();
    names
        .filter(|(kind, _)| *kind == wanted)
        .map(|(_, value)| match value {
            DnValue::Utf8String(text) => text.clone(),
            DnValue::PrintableString(text) => text.as_str().to_owned(),
            DnValue::Ia5String(text) => text.as_str().to_owned(),
            _ => String::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, KeyPair};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    fn asking(name: &str, group: &str, names: &[&str]) -> String {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn each_signer_has_its_rules() {
        let dir = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pki = super::super::ensure_at(dir.path(), "127.0.0.1:0".parse().unwrap(), now).unwrap();
        let why = |signer: &str, pem: &str, usages: &[&str]| {
            let wanted = Wanted {
                signer,
                request_pem: pem,
                usages,
                seconds: None,
            };
            pki.sign(&wanted, now).err().unwrap_or_default()
        };
        let client = ["digital signature", "client auth"];
        let jane = asking("jane", "dev", &[]);
        let node = asking("system:node:n1", "system:nodes", &[]);
        let named = asking("system:node:n1", "system:nodes", &["n1"]);
        assert_eq!(why(CLIENT, &jane, &client), "");
        assert_eq!(
            why(CLIENT, &jane, &["server auth"]),
            "invalid usage for client certificate: server auth"
        );
        assert_eq!(
            why(CLIENT, &jane, &["digital signature"]),
            "missing required usage for client certificate: client auth"
        );
        assert_eq!(why(KUBELET_CLIENT, &node, &client), "");
        assert_eq!(
            why(KUBELET_CLIENT, &jane, &client),
            "subject organization is not system:nodes"
        );
        assert_eq!(
            why(KUBELET_CLIENT, &named, &client),
            "DNS subjectAltNames are not allowed"
        );
        assert_eq!(
            why(KUBELET_CLIENT, &node, &["client auth"]),
            "usages did not match [client auth digital signature key encipherment]"
        );
        let serving = ["digital signature", "key encipherment", "server auth"];
        assert_eq!(why(KUBELET_SERVING, &named, &serving), "");
        assert_eq!(
            why(KUBELET_SERVING, &node, &serving),
            "DNS or IP subjectAltName is required"
        );
    }

    #[test]
    fn certificates_last_as_long_as_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pki = super::super::ensure_at(dir.path(), "127.0.0.1:0".parse().unwrap(), now).unwrap();
        let pem = asking("jane", "dev", &[]);
        for (seconds, expect) in [
            (Some(7200), 7200),
            (Some(1), 600),
            (None, 365 * DAY_SECONDS),
        ] {
            let usages = ["client auth"];
            let wanted = Wanted {
                signer: CLIENT,
                request_pem: &pem,
                usages: &usages,
                seconds,
            };
            let signed = pki.sign(&wanted, now).unwrap();
            let der = CertificateDer::from_pem_slice(signed.as_bytes()).unwrap();
            let (_, certificate) = X509Certificate::from_der(&der).unwrap();
            let validity = certificate.validity();
            assert_eq!(validity.not_after.timestamp(), now.as_second() + expect);
            assert_eq!(validity.not_before.timestamp(), now.as_second() - 300);
            assert!(!certificate.is_ca());
            let name = certificate.subject().iter_common_name().next().unwrap();
            assert_eq!(name.as_str().unwrap(), "jane");
        }
    }
}

//! Admission of certificate requests and trust bundles: who may approve, sign or attest for a signer, and which subjects
//! nobody may ask for.
//!
//! Cost: nothing for writes of other kinds.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oarlock_auth::{Answer, Ask, MASTERS};
use oarlock_model::{ApiError, ApiResult, meta};
use oarlock_registry::{Admission, AdmissionRequest, Operation, Registry, Target, User};
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::Rbac;
use crate::pki::request::{KUBELET_CLIENT, KUBELET_SERVING};

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const BUNDLES: &str = "clustertrustbundles";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// See the module. `None`: everybody may do everything, but for the subjects.
#[derive(Debug)]
pub(super) struct Signers(pub Option<Arc<Rbac>>);

#[async_trait]
impl Admission for Signers {
    fn name(&self) -> &'static str {
        "CertificateSigners"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        target.row.group == GROUP && matches!(operation, Operation::Create | Operation::Update)
    }

    /// A node asks for certificates in its own name only.
    async fn mutate(&self, _: &Registry, request: &mut AdmissionRequest<'_>) -> ApiResult<()> {
        let (user, target) = (&request.context.user, request.target);
        let (Some(node), Some(new)) = (user.node(), request.object.as_deref()) else {
            return Ok(());
        };
        let asks = request.operation == Operation::Create
            && target.row.resource == REQUESTS
            && target.subresource.is_empty();
        match foreign_name(node, new).filter(|_| asks) {
            None => Ok(()),
            Some(why) => Err(ApiError::forbidden(GROUP, REQUESTS, &target.name, &why)),
        }
    }

    async fn validate(&self, _: &Registry, request: &AdmissionRequest<'_>) -> ApiResult<()> {
        let (user, target) = (&*request.context.user, request.target);
        let Some(new) = request.object.as_deref() else {
            return Ok(());
        };
        let refused = match (
            target.row.resource.as_str(),
            target.subresource.as_str(),
            request.old,
        ) {
            (REQUESTS, "", None) => bad_subject(new),
            (REQUESTS, "approval", Some(old)) => self.refusal(user, "approve", signer(old)),
            (REQUESTS, "status", Some(old)) if signs(new, old) => {
                self.refusal(user, "sign", signer(old))
            }
            (BUNDLES, "", old) if old.is_none_or(|old| old["spec"] != new["spec"]) => {
                self.refusal(user, "attest", signer(new))
            }
            _ => None,
        };
        match refused {
            None => Ok(()),
            Some(why) => Err(ApiError::forbidden(
                GROUP,
                &target.row.resource,
                meta::name(new),
                &why,
            )),
        }
    }
}

impl Signers {
    fn refusal(&self, user: &User, verb: &str, signer: &str) -> Option<String> {
        let rbac = self.0.as_ref()?;
        // A trust bundle need not belong to a signer.
        if signer.is_empty() {
            return None;
        }
        let may = |name: &str| {
            let ask = Ask {
                verb,
                is_resource: true,
                group: GROUP,
                resource: "signers",
                name,
                ..Ask::default()
            };
            matches!(rbac.answer(user, &ask), Answer::Allowed(_))
        };
        let domain = signer.split('/').next().unwrap_or_default();
        if may(signer) || may(&format!("{domain}/*")) {
            return None;
        }
        Some(if verb == "attest" {
            format!("user not permitted to attest for signerName {signer:?}")
        } else {
            format!("user not permitted to {verb} requests with signerName {signer:?}")
        })
    }
}

fn signer(object: &Value) -> &str {
    object["spec"]["signerName"].as_str().unwrap_or_default()
}

/// Whether an update of the status gives a certificate or changes what was decided.
fn signs(new: &Value, old: &Value) -> bool {
    ["certificate", "conditions"]
        .iter()
        .any(|field| new["status"].get(field) != old["status"].get(field))
}

/// Nobody becomes a cluster administrator by a certificate asked for over the API.
fn bad_subject(request: &Value) -> Option<String> {
    if signer(request) != CLIENT_SIGNER {
        return None;
    }
    let encoded = request["spec"]["request"].as_str().unwrap_or_default();
    match organizations(encoded) {
        None => Some("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST".to_owned()),
        Some(found) => found
            .iter()
            .any(|group| group == MASTERS)
            .then(|| format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")),
    }
}

/// Why a node may not ask for this certificate of a kubelet.
fn foreign_name(node: &str, request: &Value) -> Option<String> {
    if ![KUBELET_CLIENT, KUBELET_SERVING].contains(&signer(request)) {
        return None;
    }
    let encoded = request["spec"]["request"].as_str().unwrap_or_default();
    let Some(subject) = subject(encoded) else {
        let why = "unable to parse csr: PEM block type must be CERTIFICATE REQUEST";
        return Some(why.to_owned());
    };
    let wanted = format!("system:node:{node}");
    (subject.name != wanted).then(|| format!("can only create a node CSR with CN={wanted}"))
}

/// The organizations that a request names; `None`: it cannot be read.
fn organizations(encoded: &str) -> Option<Vec<String>> {
    subject(encoded).map(|subject| subject.organizations)
}

struct Subject {
    name: String,
    organizations: Vec<String>,
}

/// Whom a request (PEM in base64) is for.
fn subject(encoded: &str) -> Option<Subject> {
    let pem = STANDARD.decode(encoded).ok()?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    let mut organizations = Vec::new();
    for organization in subject.iter_organization() {
        organizations.push(organization.as_str().ok()?.to_owned());
    }
    let name = subject.iter_common_name().last();
    Some(Subject {
        name: name
            .and_then(|n| n.as_str().ok())
            .unwrap_or_default()
            .to_owned(),
        organizations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asking(signer: &str, organization: &str) -> Value {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, "jane");
        name.push(rcgen::DnType::OrganizationName, organization);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({"spec": {"signerName": signer, "request": STANDARD.encode(pem)}})
    }

    #[test]
    fn nobody_asks_to_be_a_master() {
        assert_eq!(bad_subject(&asking(CLIENT_SIGNER, "dev")), None);
        assert_eq!(
            bad_subject(&asking(CLIENT_SIGNER, MASTERS)).as_deref(),
            Some(
                "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
            )
        );
        assert_eq!(bad_subject(&asking("example.com/mine", MASTERS)), None);
        let unreadable = json!({"spec": {"signerName": CLIENT_SIGNER, "request": "eA=="}});
        assert!(
            bad_subject(&unreadable)
                .unwrap()
                .starts_with("failed to parse CSR: ")
        );
    }

    #[test]
    fn a_node_asks_in_its_own_name() {
        let mut mine = asking(KUBELET_CLIENT, "system:nodes");
        assert_eq!(
            foreign_name("n1", &mine).as_deref(),
            Some("can only create a node CSR with CN=system:node:n1")
        );
        mine["spec"]["signerName"] = json!("example.com/mine");
        assert_eq!(foreign_name("n1", &mine), None);
        let unreadable = json!({"spec": {"signerName": KUBELET_SERVING, "request": "eA=="}});
        assert!(
            foreign_name("n1", &unreadable)
                .unwrap()
                .starts_with("unable to parse csr: ")
        );
    }

    #[test]
    fn signers_are_granted_by_name_or_by_domain() {
        let rbac = Rbac::new();
        {
            let mut index = rbac.index.write();
            let role = json!({"rules": [{
                "verbs": ["approve"], "apiGroups": [GROUP], "resources": ["signers"],
                "resourceNames": ["example.com/one", "wide.io/*"],
            }]});
            index.set_role("", "approver", Some(&role));
            let binding = json!({
                "roleRef": {"kind": "ClusterRole", "name": "approver"},
                "subjects": [{"kind": "User", "name": "jane"}],
            });
            index.set_binding("", "approver", Some(&binding));
        }
        let signers = Signers(Some(rbac));
        let user = User {
            name: "jane".to_owned(),
            ..User::default()
        };
        for allowed in ["example.com/one", "wide.io/any"] {
            assert_eq!(signers.refusal(&user, "approve", allowed), None);
        }
        for (verb, signer, why) in [
            (
                "approve",
                "example.com/two",
                r#"user not permitted to approve requests with signerName "example.com/two""#,
            ),
            (
                "sign",
                "example.com/one",
                r#"user not permitted to sign requests with signerName "example.com/one""#,
            ),
            (
                "attest",
                "example.com/one",
                r#"user not permitted to attest for signerName "example.com/one""#,
            ),
        ] {
            assert_eq!(signers.refusal(&user, verb, signer).as_deref(), Some(why));
        }
        assert_eq!(
            Signers(None).refusal(&user, "sign", "example.com/one"),
            None
        );
    }
}

//! Requests of kubelets for client certificates are approved for those who may have them: by the right to create
//! `certificatesigningrequests/selfnodeclient` (their own) or `/nodeclient` (any node's). Serving certificates wait for an
//! approver.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use oarlock_model::time;
use oarlock_registry::{AuthorizationAttributes, Authorize, User};
use serde_json::{Value, json};

use crate::pki::request::{KUBELET_CLIENT, kubelet_client_name};

const GROUP: &str = "certificates.k8s.io";

/// What is to be done about a request.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It is none of ours, or decided.
    Nothing,
    /// Who asks may not have it, for now.
    NotYet,
    /// With its approval.
    Approved(Box<Value>),
}

pub(crate) fn judge(object: &Value, authorizer: Option<&dyn Authorize>, now: Timestamp) -> Outcome {
    let (spec, status) = (&object["spec"], &object["status"]);
    let decided = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Approved" || condition["type"] == "Denied");
    let signed = status["certificate"]
        .as_str()
        .is_some_and(|c| !c.is_empty());
    if decided || signed || spec["signerName"] != KUBELET_CLIENT {
        return Outcome::Nothing;
    }
    let texts = |of: &Value| -> Vec<String> {
        let all = of.as_array().into_iter().flatten();
        all.filter_map(|text| text.as_str().map(str::to_owned))
            .collect()
    };
    let pem = STANDARD.decode(spec["request"].as_str().unwrap_or_default());
    let pem = String::from_utf8(pem.unwrap_or_default()).unwrap_or_default();
    let usages = texts(&spec["usages"]);
    let usages: Vec<&str> = usages.iter().map(String::as_str).collect();
    let Some(name) = kubelet_client_name(&pem, &usages) else {
        return Outcome::Nothing;
    };
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let extra = spec["extra"].as_object().into_iter().flatten();
    let user = User {
        name: text("username"),
        uid: text("uid"),
        groups: texts(&spec["groups"]),
        extra: extra
            .map(|(key, values)| (key.clone(), texts(values)))
            .collect(),
    };
    let may = |subresource: &str| {
        let asked = AuthorizationAttributes {
            verb: "create".to_owned(),
            group: GROUP.to_owned(),
            resource: "certificatesigningrequests".to_owned(),
            subresource: subresource.to_owned(),
            ..AuthorizationAttributes::default()
        };
        authorizer.is_some_and(|authorizer| authorizer.decide(&user, &asked).allowed)
    };
    let message = if user.name == name && may("selfnodeclient") {
        "Auto approving self kubelet client certificate after SubjectAccessReview."
    } else if may("nodeclient") {
        "Auto approving kubelet client certificate after SubjectAccessReview."
    } else {
        return Outcome::NotYet;
    };
    let at = time::format_time(now);
    let mut object = object.clone();
    let condition = json!({
        "type": "Approved", "status": "True", "reason": "AutoApproved", "message": message,
        "lastUpdateTime": at, "lastTransitionTime": at,
    });
    let conditions = &mut object["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(conditions) => conditions.push(condition),
        None => *conditions = json!([condition]),
    }
    Outcome::Approved(Box::new(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oarlock_registry::AuthorizationDecision;

    #[derive(Debug)]
    struct May(&'static str);

    impl Authorize for May {
        fn decide(&self, _: &User, asked: &AuthorizationAttributes) -> AuthorizationDecision {
            AuthorizationDecision {
                allowed: asked.subresource == self.0 && asked.verb == "create",
                ..AuthorizationDecision::default()
            }
        }
    }

    fn asking(user: &str, signer: &str) -> Value {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, "system:node:n1");
        name.push(rcgen::DnType::OrganizationName, "system:nodes");
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({"spec": {"signerName": signer, "request": STANDARD.encode(pem), "username": user,
            "usages": ["digital signature", "client auth"]}})
    }

    fn message(outcome: &Outcome) -> &str {
        match outcome {
            Outcome::Approved(object) => object["status"]["conditions"][0]["message"]
                .as_str()
                .unwrap(),
            Outcome::NotYet => "not yet",
            Outcome::Nothing => "nothing",
        }
    }

    #[test]
    fn who_may_is_approved() {
        let own = asking("system:node:n1", KUBELET_CLIENT);
        let other = asking("system:bootstrap:x", KUBELET_CLIENT);
        let now = Timestamp::UNIX_EPOCH;
        let (own_name, any_name) = (May("selfnodeclient"), May("nodeclient"));
        let check = |object: &Value, by: Option<&dyn Authorize>, expect: &str| {
            assert_eq!(message(&judge(object, by, now)), expect);
        };
        check(
            &own,
            Some(&own_name),
            "Auto approving self kubelet client certificate after SubjectAccessReview.",
        );
        check(
            &other,
            Some(&any_name),
            "Auto approving kubelet client certificate after SubjectAccessReview.",
        );
        check(&other, Some(&own_name), "not yet");
        check(&own, None, "not yet");
        check(
            &asking("x", "kubernetes.io/kubelet-serving"),
            Some(&any_name),
            "nothing",
        );
        let mut denied = other;
        denied["status"] = json!({"conditions": [{"type": "Denied", "status": "True"}]});
        check(&denied, Some(&any_name), "nothing");
    }
}

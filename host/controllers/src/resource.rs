//! Resources as guests write them: `v1/pods`, `apps/v1/deployments`.

use oarlock_model::Gvr;

pub fn parse(text: &str) -> Option<Gvr> {
    let parts: Vec<&str> = text.split('/').collect();
    let gvr = match parts[..] {
        [version, resource] => Gvr::new("", version, resource),
        [group, version, resource] => Gvr::new(group, version, resource),
        _ => return None,
    };
    (!gvr.version.is_empty() && !gvr.resource.is_empty()).then_some(gvr)
}

pub fn format(kind: &Gvr) -> String {
    format!("{}/{}", kind.api_version(), kind.resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for text in ["v1/pods", "apps/v1/deployments"] {
            assert_eq!(parse(text).map(|kind| format(&kind)).as_deref(), Some(text));
        }
        for text in ["pods", "a/b/c/d", "v1/", "*"] {
            assert_eq!(parse(text), None);
        }
    }
}

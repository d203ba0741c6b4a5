//! From a path and a method to what is asked for. Pure; knows the shape of API paths and no kind.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

/// What a request does, in the words of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// Not a resource request, or a method that the API has no verb for; carries nothing.
    Other,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Other => "",
        }
    }
}

/// A path below `/api/V` or `/apis/G/V`, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourcePath<'a> {
    /// `v1` or `apps/v1`.
    pub group_version: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    /// Empty: cluster-scoped, or all namespaces.
    pub namespace: &'a str,
    pub resource: &'a str,
    /// Empty: the collection.
    pub name: &'a str,
    /// Everything behind the name: `status`, `proxy/x/y`.
    pub subresource: &'a str,
    /// The old form `/api/v1/watch/…`.
    pub watch_prefix: bool,
}

impl ResourcePath<'_> {
    /// `pods` or `pods/status`, as messages and metrics write it.
    pub fn resource_text(&self) -> Cow<'_, str> {
        if self.subresource.is_empty() {
            Cow::Borrowed(self.resource)
        } else {
            Cow::Owned(format!("{}/{}", self.resource, self.first_subresource()))
        }
    }

    /// The subresource without the path that `proxy` has behind it.
    pub fn first_subresource(&self) -> &str {
        self.subresource.split('/').next().unwrap_or("")
    }

    pub fn verb(&self, method: &Method, watch: bool) -> Verb {
        match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE if self.name.is_empty() => Verb::DeleteCollection,
            Method::DELETE => Verb::Delete,
            Method::GET | Method::HEAD if self.watch_prefix => Verb::Watch,
            Method::GET | Method::HEAD if !self.name.is_empty() => Verb::Get,
            Method::GET | Method::HEAD if watch => Verb::Watch,
            Method::GET | Method::HEAD => Verb::List,
            _ => Verb::Other,
        }
    }
}

/// Undoes percent-encoding before the path is split, as upstream does; bytes that are no UTF-8 become U+FFFD.
pub fn decode_path(path: &str) -> Cow<'_, str> {
    if path.contains('%') {
        percent_decode_str(path).decode_utf8_lossy()
    } else {
        Cow::Borrowed(path)
    }
}

/// `None`: not the path of a resource.
pub fn resource_path(path: &str) -> Option<ResourcePath<'_>> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let (group_version, rest) = if let Some(rest) = path.strip_prefix("/api/") {
        rest.split_once('/')?
    } else {
        let rest = path.strip_prefix("/apis/")?;
        let slash = rest.find('/')?;
        let end = slash + 1 + rest[slash + 1..].find('/')?;
        (&rest[..end], &rest[end + 1..])
    };
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    let (watch_prefix, rest) = match rest.strip_prefix("watch/") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let at = ResourcePath {
        group_version,
        group,
        version,
        namespace: "",
        resource: "",
        name: "",
        subresource: "",
        watch_prefix,
    };
    let (first, behind) = rest.split_once('/').unwrap_or((rest, ""));
    if first == "namespaces" && !behind.is_empty() {
        let (namespace, behind) = behind.split_once('/').unwrap_or((behind, ""));
        let (second, third) = behind.split_once('/').unwrap_or((behind, ""));
        if behind.is_empty() || (third.is_empty() && matches!(second, "status" | "finalize")) {
            return Some(ResourcePath {
                namespace,
                resource: "namespaces",
                name: namespace,
                subresource: second,
                ..at
            });
        }
        let (name, subresource) = third.split_once('/').unwrap_or((third, ""));
        return Some(ResourcePath {
            namespace,
            resource: second,
            name,
            subresource,
            ..at
        });
    }
    let (name, subresource) = behind.split_once('/').unwrap_or((behind, ""));
    Some(ResourcePath {
        resource: first,
        name,
        subresource,
        ..at
    })
}

/// Why a name cannot be one segment of a path; upstream's text.
pub fn name_problem(name: &str) -> Option<String> {
    let why = match name {
        "." => "may not be '.'",
        ".." => "may not be '..'",
        _ if name.contains('/') => "may not contain '/'",
        _ if name.contains('%') => "may not contain '%'",
        _ => return None,
    };
    Some(format!("Name parameter invalid: {name:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |path: &str, expect: &str| {
            let got = resource_path(path).map(|r| {
                let watch = if r.watch_prefix { "watch " } else { "" };
                format!(
                    "{watch}{} {} {} {} {}",
                    r.group_version, r.namespace, r.resource, r.name, r.subresource
                )
            });
            assert_eq!(got.as_deref().unwrap_or("none"), expect, "{path}");
        };
        check("/api/v1/pods", "v1  pods  ");
        check("/api/v1/namespaces", "v1  namespaces  ");
        check("/api/v1/namespaces/a", "v1 a namespaces a ");
        check("/api/v1/namespaces/a/", "v1 a namespaces a ");
        check("/api/v1/namespaces/a/status", "v1 a namespaces a status");
        check(
            "/api/v1/namespaces/a/finalize",
            "v1 a namespaces a finalize",
        );
        check("/api/v1/namespaces/a/pods", "v1 a pods  ");
        check("/api/v1/namespaces/a/pods/p/status", "v1 a pods p status");
        check(
            "/api/v1/namespaces/a/pods/p/proxy/x/y",
            "v1 a pods p proxy/x/y",
        );
        check("/apis/apps/v1/deployments", "apps/v1  deployments  ");
        check(
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            "apps/v1 a deployments d scale",
        );
        check("/api/v1/watch/namespaces/a/pods/p", "watch v1 a pods p ");
        check("/api/v1/nodes/n", "v1  nodes n ");
        check("/api/v1//namespaces", "v1   namespaces ");
        for path in [
            "/api",
            "/api/",
            "/api/v1",
            "/api/v1/",
            "/apis/apps",
            "/apis/apps/v1",
            "/kelp",
            "/",
            "",
        ] {
            check(path, "none");
        }
    }

    #[test]
    fn verbs() {
        let check = |path: &str, method: Method, watch: bool, expect: Verb| {
            assert_eq!(
                resource_path(path).unwrap().verb(&method, watch),
                expect,
                "{method} {path}"
            );
        };
        check("/api/v1/pods", Method::GET, false, Verb::List);
        check("/api/v1/pods", Method::GET, true, Verb::Watch);
        check("/api/v1/namespaces/a/pods/p", Method::GET, true, Verb::Get);
        check(
            "/api/v1/watch/namespaces/a/pods/p",
            Method::GET,
            false,
            Verb::Watch,
        );
        check(
            "/api/v1/namespaces/a/pods",
            Method::DELETE,
            false,
            Verb::DeleteCollection,
        );
        check(
            "/api/v1/namespaces/a/pods/p",
            Method::DELETE,
            false,
            Verb::Delete,
        );
        check("/api/v1/pods", Method::OPTIONS, false, Verb::Other);
    }

    #[test]
    fn names() {
        for (name, problem) in [
            ("a", false),
            ("..", true),
            (".", true),
            ("a%", true),
            ("a.b", false),
            ("...", false),
        ] {
            assert_eq!(name_problem(name).is_some(), problem, "{name}");
        }
    }
}

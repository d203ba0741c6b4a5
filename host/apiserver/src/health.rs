//! `/livez`, `/readyz` and `/healthz`, with named checks that others plug in.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::query::Query;

type CheckFn = dyn Fn() -> Result<(), String> + Send + Sync;

/// One named check; cheap, since probes call it often. The error text is logged by the caller of the check, not told.
#[derive(Clone)]
pub struct HealthCheck {
    name: String,
    check: Arc<CheckFn>,
}

impl HealthCheck {
    pub fn new(
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            check: Arc::new(check),
        }
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HealthCheck").field(&self.name).finish()
    }
}

#[derive(Debug)]
pub(crate) struct Health {
    live: Vec<HealthCheck>,
    ready: Vec<HealthCheck>,
}

impl Health {
    /// `stopping`: set once the server shuts down; it is not ready then.
    pub fn new(live: Vec<HealthCheck>, ready: Vec<HealthCheck>, stopping: Arc<AtomicBool>) -> Self {
        let ping = HealthCheck::new("ping", || Ok(()));
        let shutdown =
            HealthCheck::new("shutdown", move || match stopping.load(Ordering::Relaxed) {
                true => Err("process is shutting down".to_owned()),
                false => Ok(()),
            });
        let live: Vec<_> = std::iter::once(ping).chain(live).collect();
        let ready = live
            .iter()
            .cloned()
            .chain(ready)
            .chain(std::iter::once(shutdown))
            .collect();
        Self { live, ready }
    }

    /// Code and text; `None`: not a health path.
    pub fn answer(&self, path: &str, query: &Query<'_>) -> Option<(u16, String)> {
        let rest = path.strip_prefix('/')?;
        let (endpoint, single) = rest.split_once('/').unwrap_or((rest, ""));
        let checks = match endpoint {
            "livez" | "healthz" => &self.live,
            "readyz" => &self.ready,
            _ => return None,
        };
        if !single.is_empty() {
            let check = checks.iter().find(|c| c.name == single)?;
            return Some(match (check.check)() {
                Ok(()) => (200, "ok".to_owned()),
                Err(why) => (500, format!("internal server error: {why}\n")),
            });
        }
        let mut lines = String::new();
        let mut failed = false;
        for check in checks {
            if query.has("exclude", &check.name) {
                lines.push_str(&format!("[+]{} excluded: ok\n", check.name));
                continue;
            }
            match (check.check)() {
                Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
                Err(why) => {
                    failed = true;
                    tracing::warn!(endpoint, check = check.name, why, "health check failed");
                    lines.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
                }
            }
        }
        Some(if failed {
            (500, format!("{lines}{endpoint} check failed\n"))
        } else if query.get("verbose").is_some() {
            (200, format!("{lines}{endpoint} check passed\n"))
        } else {
            (200, "ok".to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let stopping = Arc::new(AtomicBool::new(false));
        let store = HealthCheck::new("store", || Err("disk full".to_owned()));
        let health = Health::new(Vec::new(), vec![store], Arc::clone(&stopping));
        let check = |path: &str, query: &str, expect: Option<(u16, &str)>| {
            let got = health.answer(path, &Query::parse(Some(query)).unwrap());
            assert_eq!(
                got.as_ref().map(|(code, text)| (*code, text.as_str())),
                expect,
                "{path}?{query}"
            );
        };
        check("/livez", "", Some((200, "ok")));
        check(
            "/livez",
            "verbose",
            Some((200, "[+]ping ok\nlivez check passed\n")),
        );
        check("/livez/ping", "", Some((200, "ok")));
        check("/livez/nope", "", None);
        check(
            "/readyz/store",
            "",
            Some((500, "internal server error: disk full\n")),
        );
        check("/readyz", "exclude=store", Some((200, "ok")));
        check(
            "/readyz",
            "",
            Some((
                500,
                "[+]ping ok\n[-]store failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n",
            )),
        );
        stopping.store(true, Ordering::Relaxed);
        assert_eq!(
            health
                .answer("/readyz/shutdown", &Query::default())
                .map(|a| a.0),
            Some(500)
        );
    }
}

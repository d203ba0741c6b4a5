//! Admission policies: a component's instance, asked about one write at a time.
//!
//! Invariant: `mutate` and `validate` are futures that are pending at each tick (10 ms) that the guest takes, so that whoever
//! polls them is never held up for longer; waiting to be polled counts against the deadline. The other calls block.

use std::sync::Arc;

use futures::executor::block_on;

use crate::bindings::admission::exports::oarlock::admission::policy;
use crate::call::Guest;
use crate::{Error, ExtensionPoint, HostEnv, Limits, Loaded};

pub use crate::bindings::admission::exports::oarlock::admission::policy::{
    Cause, Denial, Description, Operation, Patch, Request, Rule, User,
};

/// The most rules that a policy may describe.
const MAX_RULES: usize = 64;
/// The most warnings, or causes of a denial, of one answer.
const MAX_TEXTS: usize = 256;
/// The longest name of a policy.
const MAX_NAME_BYTES: usize = 253;

/// Admission policies, as such.
#[derive(Debug)]
pub struct AdmissionPlugin;

impl AdmissionPlugin {
    /// A fresh instance. Blocks.
    pub fn instantiate(
        loaded: &Loaded,
        limits: &Limits,
        env: Arc<dyn HostEnv>,
    ) -> Result<AdmissionInstance, Error> {
        loaded.demand(ExtensionPoint::Policy)?;
        let (mut guest, instance) = Guest::new(loaded, limits, env, None)?;
        let found = policy::GuestIndices::new(loaded.pre())
            .and_then(|found| found.load(guest.store(), &instance));
        let policy = found.map_err(|e| guest.unlinked(&e))?;
        Ok(AdmissionInstance { guest, policy })
    }
}

/// One instance of an admission policy.
pub struct AdmissionInstance {
    guest: Guest,
    policy: policy::Guest,
}

impl std::fmt::Debug for AdmissionInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdmissionInstance")
            .field("plugin", &self.guest.loaded().name())
            .finish_non_exhaustive()
    }
}

impl AdmissionInstance {
    /// What it is an instance of.
    pub fn loaded(&self) -> &Loaded {
        self.guest.loaded()
    }

    /// Whether it failed and must be replaced.
    pub fn is_dead(&self) -> bool {
        self.guest.is_dead()
    }

    /// Gives it its arguments (JSON); the inner error is its complaint. Blocks.
    pub fn configure(&mut self, args: &str) -> Result<Result<(), String>, Error> {
        let begun = self.guest.begin(true)?;
        let answer = block_on(self.policy.call_configure(self.guest.store(), args));
        self.guest.end("configure", begun, answer)
    }

    /// What it is. Blocks.
    pub fn describe(&mut self) -> Result<Description, Error> {
        let begun = self.guest.begin(true)?;
        let answer = block_on(self.policy.call_describe(self.guest.store()));
        let about = self.guest.end("describe", begun, answer)?;
        if about.name.is_empty() || about.name.len() > MAX_NAME_BYTES {
            return Err(self.guest.lie("describe", "no name".to_owned()));
        }
        if about.rules.is_empty() || about.rules.len() > MAX_RULES {
            let what = format!("{} rules", about.rules.len());
            return Err(self.guest.lie("describe", what));
        }
        if !about.mutates && !about.validates {
            let what = "a policy that neither mutates nor validates".to_owned();
            return Err(self.guest.lie("describe", what));
        }
        Ok(about)
    }

    /// How the object is to be changed; the inner error is the policy's refusal.
    pub async fn mutate(
        &mut self,
        request: &Request,
    ) -> Result<Result<Option<Patch>, Denial>, Error> {
        let begun = self.guest.begin(true)?;
        let answer = self.policy.call_mutate(self.guest.store(), request).await;
        let answer = self.guest.end("mutate", begun, answer)?;
        self.believable("mutate", answer, |_| 0)
    }

    /// Whether the write may pass, and warnings for its sender; the inner error is the policy's refusal.
    pub async fn validate(
        &mut self,
        request: &Request,
    ) -> Result<Result<Vec<String>, Denial>, Error> {
        let begun = self.guest.begin(true)?;
        let answer = self.policy.call_validate(self.guest.store(), request).await;
        let answer = self.guest.end("validate", begun, answer)?;
        self.believable("validate", answer, Vec::len)
    }

    /// Says that the guest's answer turned out to be impossible: it is dead from now on.
    pub fn lied(&mut self, call: &'static str, what: String) -> Error {
        self.guest.lie(call, what)
    }

    fn believable<R>(
        &mut self,
        call: &'static str,
        answer: Result<R, Denial>,
        texts: impl FnOnce(&R) -> usize,
    ) -> Result<Result<R, Denial>, Error> {
        let count = answer
            .as_ref()
            .map_or_else(|denial| denial.causes.len(), texts);
        if count > MAX_TEXTS {
            return Err(self.guest.lie(call, format!("{count} texts")));
        }
        Ok(answer)
    }
}

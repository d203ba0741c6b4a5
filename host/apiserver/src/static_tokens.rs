//! Tokens that a file names (`--token-auth-file`): one line each, `token,user,uid,"group,group"`.
//!
//! Invariant: the file is read once, at start. Cost of a use: one hash look-up.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#static-token-file>

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use oarlock_registry::User;

use crate::accounts::ServiceAccounts;
use crate::auth::{AUTHENTICATED, Authenticated, TokenAuthenticator};

/// See the module.
pub struct StaticTokens {
    users: HashMap<String, Arc<User>>,
}

impl std::fmt::Debug for StaticTokens {
    /// How many, but not which.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.users.len();
        f.debug_struct("StaticTokens")
            .field("count", &count)
            .finish()
    }
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StaticTokensError {
    #[error("cannot read the token file")]
    Read(#[from] std::io::Error),
    #[error("token file line {0}: a quoted field does not end")]
    OpenQuote(usize),
    #[error(
        "token file line {line}: must have at least 3 columns (token, user name, user uid), found {found}"
    )]
    Columns { line: usize, found: usize },
}

impl StaticTokens {
    pub fn read(path: &Path) -> Result<Arc<Self>, StaticTokensError> {
        Self::parse(&std::fs::read_to_string(path)?).map(Arc::new)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, StaticTokensError> {
        let mut users = HashMap::new();
        for (i, row) in text.lines().enumerate() {
            let line = i + 1;
            if row.trim().is_empty() {
                continue;
            }
            let fields = fields(row).ok_or(StaticTokensError::OpenQuote(line))?;
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                let found = fields.len();
                return Err(StaticTokensError::Columns { line, found });
            };
            if token.is_empty() {
                tracing::warn!(line, "a token in the token file is empty, passed over");
                continue;
            }
            let named = rest.first().filter(|groups| !groups.is_empty());
            let mut groups: Vec<String> = named
                .into_iter()
                .flat_map(|groups| groups.split(','))
                .map(str::to_owned)
                .collect();
            if !groups.iter().any(|group| group == AUTHENTICATED) {
                groups.push(AUTHENTICATED.to_owned());
            }
            let user = User {
                name: name.clone(),
                uid: uid.clone(),
                groups,
                ..User::default()
            };
            if users.insert(token.clone(), Arc::new(user)).is_some() {
                tracing::warn!(
                    line,
                    "a token stands twice in the token file, the later one counts"
                );
            }
        }
        Ok(Self { users })
    }
}

/// The fields of a line of comma-separated values; `None`: a quoted one does not end.
fn fields(row: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = row.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    (!quoted).then_some(fields)
}

#[async_trait]
impl TokenAuthenticator for StaticTokens {
    /// These tokens know no audiences: they are good for this server's own.
    async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        _: Timestamp,
    ) -> Result<Option<Authenticated>, String> {
        let own = ServiceAccounts::own_audience();
        if !audiences.is_empty() && !audiences.contains(&own) {
            return Ok(None);
        }
        Ok(self.users.get(token).map(|user| Authenticated {
            user: Arc::clone(user),
            audiences: vec![own],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(tokens: &StaticTokens, token: &str, audiences: &[&str]) -> Option<Arc<User>> {
        let audiences: Vec<String> = audiences.iter().map(|&a| a.to_owned()).collect();
        let found = tokens.authenticate(token, &audiences, Timestamp::UNIX_EPOCH);
        futures::executor::block_on(found)
            .unwrap()
            .map(|found| found.user)
    }

    #[test]
    fn lines_name_users() {
        let text = "t1,jane,7,\"dev,say \"\"hi\"\"\"\n\nt2,joe,8\n,nobody,9\nt2,jim,10,ops\n";
        let tokens = StaticTokens::parse(text).unwrap();
        let jane = whose(&tokens, "t1", &[]).unwrap();
        assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane", "7"));
        assert_eq!(jane.groups, ["dev", "say \"hi\"", AUTHENTICATED]);
        let jim = whose(&tokens, "t2", &[]).unwrap();
        assert_eq!((jim.name.as_str(), jim.groups.len()), ("jim", 2));
        assert!(whose(&tokens, "", &[]).is_none() && whose(&tokens, "t3", &[]).is_none());
        assert!(whose(&tokens, "t1", &["elsewhere"]).is_none());
        let own = ServiceAccounts::own_audience();
        assert!(whose(&tokens, "t1", &["elsewhere", own.as_str()]).is_some());
        assert!(!format!("{tokens:?}").contains("t1"));
    }

    #[test]
    fn bad_lines_are_told() {
        let why = |text: &str| StaticTokens::parse(text).unwrap_err().to_string();
        assert_eq!(
            why("a,b,c\nt,jane"),
            "token file line 2: must have at least 3 columns (token, user name, user uid), found 2"
        );
        assert_eq!(
            why("t,jane,7,\"dev"),
            "token file line 1: a quoted field does not end"
        );
    }
}

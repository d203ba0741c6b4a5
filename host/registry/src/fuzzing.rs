//! A door for `tests/fuzz` to what reads a client's text here and is nobody else's.

use oarlock_model::ApiResult;
use oarlock_store::Revision;

use crate::token::Token;

/// A continue token: its revision, and the key that a list goes on after.
pub fn continue_token(text: &str) -> ApiResult<(Option<Revision>, String)> {
    Token::decode(text).map(|token| (token.revision(), token.after("pods/")))
}

/// A token as a list hands it out.
pub fn make_continue_token(revision: Revision, key: &str) -> String {
    Token::new(Some(revision), key, "pods/").encode()
}

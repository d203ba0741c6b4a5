//! `/openapi/v3` and `/openapi/v2`: what kubectl's `apply`, `explain` and validation read. Made when first asked for and
//! kept; a document's URL carries its hash, so that clients may keep it for ever.

use crate::handler::Call;
use crate::respond::Answer;

#[derive(Debug, Default)]
pub(crate) struct OpenApi {}

impl OpenApi {
    pub fn answer(&self, _call: &Call<'_>, _path: &str) -> Option<Answer> {
        None
    }
}

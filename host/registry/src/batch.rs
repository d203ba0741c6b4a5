//! Many small writes at once: issued together, so that the store's group commit takes them all in a few commits.

use futures::StreamExt as _;
use oarlock_model::ApiResult;
use serde_json::Value;

use crate::{Context, PatchKind, Registry, Stored, Target};

/// How many writes of a batch are on their way to the store at a time.
const BATCH_WORKERS: usize = 1024;

impl Registry {
    /// Merge-patches the status of many objects of one kind; results in order.
    pub async fn patch_status_many(
        &self,
        ctx: &Context,
        patches: Vec<(Target, Value)>,
    ) -> Vec<ApiResult<Stored>> {
        let each = patches.into_iter().map(|(mut target, patch)| {
            "status".clone_into(&mut target.subresource);
            async move {
                self.patch_value(ctx, &target, &PatchKind::Merge, &patch)
                    .await
                    .map(|written| written.object)
            }
        });
        futures::stream::iter(each)
            .buffered(BATCH_WORKERS)
            .collect()
            .await
    }
}

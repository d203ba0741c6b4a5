//! One suite, all backends.

mod suite;

use std::sync::Arc;

use oarlock_store::{Store, StoreOptions};

fn identity(options: StoreOptions) -> StoreOptions {
    options
}

fn memory(adapt: fn(StoreOptions) -> StoreOptions) -> (Arc<dyn Store>, ()) {
    (
        oarlock_store::open(adapt(StoreOptions::memory())).expect("opens"),
        (),
    )
}

fn redb(adapt: fn(StoreOptions) -> StoreOptions) -> (Arc<dyn Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let options = StoreOptions::redb(folder.path().join("store.redb"));
    (oarlock_store::open(adapt(options)).expect("opens"), folder)
}

macro_rules! suite {
    ($backend:ident: $($test:ident $adapt:path,)*) => {
        mod $backend {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let (store, _folder) = super::$backend($adapt);
                    suite::$test(Arc::clone(&store)).await;
                    store.close().await;
                }
            )*
        }
    };
    ($($backend:ident)*) => {
        $(suite! { $backend:
            counts_revisions identity,
            checks_expectations identity,
            commits_all_or_nothing identity,
            lists_in_pages identity,
            reads_the_past identity,
            forgets_the_past identity,
            watches identity,
            watches_under_load identity,
            cuts_off_slow_watchers identity,
            lets_go_of_watchers identity,
            closes identity,
            limits_history suite::small_history,
        })*
    };
}

suite! { memory redb }

//! The one create/get/list/watch/update/patch/delete path for every kind; knows no HTTP.

mod api;

pub use api::*;

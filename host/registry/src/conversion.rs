//! Between the stored form of an object and the version that is asked for. Built-in kinds and definitions with the strategy
//! `None` do it by themselves (`codec`); definitions with the strategy `Webhook` ask a server outside.
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-conversion>
//!
//! Cost: nothing where no webhook converts; else a round trip for each object that is not stored in the version asked for, and
//! one for all objects of a list or of a batch of a watch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oarlock_kinds::Row;
use oarlock_kinds::custom::Custom;
use oarlock_model::status::quote;
use oarlock_model::{ApiError, ApiResult, Reason, meta};
use oarlock_store::Revision;
use serde_json::{Value, json};

use crate::codec::{self, stored_value, tree};
use crate::remote::{ClientConfig, WebhookClient};
use crate::{Registry, Stored};

const GROUP: &str = "apiextensions.k8s.io";
const TIMEOUT: Duration = Duration::from_secs(30);

/// The definition of a kind whose versions a webhook converts.
pub(crate) fn hooked(row: &Row) -> Option<&Custom> {
    row.custom.as_deref().filter(|c| c.webhook.is_some())
}

impl Registry {
    /// [`codec::load`], whoever converts.
    pub(crate) async fn load(&self, row: &Row, value: &Bytes) -> ApiResult<Value> {
        let Some(custom) = hooked(row) else {
            return codec::load(row, value);
        };
        let mut objects = [tree(value)?];
        show(self.webhook_client(), custom, &mut objects).await?;
        let [object] = objects;
        Ok(object)
    }

    /// [`codec::save`], whoever converts.
    pub(crate) async fn save(&self, row: &Row, object: &Value) -> ApiResult<Bytes> {
        let Some(custom) = hooked(row) else {
            return codec::save(row, object);
        };
        let mut objects = [object.clone()];
        let to = custom.storage_version.clone();
        convert(self.webhook_client(), custom, &mut objects, &to).await?;
        codec::encode(&objects[0])
    }

    /// [`codec::shown`], whoever converts.
    pub(crate) async fn shown(
        &self,
        row: &Row,
        value: &Bytes,
        revision: Revision,
    ) -> ApiResult<Stored> {
        if hooked(row).is_none() {
            return codec::shown(row, value, revision);
        }
        stored_value(&self.load(row, value).await?, revision)
    }

    /// Turns stored objects of a list into what the kind shows.
    pub(crate) async fn show_all(&self, row: &Row, items: &mut [Stored]) -> ApiResult<()> {
        match hooked(row) {
            Some(custom) => show_stored(self.webhook_client(), custom, items.iter_mut()).await,
            None => {
                for item in items {
                    *item = codec::shown_stored(row, item)?;
                }
                Ok(())
            }
        }
    }
}

/// Turns objects as they are stored into what a version shows.
pub(crate) async fn show_stored(
    client: Option<&Arc<dyn WebhookClient>>,
    custom: &Custom,
    items: impl Iterator<Item = &mut Stored>,
) -> ApiResult<()> {
    let items: Vec<&mut Stored> = items.collect();
    let parsed = items
        .iter()
        .map(|item| serde_json::from_slice(&item.json).map_err(ApiError::internal));
    let mut objects = parsed.collect::<ApiResult<Vec<Value>>>()?;
    show(client, custom, &mut objects).await?;
    for (item, object) in items.into_iter().zip(&objects) {
        *item = stored_value(object, item.revision)?;
    }
    Ok(())
}

async fn show(
    client: Option<&Arc<dyn WebhookClient>>,
    custom: &Custom,
    objects: &mut [Value],
) -> ApiResult<()> {
    for object in &mut *objects {
        custom.fit_stored(object);
    }
    convert(client, custom, objects, &custom.version).await
}

/// Asks the webhook for those objects that are not in the wanted version.
async fn convert(
    client: Option<&Arc<dyn WebhookClient>>,
    custom: &Custom,
    objects: &mut [Value],
    to: &str,
) -> ApiResult<()> {
    let wanted = format!("{}/{to}", custom.group);
    let others: Vec<&mut Value> = objects
        .iter_mut()
        .filter(|object| meta::api_version(object) != wanted)
        .collect();
    let (Some(first), Some(webhook)) = (others.first(), &custom.webhook) else {
        return Ok(());
    };
    let from = format!("{}, Kind={}", meta::api_version(first), custom.kind);
    let failed = |why: String| {
        let text = format!("conversion webhook for {from} {why}");
        ApiError::new(Reason::Unknown, text)
    };
    let client = client.ok_or_else(|| failed("failed: this server makes no calls".to_owned()))?;
    let versions = webhook["conversionReviewVersions"].as_array();
    let known = |v: &&Value| *v == "v1" || *v == "v1beta1";
    let version = versions
        .and_then(|all| all.iter().find(known)?.as_str())
        .unwrap_or("v1");
    let uid = uuid::Uuid::new_v4().to_string();
    let review = json!({
        "kind": "ConversionReview", "apiVersion": format!("{GROUP}/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": others},
    });
    let at = ClientConfig::of(&webhook["clientConfig"]);
    let answer = client
        .post(&at, TIMEOUT, review.to_string().into())
        .await
        .map_err(|why| failed(format!("failed: {why}")))?;
    let converted =
        converted(&answer, version, &uid).map_err(|why| failed(format!("failed: {why}")))?;
    if converted.len() != others.len() {
        return Err(failed(format!(
            "returned {} objects, expected {}",
            converted.len(),
            others.len()
        )));
    }
    for (at, (object, new)) in others.into_iter().zip(converted).enumerate() {
        let new = believed(object, new, &wanted, at).map_err(failed)?;
        *object = new;
        custom.fit_version(object, to);
    }
    Ok(())
}

/// The objects of an answer that makes sense.
fn converted(answer: &[u8], version: &str, uid: &str) -> Result<Vec<Value>, String> {
    let mut review: Value = serde_json::from_slice(answer).map_err(|why| why.to_string())?;
    let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&review["apiVersion"]), text(&review["kind"]));
    if api_version != format!("{GROUP}/{version}") || kind != "ConversionReview" {
        return Err(format!(
            "expected webhook response of {GROUP}/{version}, Kind=ConversionReview, got {api_version}, Kind={kind}"
        ));
    }
    let response = &mut review["response"];
    if !response.is_object() {
        return Err("no response provided".to_owned());
    }
    let said = text(&response["uid"]);
    if said != uid {
        let (wanted, got) = (quote(uid), quote(&said));
        return Err(format!("expected response.uid={wanted}, got {got}"));
    }
    let status = text(&response["result"]["status"]);
    if status != "Success" {
        let message = text(&response["result"]["message"]);
        return Err(if message.is_empty() {
            format!("response.result.status was '{status}', not 'Success'")
        } else {
            message
        });
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// A converted object with the metadata of the original, of which a conversion may change labels and annotations only.
fn believed(original: &Value, mut new: Value, wanted: &str, at: usize) -> Result<Value, String> {
    let invalid = |why: String| format!("returned invalid converted object at index {at}: {why}");
    if meta::api_version(&new) != wanted {
        return Err(invalid(format!(
            "invalid groupVersion (expected {wanted}, received {})",
            meta::api_version(&new)
        )));
    }
    if meta::kind(&new) != meta::kind(original) {
        return Err(invalid(format!(
            "invalid kind (expected {}, received {})",
            meta::kind(original),
            meta::kind(&new)
        )));
    }
    let metadata = &new["metadata"];
    if !metadata.is_object() {
        return Err(invalid("invalid metadata: missing".to_owned()));
    }
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (was, is) = (&original["metadata"][field], &metadata[field]);
        if was != is {
            let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
            return Err(format!(
                "returned invalid metadata: must have the same {name}: {} != {}",
                text(is),
                text(was)
            ));
        }
    }
    let mut kept = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        match metadata.get(field) {
            Some(value) if !value.is_null() => kept[field] = value.clone(),
            _ => {
                meta::as_map_mut(&mut kept).remove(field);
            }
        }
    }
    new["metadata"] = kept;
    Ok(new)
}

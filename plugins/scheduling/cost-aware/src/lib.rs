//! An example of a score: nodes that cost less are better.
//!
//! A node's price is its annotation `oarlock.dev/hourly-price` (or what `args` name: `{"annotation": "…", "unknownPrice":
//! 1.5}`), in any currency. The cheapest feasible node ends at 100, and one that costs as much as the dearest at 0.

use oarlock_sdk::scheduling::{NodeInfo, Normalization, Plugin, Pod, Score};

/// Prices are compared in thousandths.
const MILLI: f64 = 1000.0;
/// Above this, a price is taken for this: sums of scores stay far from overflow.
const MAX_PRICE: f64 = 1e9;

/// The plugin's arguments.
#[derive(Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Args {
    annotation: String,
    /// What a node without (or with an unreadable) price is taken to cost.
    unknown_price: f64,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            annotation: "oarlock.dev/hourly-price".to_owned(),
            unknown_price: 1.0,
        }
    }
}

/// The plugin.
#[derive(Debug, Default)]
pub struct CostAware {
    args: Args,
}

impl Plugin for CostAware {
    const NAME: &'static str = "CostAware";

    fn configure(&mut self, args: &str) -> Result<(), String> {
        let args: Args = serde_json::from_str(args).map_err(|error| error.to_string())?;
        if args.unknown_price.is_nan() || args.unknown_price < 0.0 {
            return Err("unknownPrice must not be negative".to_owned());
        }
        self.args = args;
        Ok(())
    }
}

impl Score for CostAware {
    const NORMALIZATION: Normalization = Normalization::ByMaximumReversed;

    fn score(&self, _pod: &Pod, node: &NodeInfo) -> i64 {
        let price = node
            .annotation(&self.args.annotation)
            .and_then(|text| text.parse::<f64>().ok());
        let price = price
            .filter(|price| *price >= 0.0)
            .unwrap_or(self.args.unknown_price);
        (price.min(MAX_PRICE) * MILLI).round() as i64
    }
}

oarlock_sdk::export_plugins!(CostAware: Score);

#[cfg(test)]
mod tests {
    use oarlock_sdk::scheduling::testing::{Answer, TestCluster};
    use serde_json::json;

    use super::component_plugins;

    fn prices(args: &str) -> Vec<Answer> {
        let mut cluster = TestCluster::new(component_plugins());
        cluster
            .configure("CostAware", args)
            .expect("good arguments");
        for (name, price) in [
            ("cheap", "0.25"),
            ("dear", "2"),
            ("odd", "-1"),
            ("silent", "?"),
        ] {
            cluster.node(json!({"metadata": {"name": name, "annotations": {"oarlock.dev/hourly-price": price}}}));
        }
        cluster
            .ask(json!({}))
            .into_iter()
            .map(|(_, answer)| answer)
            .collect()
    }

    #[test]
    fn scores_are_prices_in_thousandths() {
        let check = |args: &str, expect: [i64; 4]| {
            assert_eq!(
                prices(args),
                expect.map(|score| Answer::Fits(vec![score])),
                "{args}"
            );
        };
        check("{}", [250, 2000, 1000, 1000]);
        check(r#"{"unknownPrice": 3}"#, [250, 2000, 3000, 3000]);
        check(r#"{"annotation": "other"}"#, [1000; 4]);
    }

    #[test]
    fn bad_arguments_are_refused() {
        let mut cluster = TestCluster::new(component_plugins());
        let mut check =
            |args: &str| assert!(cluster.configure("CostAware", args).is_err(), "{args}");
        check(r#"{"unknownPrice": -1}"#);
        check(r#"{"price": 1}"#);
        check("nonsense");
    }
}

//! A SchedulerProfile's spec, read strictly, and what it means for the plugins of its components.
//! Written as `KubeSchedulerConfiguration` writes profiles, with `component` to say where plugins come from.

use std::collections::BTreeMap;

use oarlock_wasm::scheduler::{PluginInfo, Points};
use serde::Deserialize;
use serde_json::Value;

use crate::member::{Enabled, FailurePolicy};
use crate::pod::DEFAULT_SCHEDULER_NAME;

/// The name under which the built-in bundle is known.
pub const DEFAULT_COMPONENT: &str = "default-scheduler";
/// More failures of guests than this roll a new version back.
pub const DEFAULT_MAX_TRAPS: u32 = 3;
/// Components in one profile.
pub const MAX_COMPONENTS: usize = 16;
/// kube-scheduler's `*`: all plugins.
const ALL: &str = "*";

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProfileSpec {
    pub scheduler_name: Option<String>,
    /// The component of plugins that name none: a Component's name, or a digest.
    pub component: Option<String>,
    pub plugins: Option<BTreeMap<String, Option<PluginSet>>>,
    pub plugin_config: Option<Vec<PluginConfig>>,
    pub percentage_of_nodes_to_score: Option<i64>,
    pub failure_policy: Option<String>,
    pub limits: Option<LimitsSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PluginSet {
    pub enabled: Option<Vec<Plugin>>,
    pub disabled: Option<Vec<Plugin>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Plugin {
    pub name: String,
    pub weight: Option<i64>,
    pub component: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PluginConfig {
    pub name: String,
    pub args: Option<Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitsSpec {
    #[serde(rename = "memoryMiB")]
    pub memory_mib: Option<u32>,
    pub deadline_milliseconds: Option<u64>,
    pub max_traps: Option<u32>,
}

impl ProfileSpec {
    pub fn parse(spec: &Value) -> Result<Self, String> {
        let parsed: Self = if spec.is_null() {
            Self::default()
        } else {
            Self::deserialize(spec).map_err(|e| e.to_string())?
        };
        parsed.failure_policy()?;
        Ok(parsed)
    }

    pub fn scheduler_name(&self) -> &str {
        self.scheduler_name
            .as_deref()
            .filter(|n| !n.is_empty())
            .unwrap_or(DEFAULT_SCHEDULER_NAME)
    }

    pub fn default_component(&self) -> &str {
        self.component
            .as_deref()
            .filter(|c| !c.is_empty())
            .unwrap_or(DEFAULT_COMPONENT)
    }

    pub fn failure_policy(&self) -> Result<FailurePolicy, String> {
        match self.failure_policy.as_deref() {
            None | Some("" | "Fail") => Ok(FailurePolicy::Fail),
            Some("Ignore") => Ok(FailurePolicy::Ignore),
            Some(other) => Err(format!(
                "spec.failurePolicy: {other:?} is neither Fail nor Ignore"
            )),
        }
    }

    fn sets(&self) -> impl Iterator<Item = (&str, &PluginSet)> {
        self.plugins
            .iter()
            .flatten()
            .filter_map(|(point, set)| Some((point.as_str(), set.as_ref()?)))
    }

    /// The components that the profile takes plugins from, the default one first.
    pub fn components(&self) -> Result<Vec<String>, String> {
        let mut names = vec![self.default_component().to_owned()];
        for plugin in self
            .sets()
            .flat_map(|(_, set)| set.enabled.iter().flatten())
        {
            if let Some(name) = plugin.component.as_ref().filter(|n| !n.is_empty())
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
        if names.len() > MAX_COMPONENTS {
            return Err(format!(
                "a profile takes plugins from at most {MAX_COMPONENTS} components"
            ));
        }
        Ok(names)
    }

    fn set(&self, point: &str) -> Option<&PluginSet> {
        self.plugins.as_ref()?.get(point)?.as_ref()
    }

    /// Which plugins of a component are enabled, and how. Plugins of the default component are on unless disabled; those of
    /// the others must be enabled by name.
    pub fn enabled(&self, component: &str, infos: &[PluginInfo]) -> Result<Vec<Enabled>, String> {
        let is_default = component == self.default_component();
        let mut out: Vec<(usize, Enabled)> = Vec::new();
        for (index, info) in infos.iter().enumerate() {
            let at = |point: &str| self.at(point, component, is_default, &info.name);
            let (filters, scores) = (at("filter").or(at("preFilter")), at("score"));
            let weight = scores.map(|(_, weight)| weight.unwrap_or(i64::from(info.default_weight)));
            let args = self
                .plugin_config
                .iter()
                .flatten()
                .find(|c| c.name == info.name)
                .and_then(|c| c.args.as_ref());
            let enabled = Enabled {
                plugin: index as u32,
                filters: filters.is_some(),
                weight: weight.filter(|_| info.points.contains(Points::SCORE)),
                enqueues: at("preEnqueue").is_some(),
                sorts: at("queueSort").is_some(),
                args: args.map_or_else(|| "{}".to_owned(), Value::to_string),
            };
            if enabled.filters || enabled.weight.is_some() || enabled.enqueues || enabled.sorts {
                let order = filters.or(scores).map_or(usize::MAX, |(order, _)| order);
                out.push((order, enabled));
            }
        }
        out.sort_by_key(|(order, _)| *order);
        for plugin in self
            .sets()
            .flat_map(|(_, set)| set.enabled.iter().flatten())
        {
            let of = plugin
                .component
                .as_deref()
                .filter(|c| !c.is_empty())
                .unwrap_or(self.default_component());
            if of == component && plugin.name != ALL && !infos.iter().any(|i| i.name == plugin.name)
            {
                return Err(format!(
                    "component {component} has no plugin {}",
                    plugin.name
                ));
            }
        }
        Ok(out.into_iter().map(|(_, enabled)| enabled).collect())
    }

    /// Whether a plugin is enabled at a point: its order (those enabled by name come after the ones that are on by
    /// themselves) and its weight, if one is written.
    fn at(
        &self,
        point: &str,
        component: &str,
        is_default: bool,
        name: &str,
    ) -> Option<(usize, Option<i64>)> {
        let mut found = is_default.then_some((0, None));
        for set in [self.set("multiPoint"), self.set(point)]
            .into_iter()
            .flatten()
        {
            if set
                .disabled
                .iter()
                .flatten()
                .any(|p| p.name == ALL || p.name == name)
            {
                found = None;
            }
            let is_it = |p: &Plugin| {
                let of = p
                    .component
                    .as_deref()
                    .filter(|c| !c.is_empty())
                    .unwrap_or(self.default_component());
                of == component && (p.name == name || p.name == ALL)
            };
            if let Some(place) = set.enabled.iter().flatten().position(is_it) {
                let plugin = set.enabled.as_ref().map(|list| &list[place]);
                let weight = plugin.and_then(|p| p.weight).filter(|w| *w != 0);
                let order = found.map_or(place + 1, |(order, _)| order);
                found = Some((order, weight.or(found.and_then(|(_, weight)| weight))));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use oarlock_wasm::scheduler::{Events, Normalization, Scope};
    use serde_json::json;

    use super::*;

    fn infos(names: &[&str]) -> Vec<PluginInfo> {
        let info = |name: &&str| PluginInfo {
            name: (*name).to_owned(),
            points: Points::FILTER | Points::SCORE,
            filter_scope: Scope::NodeLocal,
            score_scope: Scope::NodeLocal,
            normalization: Normalization::None,
            default_weight: 2,
            wakes_on: Events::empty(),
        };
        names.iter().map(info).collect()
    }

    #[test]
    fn what_is_enabled() {
        let check = |spec: Value, component: &str, expect: &[(u32, bool, Option<i64>)]| {
            let parsed = ProfileSpec::parse(&spec).unwrap();
            let enabled = parsed.enabled(component, &infos(&["A", "B"])).unwrap();
            let got: Vec<_> = enabled
                .iter()
                .map(|e| (e.plugin, e.filters, e.weight))
                .collect();
            assert_eq!(got, expect, "{spec}");
        };
        check(
            json!({}),
            DEFAULT_COMPONENT,
            &[(0, true, Some(2)), (1, true, Some(2))],
        );
        check(json!({}), "other", &[]);
        check(
            json!({"plugins": {"multiPoint": {"disabled": [{"name": "A"}]}}}),
            DEFAULT_COMPONENT,
            &[(1, true, Some(2))],
        );
        check(
            json!({"plugins": {"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "B", "weight": 7}]}}}),
            DEFAULT_COMPONENT,
            &[(0, true, None), (1, true, Some(7))],
        );
        check(
            json!({"plugins": {"multiPoint": {"enabled": [{"name": "B", "component": "mine", "weight": 5}]}}}),
            "mine",
            &[(1, true, Some(5))],
        );
        check(
            json!({"component": "mine"}),
            "mine",
            &[(0, true, Some(2)), (1, true, Some(2))],
        );
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = json!({"plugins": {"score": {"enabled": [{"name": "C"}]}}});
        let parsed = ProfileSpec::parse(&unknown).unwrap();
        assert!(
            parsed
                .enabled(DEFAULT_COMPONENT, &infos(&["A"]))
                .unwrap_err()
                .contains('C')
        );
        assert!(ProfileSpec::parse(&json!({"failurePolicy": "Maybe"})).is_err());
    }
}

//! Cluster IPs and node ports of Services: in-memory bitmaps, rebuilt from the store at start.
//! A number is taken before the Service is stored and given back if that fails, so two Services never share one.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use oarlock_kinds::Row;
use oarlock_model::{ApiResult, Cause, meta};
use oarlock_store::{RangeQuery, Store};
use parking_lot::Mutex;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::codec::tree;
use crate::{Context, strategy};

/// 10.0.0.0/16
const NETWORK: u32 = 0x0a00_0000;
const NETWORK_SIZE: u32 = 1 << 16;
const FIRST_PORT: u32 = 30_000;
const PORT_COUNT: u32 = 2_768;
/// The first address is the `kubernetes` Service's; up to here numbers are left to those who ask for them by name.
/// Source: <https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/>
const RESERVED_IPS: u32 = 256;
const RESERVED_PORTS: u32 = 86;

#[derive(Debug)]
struct Bitmap {
    words: Vec<u64>,
    size: u32,
    /// Numbers below are handed out only when there are no others.
    reserved: u32,
}

impl Bitmap {
    fn new(size: u32, reserved: u32) -> Self {
        Self {
            words: vec![0; size.div_ceil(64) as usize],
            size,
            reserved,
        }
    }

    fn slot(&mut self, at: u32) -> Option<(&mut u64, u64)> {
        self.words
            .get_mut((at / 64) as usize)
            .map(|word| (word, 1 << (at % 64)))
    }

    /// False if it was taken.
    fn take(&mut self, at: u32) -> bool {
        match self.slot(at) {
            Some((word, bit)) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }

    fn free(&mut self, at: u32) {
        if let Some((word, bit)) = self.slot(at) {
            *word &= !bit;
        }
    }

    /// A free number: a random start, then the next free one; the reserved band last.
    fn any(&mut self) -> Option<u32> {
        let span = self.size - self.reserved;
        let start = rand::rng().random_range(0..span);
        let reserved = self.reserved;
        let high = (0..span).map(|step| reserved + (start + step) % span);
        high.chain(0..reserved).find(|at| self.take(*at))
    }
}

#[derive(Debug)]
struct Pools {
    ips: Bitmap,
    ports: Bitmap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Ip(u32),
    Port(u32),
}

/// Shared by all writes of Services.
#[derive(Clone, Debug)]
pub struct ServiceAllocators(Arc<Mutex<Pools>>);

/// Numbers taken for one write; dropped without [`Allocation::keep`] they are free again.
#[derive(Debug, Default)]
pub struct Allocation {
    pools: Option<ServiceAllocators>,
    taken: Vec<Taken>,
}

impl Allocation {
    pub fn keep(mut self) {
        self.taken.clear();
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Some(pools) = &self.pools {
            pools.give_back(&self.taken);
        }
    }
}

impl Default for ServiceAllocators {
    fn default() -> Self {
        let mut ips = Bitmap::new(NETWORK_SIZE, RESERVED_IPS);
        // The network's own address and the broadcast address.
        ips.take(0);
        ips.take(NETWORK_SIZE - 1);
        Self(Arc::new(Mutex::new(Pools {
            ips,
            ports: Bitmap::new(PORT_COUNT, RESERVED_PORTS),
        })))
    }
}

impl ServiceAllocators {
    /// Takes what stored Services hold.
    pub fn rebuild(&self, store: &dyn Store, row: &Row) -> ApiResult<()> {
        let query = RangeQuery {
            prefix: crate::keys::prefix(row, ""),
            ..RangeQuery::default()
        };
        let page = store.range(&query).map_err(crate::errors::list_read)?;
        let mut pools = self.0.lock();
        for record in &page.records {
            let service = tree(&record.value)?;
            for taken in numbers(&service) {
                pools.take(taken);
            }
        }
        Ok(())
    }

    /// Fills in `clusterIP`, `clusterIPs` and node ports where the Service's type wants them.
    pub fn assign(
        &self,
        ctx: &Context,
        row: &Row,
        object: &mut Value,
        old: Option<&Value>,
    ) -> ApiResult<Allocation> {
        if !strategy::is(row, "", "Service") {
            return Ok(Allocation::default());
        }
        let mut allocation = Allocation {
            pools: Some(self.clone()),
            taken: Vec::new(),
        };
        let held = old.map(numbers).unwrap_or_default();
        if let Some(old) = old {
            keep_numbers(object, old);
        }
        let name = meta::name(object).to_owned();
        set_families(object);
        let refuse = |causes| Err(crate::errors::invalid(row, &name, causes));
        self.assign_ip(object, &held, &mut allocation)
            .or_else(refuse)?;
        self.assign_ports(object, &held, &mut allocation)
            .or_else(refuse)?;
        // A dry run only looks whether the numbers are free.
        if ctx.dry_run {
            self.give_back(&std::mem::take(&mut allocation.taken));
        }
        Ok(allocation)
    }

    fn assign_ip(
        &self,
        object: &mut Value,
        held: &[Taken],
        allocation: &mut Allocation,
    ) -> Result<(), Vec<Cause>> {
        let spec = meta::child_map_mut(meta::as_map_mut(object), "spec");
        if spec.get("type").and_then(Value::as_str) == Some("ExternalName") {
            return Ok(());
        }
        let first = |spec: &serde_json::Map<String, Value>| {
            spec.get("clusterIPs")
                .and_then(Value::as_array)
                .and_then(|l| l.first())
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let asked = spec
            .get("clusterIP")
            .and_then(Value::as_str)
            .filter(|ip| !ip.is_empty())
            .map(str::to_owned)
            .or_else(|| first(spec))
            .unwrap_or_default();
        let ip = if asked == "None" {
            asked
        } else if asked.is_empty() {
            let Some(at) = self.0.lock().ips.any() else {
                return Err(vec![Cause::new(
                    "InternalError",
                    "spec.clusterIPs",
                    "Internal error: failed to allocate IP: range is full",
                )]);
            };
            allocation.taken.push(Taken::Ip(at));
            ip_text(at)
        } else {
            self.take_ip(&asked, held, allocation)?;
            asked
        };
        spec.insert("clusterIP".to_owned(), json!(ip));
        if first(spec).as_deref() != Some(ip.as_str()) {
            spec.insert("clusterIPs".to_owned(), json!([ip]));
        }
        Ok(())
    }

    fn take_ip(
        &self,
        text: &str,
        held: &[Taken],
        allocation: &mut Allocation,
    ) -> Result<(), Vec<Cause>> {
        let refuse = |why: String| {
            Err(vec![Cause::invalid(
                "spec.clusterIPs",
                &json!([text]),
                &why,
            )])
        };
        let Some(at) = ip_number(text) else {
            return match text.parse::<Ipv4Addr>() {
                Ok(_) => refuse(format!(
                    "failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. The range of valid IPs is 10.0.0.0/16"
                )),
                // Not an address at all, or of a family that is not served: the kind's validation says so.
                Err(_) => Ok(()),
            };
        };
        if held.contains(&Taken::Ip(at)) {
            return Ok(());
        }
        if !self.0.lock().ips.take(at) {
            return refuse(format!(
                "failed to allocate IP {text}: provided IP is already allocated"
            ));
        }
        allocation.taken.push(Taken::Ip(at));
        Ok(())
    }

    fn assign_ports(
        &self,
        object: &mut Value,
        held: &[Taken],
        allocation: &mut Allocation,
    ) -> Result<(), Vec<Cause>> {
        let spec = meta::child_map_mut(meta::as_map_mut(object), "spec");
        let wants = match spec.get("type").and_then(Value::as_str) {
            Some("NodePort") => true,
            Some("LoadBalancer") => {
                spec.get("allocateLoadBalancerNodePorts")
                    .and_then(Value::as_bool)
                    != Some(false)
            }
            _ => false,
        };
        let mut causes = Vec::new();
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        for (index, port) in ports.into_iter().flatten().enumerate() {
            let field = format!("spec.ports[{index}].nodePort");
            match port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) {
                0 if wants => match self.0.lock().ports.any() {
                    Some(at) => {
                        allocation.taken.push(Taken::Port(at));
                        meta::as_map_mut(port).insert("nodePort".to_owned(), json!(FIRST_PORT + at));
                    }
                    None => causes.push(Cause::new("InternalError", field, "Internal error: failed to allocate a nodePort: range is full")),
                },
                0 => {}
                asked => match u32::try_from(asked - i64::from(FIRST_PORT)) {
                    Ok(at) if at < PORT_COUNT => {
                        let ours = Taken::Port(at);
                        if held.contains(&ours) || allocation.taken.contains(&ours) {
                        } else if self.0.lock().ports.take(at) {
                            allocation.taken.push(ours);
                        } else {
                            causes.push(Cause::invalid(field, &json!(asked), "provided port is already allocated"));
                        }
                    }
                    _ => causes.push(Cause::invalid(
                        field,
                        &json!(asked),
                        "provided port is not in the valid range. The range of valid ports is 30000-32767",
                    )),
                },
            }
        }
        if causes.is_empty() {
            Ok(())
        } else {
            Err(causes)
        }
    }

    /// After a Service was removed.
    pub fn release(&self, row: &Row, value: &Bytes) {
        if strategy::is(row, "", "Service")
            && let Ok(service) = tree(value)
        {
            self.give_back(&numbers(&service));
        }
    }

    /// After an update: what the old state held and the new one does not.
    pub fn release_unused(&self, row: &Row, old: &Value, new: &Value) {
        if !strategy::is(row, "", "Service") {
            return;
        }
        let kept = numbers(new);
        let gone: Vec<_> = numbers(old)
            .into_iter()
            .filter(|taken| !kept.contains(taken))
            .collect();
        self.give_back(&gone);
    }

    fn give_back(&self, taken: &[Taken]) {
        if taken.is_empty() {
            return;
        }
        let mut pools = self.0.lock();
        for taken in taken {
            match taken {
                Taken::Ip(at) => pools.ips.free(*at),
                Taken::Port(at) => pools.ports.free(*at),
            }
        }
    }
}

impl Pools {
    fn take(&mut self, taken: Taken) {
        match taken {
            Taken::Ip(at) => self.ips.take(at),
            Taken::Port(at) => self.ports.take(at),
        };
    }
}

/// One family of addresses is served; a headless Service without selector is left to whoever fills its endpoints.
fn set_families(object: &mut Value) {
    let spec = meta::child_map_mut(meta::as_map_mut(object), "spec");
    let text = |spec: &serde_json::Map<String, Value>, field: &str| {
        spec.get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let open = text(spec, "clusterIP") == "None"
        && spec
            .get("selector")
            .and_then(Value::as_object)
            .is_none_or(|s| s.is_empty());
    let given = spec.contains_key("ipFamilyPolicy");
    let policy = spec.entry("ipFamilyPolicy").or_insert_with(|| {
        json!(if open {
            "RequireDualStack"
        } else {
            "SingleStack"
        })
    });
    let both = open && !given && policy == "RequireDualStack";
    if spec
        .get("ipFamilies")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        spec.insert(
            "ipFamilies".to_owned(),
            if both {
                json!(["IPv4", "IPv6"])
            } else {
                json!(["IPv4"])
            },
        );
    }
}

/// An update that leaves address and ports out keeps them.
fn keep_numbers(object: &mut Value, old: &Value) {
    let spec = meta::child_map_mut(meta::as_map_mut(object), "spec");
    let Some(old) = old.get("spec").and_then(Value::as_object) else {
        return;
    };
    let is = |spec: &serde_json::Map<String, Value>, field: &str, value: &str| {
        spec.get(field).and_then(Value::as_str).unwrap_or_default() == value
    };
    if is(spec, "type", "ExternalName") || is(old, "type", "ExternalName") {
        return;
    }
    let no_ip = is(spec, "clusterIP", "")
        && spec
            .get("clusterIPs")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty);
    if no_ip {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old.get(field) {
                spec.insert(field.to_owned(), value.clone());
            }
        }
    }
    if is(spec, "type", "ClusterIP") {
        return;
    }
    let identity = |port: &Value| (port.get("protocol").cloned(), port.get("port").cloned());
    let old_ports = old
        .get("ports")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let before = old_ports
            .iter()
            .find(|p| identity(p) == identity(port))
            .and_then(|p| p.get("nodePort"));
        if let (None | Some(0), Some(before)) =
            (port.get("nodePort").and_then(Value::as_i64), before)
        {
            meta::as_map_mut(port).insert("nodePort".to_owned(), before.clone());
        }
    }
}

/// What a Service holds.
fn numbers(service: &Value) -> Vec<Taken> {
    let spec = service.get("spec");
    let ips = spec
        .and_then(|s| s.get("clusterIPs"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let single = spec.and_then(|s| s.get("clusterIP"));
    let mut taken: Vec<_> = ips
        .chain(single)
        .filter_map(Value::as_str)
        .filter_map(ip_number)
        .map(Taken::Ip)
        .collect();
    let ports = spec
        .and_then(|s| s.get("ports"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    taken.extend(
        ports
            .filter_map(|p| p.get("nodePort")?.as_i64())
            .filter_map(|port| {
                let at = u32::try_from(port - i64::from(FIRST_PORT)).ok()?;
                (at < PORT_COUNT).then_some(Taken::Port(at))
            }),
    );
    taken.dedup();
    taken
}

fn ip_number(text: &str) -> Option<u32> {
    let at = u32::from(text.parse::<Ipv4Addr>().ok()?).checked_sub(NETWORK)?;
    (at < NETWORK_SIZE).then_some(at)
}

fn ip_text(at: u32) -> String {
    Ipv4Addr::from(NETWORK + at).to_string()
}

/// The address of the `kubernetes` Service.
pub fn first_ip() -> String {
    ip_text(1)
}

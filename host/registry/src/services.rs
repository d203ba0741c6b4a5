//! Cluster IPs and node ports of Services: in-memory bitmaps, rebuilt from the store at start.
//! A number is taken before the Service is stored and given back if that fails, so two Services never share one.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Cause, meta};
use oarlock_store::{RangeQuery, Store};
use parking_lot::Mutex;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::codec::tree;
use crate::{Context, families, strategy};

/// 10.0.0.0/16
const NETWORK: u32 = 0x0a00_0000;
const NETWORK_SIZE: u32 = 1 << 16;
const FIRST_PORT: u32 = 30_000;
const PORT_COUNT: u32 = 2_768;
/// The first address is the `kubernetes` Service's; up to here numbers are left to those who ask for them by name.
/// Source: <https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/>
const RESERVED_IPS: u32 = 256;
const RESERVED_PORTS: u32 = 86;
/// Ports that a dry run would get are numbered from here, out of the range.
const DRY_RUN_PORT: i64 = 32_768;

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
        sync_addresses(object, old);
        let name = meta::name(object).to_owned();
        let refuse = |causes| Err(crate::errors::invalid(row, &name, causes));
        families::fill_in(object, old).or_else(refuse)?;
        // A Service that has its address keeps it; that it may not ask for another is the kind's rule.
        let has_address = old.is_some_and(|old| {
            spec_text(old, "type") != "ExternalName" && spec_text(object, "type") != "ExternalName"
        });
        if !has_address {
            self.assign_ip(ctx, object, &held, &mut allocation)
                .or_else(refuse)?;
        }
        self.assign_ports(ctx, object, &held, &mut allocation)
            .or_else(refuse)?;
        self.assign_health_port(ctx, object, old, &mut allocation)?;
        // A dry run only looks whether the numbers are free.
        if ctx.dry_run {
            self.give_back(&std::mem::take(&mut allocation.taken));
        }
        Ok(allocation)
    }

    fn assign_ip(
        &self,
        ctx: &Context,
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
        } else if asked.is_empty() && ctx.dry_run {
            // Nothing is searched for a dry run: the network's own address stands for whatever it would have been.
            ip_text(0)
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
            self.take_ip(ctx, &asked, held, allocation)?;
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
        ctx: &Context,
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
        if held.contains(&Taken::Ip(at)) || ctx.dry_run {
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
        ctx: &Context,
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
        let served = wants || spec.get("type").is_some_and(|t| t == "LoadBalancer");
        if !served {
            return Ok(());
        }
        let mut dry = DRY_RUN_PORT;
        let mut shared: Vec<(i64, i64)> = Vec::new();
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        for (index, port) in ports.into_iter().flatten().enumerate() {
            let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
            let given = match port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) {
                0 if !wants => continue,
                // One number for all protocols of one port.
                0 => match shared.iter().find(|(of, _)| *of == number) {
                    Some((_, node_port)) => *node_port,
                    None if ctx.dry_run => {
                        dry += 1;
                        dry
                    }
                    None => {
                        let Some(at) = self.0.lock().ports.any() else {
                            return Err(vec![Cause::new(
                                "InternalError",
                                format!("spec.ports[{index}].nodePort"),
                                "Internal error: failed to allocate a nodePort: range is full",
                            )]);
                        };
                        allocation.taken.push(Taken::Port(at));
                        i64::from(FIRST_PORT + at)
                    }
                },
                asked => {
                    self.take_port(ctx, asked, held, allocation)
                        .map_err(|why| {
                            let field = format!("spec.ports[{index}].nodePort");
                            vec![Cause::invalid(field, &json!(asked), why)]
                        })?;
                    asked
                }
            };
            if shared.iter().all(|(of, _)| *of != number) {
                shared.push((number, given));
            }
            meta::as_map_mut(port).insert("nodePort".to_owned(), json!(given));
        }
        Ok(())
    }

    /// Takes a port that is asked for by its number.
    fn take_port(
        &self,
        ctx: &Context,
        asked: i64,
        held: &[Taken],
        allocation: &mut Allocation,
    ) -> Result<(), &'static str> {
        match u32::try_from(asked - i64::from(FIRST_PORT)) {
            Ok(at) if at < PORT_COUNT => {
                let ours = Taken::Port(at);
                if held.contains(&ours) || allocation.taken.contains(&ours) {
                    return Ok(());
                }
                if !self.0.lock().ports.take(at) {
                    return Err("provided port is already allocated");
                }
                allocation.taken.push(ours);
                Ok(())
            }
            _ if ctx.dry_run => Ok(()),
            _ => Err(
                "provided port is not in the valid range. The range of valid ports is 30000-32767",
            ),
        }
    }

    /// A load balancer that sends to local pods only asks nodes for their health, on a port of its own.
    fn assign_health_port(
        &self,
        ctx: &Context,
        object: &mut Value,
        old: Option<&Value>,
        allocation: &mut Allocation,
    ) -> ApiResult<()> {
        if !needs_health_port(object) {
            return Ok(());
        }
        let number = |service: &Value| service["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0);
        let before = old.filter(|old| needs_health_port(old)).map_or(0, number);
        let asked = number(object);
        let given = match (asked, before) {
            (0, before) if before != 0 => before,
            (_, before) if before != 0 => return Ok(()),
            (0, _) if ctx.dry_run => DRY_RUN_PORT + 1,
            (0, _) => {
                let taken = self.0.lock().ports.any();
                let Some(at) = taken else {
                    return Err(ApiError::internal(
                        "failed to allocate a HealthCheck NodePort 0: range is full",
                    ));
                };
                allocation.taken.push(Taken::Port(at));
                i64::from(FIRST_PORT + at)
            }
            (asked, _) => {
                self.take_port(ctx, asked, &[], allocation).map_err(|why| {
                    ApiError::internal(format!(
                        "failed to allocate requested HealthCheck NodePort {asked}: {why}"
                    ))
                })?;
                asked
            }
        };
        let spec = meta::child_map_mut(meta::as_map_mut(object), "spec");
        spec.insert("healthCheckNodePort".to_owned(), json!(given));
        Ok(())
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

fn spec_text<'a>(service: &'a Value, field: &str) -> &'a str {
    service["spec"][field].as_str().unwrap_or_default()
}

fn needs_health_port(service: &Value) -> bool {
    spec_text(service, "type") == "LoadBalancer"
        && spec_text(service, "externalTrafficPolicy") == "Local"
}

/// `clusterIP` and the first of `clusterIPs` are one address: where a caller speaks of one, the other follows.
fn sync_addresses(object: &mut Value, old: Option<&Value>) {
    let single = spec_text(object, "clusterIP").to_owned();
    let list = |service: &Value| service["spec"]["clusterIPs"].as_array().cloned();
    let some = |list: Option<Vec<Value>>| list.filter(|l| !l.is_empty());
    let (now, before) = (some(list(object)), old.and_then(|old| some(list(old))));
    let old_single = old.map_or("", |old| spec_text(old, "clusterIP"));
    let synced = if old.is_none() {
        match now {
            None if !single.is_empty() => Some(vec![json!(single)]),
            now => now,
        }
    } else if old.is_some_and(|old| {
        spec_text(old, "type") != "ExternalName" && spec_text(object, "type") != "ExternalName"
    }) {
        // A list that is left out is the one from before; unless the single address is another one now.
        match now.or_else(|| before.clone()) {
            list if single != old_single && list == before => Some(vec![json!(single)]),
            list => list,
        }
    } else if single == old_single {
        now.or(before)
    } else if now != before {
        now
    } else if single.is_empty() {
        None
    } else {
        Some(vec![json!(single)])
    };
    let spec = meta::child_map_mut(meta::as_map_mut(object), "spec");
    match synced {
        Some(list) => spec.insert("clusterIPs".to_owned(), Value::Array(list)),
        None => spec.remove("clusterIPs"),
    };
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
    if is(spec, "clusterIP", "")
        && let Some(ip) = old.get("clusterIP")
    {
        spec.insert("clusterIP".to_owned(), ip.clone());
    }
    let has_ports = |spec: &serde_json::Map<String, Value>| {
        is(spec, "type", "NodePort")
            || (is(spec, "type", "LoadBalancer")
                && spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)))
    };
    if !has_ports(spec) || !has_ports(old) {
        return;
    }
    fn ports(spec: &serde_json::Map<String, Value>) -> impl Iterator<Item = &Value> {
        spec.get("ports")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    }
    let number = |port: &Value| port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
    let named: Vec<i64> = ports(spec).map(number).filter(|n| *n != 0).collect();
    let name = |port: &Value| port.get("name").cloned();
    let before: Vec<(Option<Value>, i64)> = ports(old).map(|p| (name(p), number(p))).collect();
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter(|port| number(port) == 0)
    {
        let kept = before
            .iter()
            .find(|(of, number)| *of == name(port) && *number != 0 && !named.contains(number));
        if let Some((_, kept)) = kept {
            meta::as_map_mut(port).insert("nodePort".to_owned(), json!(kept));
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
    let health = spec.and_then(|s| s.get("healthCheckNodePort")?.as_i64());
    taken.extend(health.and_then(|port| {
        let at = u32::try_from(port - i64::from(FIRST_PORT)).ok()?;
        (at < PORT_COUNT).then_some(Taken::Port(at))
    }));
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

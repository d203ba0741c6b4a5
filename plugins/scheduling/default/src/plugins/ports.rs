//! NodePorts: the host ports that a pod wants must be free.

use crate::api::HostPort;
use crate::mirror::Mirror;
use crate::objects::PodSpec;

pub const REASON: &str = "node(s) didn't have free ports for the requested pod ports";
const ANY: &str = "0.0.0.0";

#[derive(Debug)]
pub struct Ports(Vec<HostPort>);

impl Ports {
    pub fn new(spec: &PodSpec) -> Self {
        let sidecars = spec
            .init_containers
            .iter()
            .filter(|c| c.restart_policy == "Always");
        let ports = spec
            .containers
            .iter()
            .chain(sidecars)
            .flat_map(|c| &c.ports);
        let wanted = ports.filter_map(|port| {
            Some(HostPort {
                port: u16::try_from(port.host_port).ok().filter(|p| *p > 0)?,
                ip: if port.host_ip.is_empty() {
                    ANY.to_owned()
                } else {
                    port.host_ip.clone()
                },
                protocol: if port.protocol.is_empty() {
                    "TCP".to_owned()
                } else {
                    port.protocol.clone()
                },
            })
        });
        Self(wanted.collect())
    }

    pub fn filters(&self) -> bool {
        !self.0.is_empty()
    }

    pub fn fits(&self, mirror: &Mirror, slot: usize) -> bool {
        let used = &mirror.ports[slot];
        !self
            .0
            .iter()
            .any(|want| used.iter().any(|u| conflict(want, u)))
    }
}

fn conflict(a: &HostPort, b: &HostPort) -> bool {
    a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || a.ip == ANY || b.ip == ANY)
}

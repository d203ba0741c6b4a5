//! Addresses and networks: `ip("10.0.0.1").family()`, `cidr("10.0.0.0/8").containsIP("10.1.2.3")`.

use std::net::{IpAddr, Ipv4Addr};

use super::{Opaque, Outcome, no_overload, opaque};
use crate::decl::Library;
use crate::value::{EvalError, Value};

pub(super) const LIBRARY: Library = &[
    ("isIP(string) -> bool", |args| match args {
        [Value::String(text)] => Ok(Value::Bool(parse_ip(text).is_ok())),
        _ => no_overload(),
    }),
    ("ip(string) -> net.IP", |args| match args {
        [Value::String(text)] => Ok(opaque(Opaque::Ip(parse_ip(text).map_err(EvalError::new)?))),
        _ => no_overload(),
    }),
    ("ip.isCanonical(string) -> bool", |args| match args {
        [Value::String(text)] => {
            let address = parse_ip(text).map_err(EvalError::new)?;
            Ok(Value::Bool(address.to_string() == **text))
        }
        _ => no_overload(),
    }),
    ("net.IP: family() -> int", |args| {
        Ok(Value::Int(if ip(args, 0)?.is_ipv4() { 4 } else { 6 }))
    }),
    ("net.IP: isUnspecified() -> bool", |args| {
        test(args, |ip| ip.is_unspecified())
    }),
    ("net.IP: isLoopback() -> bool", |args| {
        test(args, |ip| ip.is_loopback())
    }),
    ("net.IP: isLinkLocalMulticast() -> bool", |args| {
        test(args, |ip| match ip {
            IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
            IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
        })
    }),
    ("net.IP: isLinkLocalUnicast() -> bool", |args| {
        test(args, is_link_local)
    }),
    ("net.IP: isGlobalUnicast() -> bool", |args| {
        test(args, |ip| {
            let broadcast = matches!(ip, IpAddr::V4(ip) if *ip == Ipv4Addr::BROADCAST);
            !(broadcast
                || ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || is_link_local(ip))
        })
    }),
    ("isCIDR(string) -> bool", |args| match args {
        [Value::String(text)] => Ok(Value::Bool(parse_cidr(text).is_ok())),
        _ => no_overload(),
    }),
    ("cidr(string) -> net.CIDR", |args| match args {
        [Value::String(text)] => {
            let (address, bits) = parse_cidr(text).map_err(EvalError::new)?;
            Ok(opaque(Opaque::Cidr(address, bits)))
        }
        _ => no_overload(),
    }),
    (
        "net.CIDR: containsIP(string) -> bool
        net.CIDR: containsIP(net.IP) -> bool",
        |args| {
            let (network, bits) = cidr(args, 0)?;
            let address = match args.get(1) {
                Some(Value::String(text)) => parse_ip(text).map_err(EvalError::new)?,
                _ => ip(args, 1)?,
            };
            Ok(Value::Bool(contains(network, bits, address)))
        },
    ),
    (
        "net.CIDR: containsCIDR(string) -> bool
        net.CIDR: containsCIDR(net.CIDR) -> bool",
        |args| {
            let (network, bits) = cidr(args, 0)?;
            let (other, more) = match args.get(1) {
                Some(Value::String(text)) => parse_cidr(text).map_err(EvalError::new)?,
                _ => cidr(args, 1)?,
            };
            Ok(Value::Bool(bits <= more && contains(network, bits, other)))
        },
    ),
    ("net.CIDR: ip() -> net.IP", |args| {
        Ok(opaque(Opaque::Ip(cidr(args, 0)?.0)))
    }),
    ("net.CIDR: masked() -> net.CIDR", |args| {
        let (address, bits) = cidr(args, 0)?;
        Ok(opaque(Opaque::Cidr(masked(address, bits), bits)))
    }),
    ("net.CIDR: prefixLength() -> int", |args| {
        Ok(Value::Int(cidr(args, 0)?.1.into()))
    }),
];

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn ip(args: &[Value<'_>], at: usize) -> Result<IpAddr, EvalError> {
    match args.get(at) {
        Some(Value::Opaque(value)) => match &**value {
            Opaque::Ip(address) => Ok(*address),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn cidr(args: &[Value<'_>], at: usize) -> Result<(IpAddr, u8), EvalError> {
    match args.get(at) {
        Some(Value::Opaque(value)) => match &**value {
            Opaque::Cidr(address, bits) => Ok((*address, *bits)),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn test<'a>(args: &[Value<'a>], holds: fn(&IpAddr) -> bool) -> Outcome<'a> {
    Ok(Value::Bool(holds(&ip(args, 0)?)))
}

/// No zones, no IPv4 in IPv6.
fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let wrong = |why: &str| {
        format!("IP Address \"{text}\" parse error during conversion from string: {why}")
    };
    if text.contains('%') {
        return Err(format!(
            "IP address \"{text}\" with zone value is not allowed"
        ));
    }
    let address: IpAddr = text
        .parse()
        .map_err(|_| wrong(&format!("ParseAddr(\"{text}\"): unable to parse IP")))?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(format!(
            "IPv4-mapped IPv6 address \"{text}\" is not allowed"
        )),
        address => Ok(address),
    }
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || {
        format!(
            "network address parse error during conversion from string: netip.ParsePrefix(\"{text}\"): no '/'"
        )
    };
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let address = parse_ip(address)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let is_number =
        bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    match bits.parse::<u8>() {
        Ok(bits) if bits <= most && is_number => Ok((address, bits)),
        _ => Err(format!(
            "network address parse error during conversion from string: netip.ParsePrefix(\"{text}\"): prefix length out of range"
        )),
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    network.is_ipv4() == address.is_ipv4() && masked(network, bits) == masked(address, bits)
}

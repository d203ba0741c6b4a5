//! The functions, by library: CEL's own, its extensions, and those of Kubernetes.
//! Source: <https://kubernetes.io/docs/reference/using-api/cel/>

pub(crate) mod authorization;
mod convert;
mod format;
mod lists;
mod named_format;
mod net;
mod operators;
pub(crate) mod optional;
mod quantity;
mod regex;
mod semver;
mod sets;
mod strings;
pub(crate) mod time;
mod url;

use std::net::IpAddr;

use crate::decl::Library;
use crate::value::{EvalError, Value};

/// Values that only their library's functions look into.
#[derive(Clone, Debug)]
pub enum Opaque<'a> {
    Quantity(oarlock_model::Quantity),
    Ip(IpAddr),
    /// An address and the number of its bits that count.
    Cidr(IpAddr, u8),
    Url(url::Url),
    Semver(semver::Semver),
    Format(&'static str),
    Authorization(authorization::Step<'a>),
}

impl Opaque<'_> {
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorization(step) => step.type_name(),
        }
    }

    pub(crate) fn as_text(&self) -> Option<String> {
        match self {
            Self::Quantity(quantity) => Some(quantity.to_string()),
            Self::Ip(address) => Some(address.to_string()),
            Self::Cidr(address, bits) => Some(format!("{address}/{bits}")),
            Self::Url(url) => Some(url.text.clone()),
            _ => None,
        }
    }
}

impl PartialEq for Opaque<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, m), Self::Cidr(b, n)) => a == b && m == n,
            (Self::Url(a), Self::Url(b)) => a.text == b.text,
            (Self::Semver(a), Self::Semver(b)) => a.compare(b).is_eq(),
            (Self::Format(a), Self::Format(b)) => a == b,
            _ => false,
        }
    }
}

pub(crate) fn all() -> impl Iterator<Item = &'static (&'static str, crate::decl::Implementation)> {
    const ALL: &[Library] = &[
        operators::LIBRARY,
        convert::LIBRARY,
        time::LIBRARY,
        strings::LIBRARY,
        format::LIBRARY,
        lists::LIBRARY,
        regex::LIBRARY,
        sets::LIBRARY,
        optional::LIBRARY,
        url::LIBRARY,
        net::LIBRARY,
        quantity::LIBRARY,
        semver::LIBRARY,
        named_format::LIBRARY,
        authorization::LIBRARY,
    ];
    ALL.iter().flat_map(|library| library.iter())
}

type Outcome<'a> = Result<Value<'a>, EvalError>;

fn no_overload<'a>() -> Outcome<'a> {
    Err(EvalError::NoSuchOverload)
}

/// What a text may take that a call makes. No budget counts it, and a few calls in a row could make one of terabytes; no body
/// could hold it.
const MAX_TEXT_BYTES: usize = 32 << 20;

fn holds(bytes: usize) -> Result<(), EvalError> {
    if bytes > MAX_TEXT_BYTES {
        return Err(EvalError::CostExceeded);
    }
    Ok(())
}

fn opaque<'a>(value: Opaque<'a>) -> Value<'a> {
    Value::Opaque(std::rc::Rc::new(value))
}

//! What calls cost at run time, by cel-go's tracker and Kubernetes' libraries.

use crate::value::Value;

/// Steps that a character of a text costs where it is walked.
const PER_CHARACTER: f64 = 0.1;
/// Steps that a character of a pattern costs.
const PER_PATTERN_CHARACTER: f64 = 0.25;
/// What asking the authorizer costs.
const AUTHORIZATION: u64 = 350_000;

pub(crate) fn of_call(function: &str, args: &[Value<'_>]) -> u64 {
    let size = |at: usize| args.get(at).map_or(0, Value::size) as f64;
    let walked = |characters: f64| (characters * PER_CHARACTER).ceil() as u64;
    let pattern = |at: usize| (size(at) * PER_PATTERN_CHARACTER).ceil() as u64;
    match function {
        "startsWith" | "endsWith" => walked(size(1)),
        "bytes" | "string" if matches!(args.first(), Some(Value::String(_) | Value::Bytes(_))) => {
            walked(size(0))
        }
        "@in" => match args.get(1) {
            Some(Value::List(list)) => list.len() as u64,
            _ => 1,
        },
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => walked(size(0).min(size(1))),
        "_+_" if matches!(args.first(), Some(Value::String(_) | Value::Bytes(_))) => {
            walked(size(0) + size(1))
        }
        "matches" | "find" | "findAll" => walked(1.0 + size(0)).saturating_mul(pattern(1)),
        "contains" if matches!(args.first(), Some(Value::String(_))) => {
            walked(size(0)) * walked(size(1))
        }
        "check" => AUTHORIZATION,
        // Upstream takes one step, and as many lists as an expression likes.
        "lists.range" => match args.first() {
            Some(Value::Int(length)) => u64::try_from(*length).unwrap_or(1).max(1),
            _ => 1,
        },
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf"
            if matches!(args.first(), Some(Value::List(_))) =>
        {
            size(0) as u64
        }
        "url" | "isURL" | "ip" | "isIP" | "cidr" | "isCIDR" | "quantity" | "isQuantity"
        | "semver" | "isSemver" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "split"
        | "replace" | "validate" => walked(size(0).max(size(1))).max(1),
        "join" => 1 + size(0) as u64,
        "sets.contains" | "sets.intersects" => (size(0) * size(1)) as u64 + 1,
        "sets.equivalent" => 2 * (size(0) * size(1)) as u64 + 1,
        "distinct" => (size(0) * size(0)) as u64 + 1,
        "flatten" | "sort" | "reverse" | "slice" | "@sortByAssociatedKeys" => 1 + size(0) as u64,
        _ => 1,
    }
}

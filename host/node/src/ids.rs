//! Addresses and identifiers that depend on nothing but their input, so that a restarted process finds them again.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// 10.128.0.0/9, above the usual Service range.
const POD_RANGE: u32 = u32::from_be_bytes([10, 128, 0, 0]);
const POD_RANGE_SIZE: u32 = 1 << 23;
/// 172.16.0.0/12
const NODE_RANGE: u32 = u32::from_be_bytes([172, 16, 0, 0]);

/// 64 hexadecimal digits that stand for `parts`. Not cryptographic.
pub fn digest(parts: &[&str]) -> String {
    let mut out = String::with_capacity(64);
    for lane in 0u64..4 {
        let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ lane.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for part in parts {
            for byte in part.bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        // A final mix: FNV's high bits are weak on short input.
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
        hash ^= hash >> 32;
        out.push_str(&format!("{hash:016x}"));
    }
    out
}

/// A text in the form of a UUID that stands for `parts`.
pub fn uuid_like(parts: &[&str]) -> String {
    let hex = digest(parts);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..32]
    )
}

pub fn node_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(NODE_RANGE.wrapping_add(index as u32 + 1))
}

/// The addresses of one node's pods.
#[derive(Debug)]
pub struct PodRange {
    base: u32,
    size: u32,
    next: u32,
    used: BTreeSet<u32>,
}

impl PodRange {
    /// Room for `pods` pods. Ranges of different nodes do not overlap as long as all of them fit in the /9.
    pub fn new(index: usize, pods: u32) -> Self {
        let size = (pods.saturating_add(2))
            .next_power_of_two()
            .clamp(256, 1 << 16);
        let base = POD_RANGE + (index as u32).wrapping_mul(size) % POD_RANGE_SIZE;
        Self {
            base,
            size,
            next: 1,
            used: BTreeSet::new(),
        }
    }

    pub fn cidr(&self) -> String {
        format!(
            "{}/{}",
            Ipv4Addr::from(self.base),
            32 - self.size.trailing_zeros()
        )
    }

    /// A free address; reused as late as possible. When all are taken, one is shared.
    pub fn take(&mut self) -> Ipv4Addr {
        for _ in 0..self.size {
            let candidate = self.next;
            self.next = if self.next >= self.size - 2 {
                1
            } else {
                self.next + 1
            };
            if self.used.insert(candidate) {
                return Ipv4Addr::from(self.base + candidate);
            }
        }
        Ipv4Addr::from(self.base + self.next)
    }

    /// Marks an address of an adopted pod as taken.
    pub fn keep(&mut self, address: Ipv4Addr) {
        if let Some(offset) = self.offset(address) {
            self.used.insert(offset);
        }
    }

    pub fn give_back(&mut self, address: Ipv4Addr) {
        if let Some(offset) = self.offset(address) {
            self.used.remove(&offset);
        }
    }

    fn offset(&self, address: Ipv4Addr) -> Option<u32> {
        u32::from(address)
            .checked_sub(self.base)
            .filter(|offset| *offset < self.size)
    }
}

/// `500ms`, `2s`, `1m30s`, `1h`: a duration as Go writes it, in milliseconds.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit_end] {
                "ms" => 1.0,
                "s" => 1_000.0,
                "m" => 60_000.0,
                "h" => 3_600_000.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (total <= 1e15).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expect) in [
            ("2s", Some(2_000)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1_500)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5 days", None),
        ] {
            assert_eq!(parse_duration_ms(text), expect, "{text}");
        }
    }

    #[test]
    fn addresses_are_unique_and_come_back() {
        let mut range = PodRange::new(300, 110);
        assert_eq!(range.cidr(), "10.129.44.0/24");
        let first = range.take();
        assert_eq!(first, Ipv4Addr::new(10, 129, 44, 1));
        let all: BTreeSet<_> = (0..253).map(|_| range.take()).collect();
        assert_eq!(all.len(), 253);
        range.give_back(first);
        assert_eq!(range.take(), first);
        let mut adopted = PodRange::new(0, 110);
        adopted.keep(Ipv4Addr::new(10, 128, 0, 1));
        assert_eq!(adopted.take(), Ipv4Addr::new(10, 128, 0, 2));
        assert_eq!(node_address(0), Ipv4Addr::new(172, 16, 0, 1));
    }

    #[test]
    fn digests_differ() {
        assert_eq!(digest(&["a"]).len(), 64);
        assert_ne!(digest(&["a", "b"]), digest(&["ab"]));
        assert_eq!(uuid_like(&["x"]).len(), 36);
    }
}

//! From raw scores to a node's total: normalization over the feasible nodes, and weights.
//! Source: https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/#normalize-scoring

use oarlock_wasm::scheduler::Normalization;

/// The best score of a node by one plugin.
pub const MAX_NODE_SCORE: i64 = 100;

/// One normalized score, given the greatest raw one among the feasible nodes.
#[inline]
pub fn normalized(normalization: Normalization, raw: i64, greatest: i64) -> i64 {
    match normalization {
        Normalization::None => raw,
        Normalization::ByMaximum if greatest == 0 => raw,
        Normalization::ByMaximumReversed if greatest == 0 => MAX_NODE_SCORE,
        Normalization::ByMaximum => MAX_NODE_SCORE.saturating_mul(raw) / greatest,
        Normalization::ByMaximumReversed => {
            MAX_NODE_SCORE - MAX_NODE_SCORE.saturating_mul(raw) / greatest
        }
    }
}

/// Normalizes the scores of one plugin over the feasible nodes.
pub fn normalize(normalization: Normalization, scores: &mut [i64]) {
    let greatest = scores.iter().copied().max().unwrap_or(0).max(0);
    for score in scores {
        *score = normalized(normalization, *score, greatest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalizes() {
        let check = |normalization, raw: &[i64], expect: &[i64]| {
            let mut scores = raw.to_vec();
            normalize(normalization, &mut scores);
            assert_eq!(scores, expect, "{raw:?}");
        };
        check(Normalization::None, &[3, 70], &[3, 70]);
        check(Normalization::ByMaximum, &[1, 3, 0], &[33, 100, 0]);
        check(Normalization::ByMaximum, &[0, 0], &[0, 0]);
        check(Normalization::ByMaximumReversed, &[1, 3, 0], &[67, 0, 100]);
        check(Normalization::ByMaximumReversed, &[0, 0], &[100, 100]);
    }
}

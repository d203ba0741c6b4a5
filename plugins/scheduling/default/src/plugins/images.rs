//! ImageLocality: nodes that have a pod's images score more, by size, and less for images that few nodes have.

use crate::mirror::{ImageState, Mirror};
use crate::objects::PodSpec;
use crate::plugins::MAX_NODE_SCORE;

const MIB: i64 = 1024 * 1024;
const MIN_BYTES: i64 = 23 * MIB;
const MAX_BYTES_PER_CONTAINER: i64 = 1000 * MIB;

#[derive(Debug)]
pub struct Images {
    names: Vec<String>,
    containers: i64,
}

/// An image without a tag means `latest`.
fn normalized(name: &str) -> String {
    let has_tag = match (name.rfind(':'), name.rfind('/')) {
        (Some(colon), Some(slash)) => colon > slash,
        (Some(_), None) => true,
        (None, _) => false,
    };
    if has_tag {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

impl Images {
    pub fn new(spec: &PodSpec) -> Self {
        let all = spec.init_containers.iter().chain(&spec.containers);
        Self {
            names: all.map(|c| normalized(&c.image)).collect(),
            containers: (spec.init_containers.len() + spec.containers.len()) as i64,
        }
    }

    /// The images that some node has, as they are now; without any, every score is 0.
    pub fn present<'a>(&self, mirror: &'a Mirror) -> Vec<(u32, &'a ImageState)> {
        let found = self.names.iter().map(|name| mirror.image(name));
        found.flatten().collect()
    }

    pub fn score(&self, mirror: &Mirror, present: &[(u32, &ImageState)], slot: usize) -> i64 {
        let on_node = &mirror.images[slot];
        if on_node.is_empty() {
            return 0;
        }
        let nodes = mirror.node_count() as f64;
        let mut sum = 0;
        for (number, image) in present {
            if on_node.contains(number) {
                let spread = f64::from(image.nodes) / nodes;
                sum += (image.size_bytes as f64 * spread) as i64;
            }
        }
        let most = MAX_BYTES_PER_CONTAINER * self.containers;
        let sum = sum.clamp(MIN_BYTES, most.max(MIN_BYTES));
        if most <= MIN_BYTES {
            0
        } else {
            MAX_NODE_SCORE * (sum - MIN_BYTES) / (most - MIN_BYTES)
        }
    }
}

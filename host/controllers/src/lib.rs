//! Work queues, watches and the reconciler host; does not know which controllers exist.

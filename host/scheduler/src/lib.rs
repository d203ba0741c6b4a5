//! Queue, snapshot, cycle and binding; does not know where the cluster is.

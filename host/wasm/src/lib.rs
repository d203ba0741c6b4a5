//! Engine, component store, ahead-of-time cache, limits, metering, swap and the bindings; knows no Kubernetes.

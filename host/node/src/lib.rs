//! Node agent: simulated nodes that run what was bound; does not know the API server.

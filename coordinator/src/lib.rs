//! The replicated control plane. Nothing is here yet: one machine is driven by the home (`tresor-worker`).

//! Services as they are called: over TLS, by everybody who may and may not.

mod forwarding;
mod joining;
mod lifecycle;
mod table;

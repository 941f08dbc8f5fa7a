//! Who is who, who may do what, and what was done.
//!
//! - [`authority`] makes the certificates of nodes; its key lies in the log, wrapped.
//! - [`wrapping`] is the cluster key, a file on each coordinator, under which the log keeps what only coordinators may read.
//! - [`token`] is how tokens are stored: nobody who reads the log can use one.
//! - [`role`] is the table of who may do what.
//!
//! Everything here takes the time as a value (Unix seconds) and keeps no state: the log does. Drawing random numbers is for who proposes a
//! command, never for who applies one.

pub mod authority;
pub mod role;
pub mod token;
pub mod wrapping;

pub use authority::{Authority, AuthorityError, Issued};
pub use role::{Permission, Role, Standing, allows};
pub use token::TokenHash;
pub use wrapping::{ClusterKey, Purpose, WrapError, Wrapped};

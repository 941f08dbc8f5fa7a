//! What errors of the system mean.

use rustix::io::Errno;

use crate::backend::BackendError;

/// What an error of the system means for an object.
pub(super) fn map_errno(operation: &'static str, name: &str, errno: Errno) -> BackendError {
    let name = name.to_owned();
    let source = Box::new(std::io::Error::from(errno));
    match errno {
        Errno::NOENT | Errno::NOTDIR => BackendError::NotFound { name },
        Errno::EXIST => BackendError::Exists { name },
        Errno::ACCESS | Errno::PERM | Errno::ROFS => BackendError::Denied {
            operation,
            name,
            source,
        },
        Errno::NOSPC | Errno::DQUOT => BackendError::Full {
            operation,
            name,
            source,
        },
        // Network file systems that lost their server, and a machine short of something that comes back.
        Errno::TIMEDOUT
        | Errno::AGAIN
        | Errno::INTR
        | Errno::BUSY
        | Errno::NFILE
        | Errno::MFILE
        | Errno::NOMEM
        | Errno::NOBUFS
        | Errno::STALE
        | Errno::CONNREFUSED
        | Errno::CONNRESET
        | Errno::CONNABORTED
        | Errno::NOTCONN
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NETDOWN
        | Errno::NETUNREACH => BackendError::Unavailable {
            operation,
            name,
            source,
        },
        // EIO too: a disk that cannot read a sector will not learn it by being asked again.
        _ => BackendError::Refused {
            operation,
            name,
            source,
        },
    }
}

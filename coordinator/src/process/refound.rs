//! Founding a cluster again, from what is left of a lost one: see [`crate::state::Refounding`] for what is taken from it and what is not.
//!
//! The authority is new, and so is every certificate: nodes of the lost cluster join anew. The cluster key stays the same, because what it opens (the keys
//! of the vaults) stays the same too.

use jiff::Timestamp;
use tresor_proto::tls::{Fingerprint, IdentityError, PeerName, Role};
use tresor_proto::token::{ApiToken, TokenError};

use super::folder::{Folder, FolderError};
use super::found::wall;
use super::remains::Remains;
use crate::security::{Authority, AuthorityError, Purpose, TokenHash, WrapError};
use crate::state;
use crate::state::command::{ApiTokenSpec, MemberSpec};
use crate::state::reply::Refusal;
use crate::store::rocks::Rocks;
use crate::store::{Membership, Row, Stamp, Store, StoreError};
use tresor_proto::ids::MemberId;

/// What is founded.
#[derive(Debug, Clone)]
pub struct Refounding {
    /// The cluster's name, for people; none: as it was.
    pub cluster: Option<String>,
    /// The coordinator's name.
    pub name: String,
    /// `host:port` where other coordinators and workers reach it.
    pub address: String,
}

/// A cluster just founded again.
#[derive(Debug)]
pub struct Refounded {
    /// Its identity, in every certificate.
    pub cluster: [u8; 16],
    /// Its name.
    pub name: String,
    /// What people pin when they log in.
    pub fingerprint: Fingerprint,
    /// The first administrator's token: shown once.
    pub admin: ApiToken,
    /// Vaults that workers will claim.
    pub vaults: u64,
    /// Jobs of the lost cluster that waited or ran.
    pub jobs: u64,
}

/// Why a cluster was not founded again.
#[derive(Debug, thiserror::Error)]
pub enum RefoundError {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What is left makes no cluster.
    #[error("{0}")]
    Refused(Refusal),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The cluster key.
    #[error(transparent)]
    Key(#[from] WrapError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error("make the coordinator's store")]
    Store(#[from] StoreError),
    /// The system.
    #[error("the operating system gives no random numbers")]
    Random,
}

/// Founds a cluster in an empty folder, from what is left of a lost one, with this coordinator as its first and only one. The identity is written last,
/// when everything else is durable. Waits for the disk.
///
/// # Errors
/// [`RefoundError`]; after one the folder may have a part of a coordinator, and is to be emptied.
pub fn refound(folder: &Folder, remains: Remains, refounding: Refounding) -> Result<Refounded, RefoundError> {
    let Remains {
        mut state,
        applied,
        key,
        from,
        is_whole: _,
    } = remains;
    let now = Timestamp::now().as_second();
    let mut cluster = [0; 16];
    getrandom::fill(&mut cluster).map_err(|_| RefoundError::Random)?;
    let authority = Authority::create(cluster, now)?;
    let wrapped = key.wrap(Purpose::Authority, &authority.encode()?)?;
    let admin = ApiToken::random()?;
    let founding = state::Refounding {
        cluster,
        name: refounding.cluster,
        ca_certificate: authority.certificate().der().to_vec(),
        ca_key: postcard::to_stdvec(&wrapped).expect("plain data, and memory can be had"),
        member: MemberSpec {
            member: MemberId(0),
            name: refounding.name,
            address: refounding.address.clone(),
            token: None,
        },
        admin: Some(ApiTokenSpec {
            token: admin.id,
            name: String::from("first administrator"),
            role: String::from("admin"),
            hash: TokenHash::of(admin.id, &admin.secret).to_bytes(),
            expires: None,
        }),
        now: wall(),
        from,
    };
    let begun = state.refound(applied, &founding).map_err(RefoundError::Refused)?;
    let identity = authority.identity(
        PeerName {
            cluster,
            role: Role::Coordinator,
            id: begun.member.0,
        },
        now,
    )?;
    folder.prepare()?;
    key.create(&folder.key_path())?;
    let stamp = Stamp {
        node: begun.member,
        cluster,
    };
    let membership = Membership::founding([(begun.member, refounding.address.into_bytes())]);
    let rows = state.all_rows().into_iter().map(|row| Row {
        table: row.table,
        key: row.key,
        value: row.value.unwrap_or_default(),
    });
    let tables = Rocks::create(&folder.raft_path())?;
    drop(Store::create_with(tables, stamp, &membership, begun.index, rows)?);
    identity.save(&folder.identity_path())?;
    Ok(Refounded {
        cluster,
        name: state.cluster().map(|row| row.name.clone()).unwrap_or_default(),
        fingerprint: authority.fingerprint(),
        admin,
        vaults: begun.vaults,
        jobs: begun.jobs,
    })
}

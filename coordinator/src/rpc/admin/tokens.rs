//! Tokens of people and programs, and those with which nodes join.
//!
//! The secret of a token is shown once, by the answer that makes it, and only its hash is kept. So that the answer can be repeated when it was lost on the
//! way, the secret is not drawn but derived from the request's key and caller with the cluster key: whoever has neither cannot know it, and the same caller
//! with the same key gets the same token again.

use serde::{Deserialize, Serialize};
use tresor_proto::ids::TokenId;
use tresor_proto::tls::Fingerprint;
use tresor_proto::token::{ApiToken, JoinToken, Secret};
use tresor_proto::v1;

use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::kinds::Kind;
use crate::rpc::page::Page;
use crate::rpc::refused::Refused;
use crate::rpc::{convert, fields, resolve};
use crate::security::{Role, TokenHash};
use crate::state::command::{ApiTokenSpec, Command, JoinTokenSpec};
use crate::state::entry::{IdempotencyKey, Time};
use crate::state::{State, Subject};

/// How long a join token is good if the caller does not say, milliseconds: the product's five days.
const JOIN_VALID_MS: i64 = 5 * 24 * 3600 * 1000;
/// How long a join token can be good at most, milliseconds: it lets machines in, and is not a thing to keep.
const JOIN_VALID_MAX_MS: i64 = 90 * 24 * 3600 * 1000;
/// How often a join token can be used at most: a rack, and many of them.
const JOIN_USES_MAX: u32 = 10_000;
/// What nodes join as.
const NODE_ROLES: [&str; 2] = ["coordinator", "worker"];

/// What secrets of tokens are derived for.
const CONTEXT: &str = "tresor control v1 token of a request";

/// Where a page of tokens goes on: the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Newest {
    created: Time,
    token: TokenId,
}

impl Services {
    /// The id and secret that belong to a caller's key.
    fn derived(&self, caller: &Caller, key: IdempotencyKey, what: &str) -> (TokenId, Secret) {
        let input = postcard::to_stdvec(&(&caller.actor, key, what)).expect("plain data, and memory can be had");
        let id = self.keys.derive(CONTEXT, &[b"id ".as_slice(), &input].concat());
        let secret = self.keys.derive(CONTEXT, &[b"secret ".as_slice(), &input].concat());
        let id = TokenId(*id.first_chunk().expect("32 bytes were derived"));
        (id, Secret::from_bytes(&secret))
    }

    /// Makes a token of a person or a program.
    pub(crate) async fn create_api_token(
        &self,
        caller: &Caller,
        message: v1::CreateApiTokenRequest,
    ) -> Result<v1::NewToken, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let roles = Role::ALL.map(Role::as_str);
        let role = fields::one_of("role", &message.role, &roles)?;
        let valid = fields::span("valid", &message.valid)?;
        if valid == Some(0) {
            return Err(Refused::invalid("valid", "must be more than nothing"));
        }
        let (id, secret) = self.derived(caller, key, "api");
        let hash = TokenHash::of(id, &secret).to_bytes();
        let name = message.name;
        self.change(caller, Kind::CreateApiToken, key, |state| {
            Ok(Command::CreateApiToken(ApiTokenSpec {
                token: id,
                name,
                role,
                hash,
                expires: valid.map(|valid| self.now(state).plus(valid)),
            }))
        })
        .await
        .and_then(|made| self.is_token(made.about, id, hash))
        .map(|expires| v1::NewToken {
            id: id.to_string(),
            token: ApiToken { id, secret }.reveal().to_string(),
            expires: fields::time_text(expires),
        })
    }

    /// Makes a token with which nodes join.
    pub(crate) async fn create_join_token(
        &self,
        caller: &Caller,
        message: v1::CreateJoinTokenRequest,
    ) -> Result<v1::NewToken, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let role = fields::one_of("role", &message.role, &NODE_ROLES)?;
        let valid = fields::span("valid", &message.valid)?.unwrap_or(JOIN_VALID_MS);
        if !(1..=JOIN_VALID_MAX_MS).contains(&valid) {
            return Err(Refused::invalid(
                "valid",
                "must be more than nothing and 90 days at most",
            ));
        }
        let uses = message.uses.max(1);
        if uses > JOIN_USES_MAX {
            return Err(Refused::invalid("uses", format!("must be {JOIN_USES_MAX} at most")));
        }
        let (id, secret) = self.derived(caller, key, "join");
        let hash = TokenHash::of(id, &secret).to_bytes();
        let made = self
            .change(caller, Kind::CreateJoinToken, key, |state| {
                Ok(Command::CreateJoinToken(JoinTokenSpec {
                    token: id,
                    role,
                    hash,
                    expires: self.now(state).plus(valid),
                    uses,
                }))
            })
            .await?;
        let expires = self.is_token(made.about, id, hash)?;
        let ca = self.handle.read(|state| {
            let cluster = state.cluster().ok_or(Refused::Bug {
                why: "a token was made of no cluster",
            })?;
            Ok::<_, Refused>(Fingerprint::of(&cluster.ca_certificate))
        })?;
        Ok(v1::NewToken {
            id: id.to_string(),
            token: JoinToken { id, secret, ca }.reveal().to_string(),
            expires: fields::time_text(expires),
        })
    }

    /// Until when the token that was made under a key is good, if it is the one that is about to be shown. Another caller's, or one that the cluster key of
    /// another time made, is not.
    fn is_token(&self, about: Subject, id: TokenId, hash: [u8; 32]) -> Result<Option<Time>, Refused> {
        self.handle.read(|state| match state.tokens().get(&id) {
            Some(token) if about == Subject::Token(id) && token.hash == hash => Ok(token.expires),
            _ => Err(Refused::OtherChange),
        })
    }

    /// Tokens, the newest first.
    pub(crate) async fn list_tokens(
        &self,
        _: &Caller,
        message: v1::ListTokensRequest,
    ) -> Result<v1::ListTokensResponse, Refused> {
        let page = Page::<Newest>::read("tokens", &(), message.page_size, &message.page_token)?;
        self.look(|state| {
            let rows = newest_first(state, page.after);
            let (tokens, next_page_token) = page.fill(rows.into_iter().map(|key| (key, key.token)), |_, id| {
                let row = state.tokens().get(&id)?;
                Some(convert::token(id, row))
            });
            Ok(v1::ListTokensResponse {
                tokens,
                next_page_token,
            })
        })
        .await
    }

    /// Ends a token.
    pub(crate) async fn revoke_token(
        &self,
        caller: &Caller,
        message: v1::RevokeTokenRequest,
    ) -> Result<v1::Empty, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let made = self
            .change(caller, Kind::RevokeToken, key, |state| {
                let token = resolve::token(state, &message.id)?;
                Ok(Command::RevokeToken { token })
            })
            .await?;
        match made.about {
            Subject::Token(_) => Ok(v1::Empty {}),
            _ => Err(Refused::OtherChange),
        }
    }
}

/// There are ten thousand at most: sorted anew for each page.
fn newest_first(state: &State, after: Option<Newest>) -> Vec<Newest> {
    let key = |newest: &Newest| std::cmp::Reverse((newest.created, newest.token));
    let mut rows: Vec<Newest> = state
        .tokens()
        .iter()
        .map(|(id, token)| Newest {
            created: token.created,
            token: *id,
        })
        .filter(|row| after.is_none_or(|after| key(row) > key(&after)))
        .collect();
    rows.sort_unstable_by_key(key);
    rows
}

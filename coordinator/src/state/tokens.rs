//! Tokens of people, programs and nodes that join. Only hashes of their secrets are here.

use tresor_proto::ids::TokenId;

use super::command::{ApiTokenSpec, JoinTokenSpec};
use super::entry::Time;
use super::reply::{Refusal, Reply};
use super::rows::{Token, TokenUse};
use super::texts::check_label;
use super::{State, TOKENS_MAX};

impl Token {
    /// Whether it is good now: neither ended, nor past its time, nor used up.
    pub fn is_good(&self, now: Time) -> bool {
        let uses = match &self.used_for {
            TokenUse::Api { .. } => 1,
            TokenUse::Join { uses, .. } => *uses,
        };
        !self.revoked && uses > 0 && self.expires.is_none_or(|expires| now < expires)
    }
}

impl State {
    /// Makes room where there are too many: those that are good no longer go, the first first.
    fn make_room_for_token(&mut self) -> Result<(), Refusal> {
        if (self.tokens.len() as u64) < TOKENS_MAX {
            return Ok(());
        }
        let now = self.clock.now;
        let gone = self
            .tokens
            .iter()
            .find(|(_, token)| !token.is_good(now))
            .map(|(id, _)| *id);
        match gone {
            Some(id) => {
                self.tokens.remove(&id);
                Ok(())
            }
            None => Err(Refusal::Full {
                what: String::from("tokens"),
                max: TOKENS_MAX,
            }),
        }
    }

    fn add_token(&mut self, id: TokenId, token: Token) -> Result<Reply, Refusal> {
        if self.tokens.contains(&id) {
            return Err(Refusal::exists("token", id));
        }
        self.make_room_for_token()?;
        self.tokens.insert(id, token);
        Ok(Reply::Done)
    }

    pub(super) fn create_api_token(&mut self, spec: &ApiTokenSpec) -> Result<Reply, Refusal> {
        check_label("name", &spec.name)?;
        check_label("role", &spec.role)?;
        let token = Token {
            name: spec.name.clone(),
            used_for: TokenUse::Api {
                role: spec.role.clone(),
            },
            hash: spec.hash,
            created: self.clock.now,
            expires: spec.expires,
            revoked: false,
        };
        self.add_token(spec.token, token)
    }

    pub(super) fn create_join_token(&mut self, spec: &JoinTokenSpec) -> Result<Reply, Refusal> {
        check_label("role", &spec.role)?;
        let token = Token {
            name: String::new(),
            used_for: TokenUse::Join {
                role: spec.role.clone(),
                uses: spec.uses.max(1),
            },
            hash: spec.hash,
            created: self.clock.now,
            expires: Some(spec.expires),
            revoked: false,
        };
        self.add_token(spec.token, token)
    }

    pub(super) fn revoke_token(&mut self, id: TokenId) -> Result<Reply, Refusal> {
        let Some(token) = self.tokens.get_mut(&id) else {
            return Err(Refusal::missing("token", id));
        };
        token.revoked = true;
        Ok(Reply::Done)
    }

    /// Uses a join token up by one. The last check before anything is changed.
    pub(super) fn use_join_token(&mut self, id: Option<TokenId>, wanted: &str) -> Result<(), Refusal> {
        let Some(id) = id else {
            return Ok(());
        };
        let now = self.clock.now;
        let Some(token) = self.tokens.get(&id) else {
            return Err(Refusal::denied("there is no such join token"));
        };
        let TokenUse::Join { role, .. } = &token.used_for else {
            return Err(Refusal::denied(
                "this is a token of a person or a program: nodes join with a join token",
            ));
        };
        if role != wanted {
            return Err(Refusal::denied(format!(
                "this join token is for a {role}, not for a {wanted}"
            )));
        }
        if !token.is_good(now) {
            return Err(Refusal::denied(
                "this join token was used up, ended or is too old: make another one",
            ));
        }
        if let Some(Token {
            used_for: TokenUse::Join { uses, .. },
            ..
        }) = self.tokens.get_mut(&id)
        {
            *uses -= 1;
        }
        Ok(())
    }
}

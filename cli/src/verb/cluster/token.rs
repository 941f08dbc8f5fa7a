//! `tresor cluster join-token …` and `tresor cluster api-token …`.
//!
//! A token's text goes to standard output, once, and nowhere else: not to a note, not to a log.

use serde::Serialize;
use tresor_proto::v1::{
    self, CreateApiTokenRequest, CreateJoinTokenRequest, ListTokensRequest, NewToken, RevokeTokenRequest,
};

use crate::app::App;
use crate::args::{ApiTokenCreateArgs, JoinTokenCreateArgs};
use crate::error::{CliError, Doing as _};
use crate::human::{self, Table};
use crate::screen::Answer;
use crate::verb::shown::some;

/// A kind of token, and what the verbs on it are called.
pub(super) struct Kind {
    word: &'static str,
    list: &'static str,
    revoke: &'static str,
}

/// What a node shows once.
pub(super) const JOIN: Kind = Kind {
    word: "join",
    list: "cluster join-token list",
    revoke: "cluster join-token revoke",
};
/// What people and programs show with each request.
pub(super) const API: Kind = Kind {
    word: "api",
    list: "cluster api-token list",
    revoke: "cluster api-token revoke",
};

/// A token that was just made; there is no other time to see it.
#[derive(Serialize)]
struct NewTokenShown {
    id: String,
    token: String,
    expires: Option<String>,
}

#[derive(Debug, Serialize)]
struct TokenShown {
    id: String,
    name: Option<String>,
    kind: String,
    role: String,
    created: String,
    expires: Option<String>,
    /// Of a join token.
    uses_left: u32,
    revoked: bool,
}

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<TokenShown>,
}

#[derive(Serialize)]
struct Revoked {
    id: String,
    revoked: bool,
}

impl From<v1::Token> for TokenShown {
    fn from(token: v1::Token) -> Self {
        Self {
            id: token.id,
            name: some(token.name),
            kind: token.kind,
            role: token.role,
            created: token.created,
            expires: some(token.expires),
            uses_left: token.uses_left,
            revoked: token.revoked,
        }
    }
}

/// Makes a join token.
pub(super) async fn create_join(app: &App, args: JoinTokenCreateArgs) -> Result<Answer, CliError> {
    let request = CreateJoinTokenRequest {
        role: args.role,
        valid: args.valid,
        uses: args.uses,
        ..Default::default()
    };
    let made = app
        .need_cluster("cluster join-token create")?
        .create_join_token(request)
        .await;
    Ok(made_token(
        app,
        made.doing(|| String::from("could not make a join token"))?,
    ))
}

/// Makes an API token.
pub(super) async fn create_api(app: &App, args: ApiTokenCreateArgs) -> Result<Answer, CliError> {
    let name = human::plain(&args.name);
    let request = CreateApiTokenRequest {
        name: args.name,
        role: args.role.name().to_owned(),
        valid: args.valid.unwrap_or_default(),
        ..Default::default()
    };
    let made = app
        .need_cluster("cluster api-token create")?
        .create_api_token(request)
        .await;
    Ok(made_token(
        app,
        made.doing(|| format!("could not make a token for {name}"))?,
    ))
}

fn made_token(app: &App, made: NewToken) -> Answer {
    let until = if made.expires.is_empty() {
        String::from("until it is revoked")
    } else {
        format!("until {}", human::plain(&made.expires))
    };
    app.screen.note(&format!(
        "token {} is good {until}; it is shown this once",
        human::plain(&made.id)
    ));
    let shown = NewTokenShown {
        id: made.id,
        token: made.token,
        expires: some(made.expires),
    };
    app.screen.answer(&shown, || human::plain(&shown.token))
}

/// Lists tokens of a kind.
pub(super) async fn list(app: &App, kind: Kind) -> Result<Answer, CliError> {
    let listed = app
        .need_cluster(kind.list)?
        .tokens(ListTokensRequest::default(), None)
        .await
        .doing(|| String::from("could not list tokens"))?;
    let tokens = listed.rows.into_iter().filter(|token| token.kind == kind.word);
    let shown = Tokens {
        tokens: tokens.map(TokenShown::from).collect(),
    };
    Ok(app.screen.answer(&shown, || table(&shown.tokens, &kind)))
}

/// Revokes a token.
pub(super) async fn revoke(app: &App, kind: Kind, id: String) -> Result<Answer, CliError> {
    let request = RevokeTokenRequest {
        id: id.clone(),
        ..Default::default()
    };
    let revoked = app.need_cluster(kind.revoke)?.revoke_token(request).await;
    let name = human::plain(&id);
    revoked.doing(|| format!("could not revoke token {name}"))?;
    Ok(app.screen.answer(&Revoked { id, revoked: true }, || {
        format!("token {name} is worthless now")
    }))
}

fn table(tokens: &[TokenShown], kind: &Kind) -> String {
    if tokens.is_empty() {
        return format!("no {} tokens", kind.word);
    }
    let mut table = Table::new(&["token", "name", "role", "created", "expires", ""]);
    for token in tokens {
        let state = match (token.revoked, token.kind.as_str()) {
            (true, _) => String::from("revoked"),
            (false, "join") => format!("{} uses left", token.uses_left),
            (false, _) => String::new(),
        };
        table.row([
            token.id.clone(),
            token.name.clone().unwrap_or_default(),
            token.role.clone(),
            token.created.clone(),
            token.expires.clone().unwrap_or_else(|| String::from("never")),
            state,
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_join_tokens() {
        let token = v1::Token {
            id: "ab".repeat(16),
            kind: String::from("join"),
            role: String::from("worker"),
            created: String::from("2026-03-10T12:00:00Z"),
            expires: String::from("2026-03-15T12:00:00Z"),
            uses_left: 3,
            ..Default::default()
        };
        let revoked = v1::Token {
            id: "cd".repeat(16),
            revoked: true,
            ..token.clone()
        };
        let tokens = [token, revoked].map(TokenShown::from);
        insta::assert_snapshot!(table(&tokens, &JOIN), @"
        TOKEN                             NAME  ROLE    CREATED               EXPIRES
        abababababababababababababababab        worker  2026-03-10T12:00:00Z  2026-03-15T12:00:00Z  3 uses left
        cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd        worker  2026-03-10T12:00:00Z  2026-03-15T12:00:00Z  revoked
        ");
        assert_eq!(table(&[], &API), "no api tokens");
    }
}

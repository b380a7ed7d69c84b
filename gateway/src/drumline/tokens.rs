//! API tokens: made, listed, revoked. Only their hashes are kept.
//!
//! What must hold: there is always an admin's token, or nobody could make any
//! more. Who is locked out all the same restarts the server: it keeps an
//! admin's token in `client.env`, a new one where that one was revoked.

use crate::auth::{self, Caller};
use crate::gate::Gate;
use crate::{limits, rows};
use prost::Message;
use proto::ids::TenantName;
use proto::keys::{self, Parsed};
use proto::problem::{self, Problem};
use proto::v1::{
    CreateTokenReply, CreateTokenRequest, ListTokensReply, RevokeTokenReply, Role, TokenRow, TokenView,
};
use store::{Commit, Row};

pub(super) async fn create_token(
    gate: &Gate,
    request: &CreateTokenRequest,
) -> Result<CreateTokenReply, Problem> {
    let CreateTokenRequest { name, tenant, .. } = request;
    let printable = !name.is_empty() && !name.chars().any(char::is_control);
    if !printable || name.len() > limits::TOKEN_NAME_BYTES_MAX {
        return Err(Problem::new(
            "spec.token_name",
            "name",
            name,
            "is not a token's name",
            format!("say whose it is in at most {} bytes", limits::TOKEN_NAME_BYTES_MAX),
        ));
    }
    let role = request.role();
    match role {
        Role::Unspecified => {
            let remedy = "use tenant, operator, admin or agent";
            return Err(Problem::new("spec.role", "role", request.role, "is no role", remedy));
        }
        Role::Tenant if tenant.is_empty() => {
            let reason = "a token of role tenant belongs to one";
            return Err(Problem::new("spec.tenant", "tenant", "", reason, "name the tenant"));
        }
        _ => {}
    }
    if !tenant.is_empty() {
        TenantName::parse(tenant)?;
        gate.tenants.must_exist(tenant).await?;
    }
    let token = world::rand::token();
    let row = TokenRow {
        name: name.clone(),
        role: role.into(),
        tenant: tenant.clone(),
        created_ms: gate.clock.wall_ms(),
    };
    let key = keys::token(&auth::hash(&token));
    let commit = Commit::new().guard_absent(key.clone()).put(key, row.encode_to_vec());
    rows::commit(&*gate.store, commit).await?;
    Ok(CreateTokenReply { token })
}

/// A token's row as it lies in the store.
struct Kept {
    hash: String,
    row: TokenRow,
    stored: Row,
}

impl Kept {
    fn id(&self) -> &str {
        &self.hash[..limits::TOKEN_ID_DIGITS]
    }

    fn view(&self, caller: &Caller) -> TokenView {
        TokenView {
            id: self.id().to_owned(),
            name: self.row.name.clone(),
            role: self.row.role,
            tenant: self.row.tenant.clone(),
            created_ms: self.row.created_ms,
            own: *caller.token == *self.hash,
        }
    }

    fn is_named(&self, by: &str) -> bool {
        self.row.name == by || (by.len() >= limits::TOKEN_ID_DIGITS && self.hash.starts_with(by))
    }
}

async fn all(gate: &Gate) -> Result<Vec<Kept>, Problem> {
    let mut tokens = Vec::new();
    for stored in rows::all(&*gate.store, keys::TOKENS.as_bytes()).await? {
        if let Some(Parsed::Token { sha256 }) = keys::parse(&stored.key)
            && sha256.len() >= limits::TOKEN_ID_DIGITS
        {
            tokens.push(Kept { hash: sha256, row: rows::decode(&stored)?, stored });
        }
    }
    tokens.sort_by(|a, b| (a.row.created_ms, &a.hash).cmp(&(b.row.created_ms, &b.hash)));
    Ok(tokens)
}

/// All of them, oldest first.
pub(super) async fn list(gate: &Gate, caller: &Caller) -> Result<ListTokensReply, Problem> {
    let tokens = all(gate).await?;
    Ok(ListTokensReply { tokens: tokens.iter().map(|token| token.view(caller)).collect() })
}

/// Ends a token: calls with it are refused at once by this server, and streams
/// it has open end within [`limits::SEEN_MS`]. Links signed for its bearer stay
/// good for their time.
pub(super) async fn revoke(gate: &Gate, caller: &Caller, by: &str) -> Result<RevokeTokenReply, Problem> {
    let tokens = all(gate).await?;
    let named: Vec<&Kept> = tokens.iter().filter(|token| token.is_named(by)).collect();
    let token = match named.as_slice() {
        [] => return Err(problem::missing("token", by)),
        [token] => *token,
        several => {
            let ids: Vec<&str> =
                several.iter().map(|token| token.id()).take(limits::TOKENS_NAMED_MAX).collect();
            let reason = format!("names {} tokens: {}", several.len(), ids.join(", "));
            return Err(Problem::new("spec.token", "token", by, reason, "name one by its id"));
        }
    };
    let key = token.stored.key.clone();
    let mut commit = Commit::new().guard_version(key.clone(), token.stored.version).delete(key);
    if token.row.role() == Role::Admin {
        let others = |other: &&Kept| other.row.role() == Role::Admin && other.hash != token.hash;
        let Some(other) = tokens.iter().find(others) else { return Err(last_admin(by)) };
        // Two at once cannot each take the other for the one that is left.
        commit = commit.guard_version(other.stored.key.clone(), other.stored.version);
    }
    rows::commit(&*gate.store, commit).await?;
    gate.auth.forget(std::iter::once(token.hash.as_str()));
    Ok(RevokeTokenReply { token: Some(token.view(caller)) })
}

fn last_admin(by: &str) -> Problem {
    problem::conflict(
        "last_admin",
        "token",
        by,
        "is the last token of role admin, and without one nobody could make another",
        "make another first: drumline tokens create NAME --role admin",
    )
}

//! `drumline tokens`: made, listed, revoked.

use super::{Outcome, done};
use crate::{
    args::{Format, TokenAction, TokenRole, TokensArgs},
    client::Client,
    failure::Failure,
    output::{self, Table, words},
};
use proto::v1::{CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, Role, TokenView};
use serde_json::{Value, json};
use world::{NodeClock as _, real::SystemClock};

pub(super) async fn run(client: Client, args: TokensArgs) -> Outcome {
    if let Some(format) = args.listed() {
        return list(&client, format).await;
    }
    match args.action {
        Some(TokenAction::Create { name, role, for_tenant, format }) => {
            create(&client, name, role, for_tenant, format.format).await
        }
        Some(TokenAction::Revoke { tokens }) => {
            for token in tokens {
                let revoked = client.revoke_token(RevokeTokenRequest { token }).await?.token;
                let revoked = revoked.unwrap_or_default();
                output::line(&format!("{} {}", revoked.id, revoked.name))?;
            }
            done()
        }
        Some(TokenAction::Ls { .. }) | None => done(),
    }
}

async fn create(
    client: &Client,
    name: String,
    role: TokenRole,
    for_tenant: Option<String>,
    format: Format,
) -> Outcome {
    let tenant = for_tenant.unwrap_or_else(|| client.tenant.clone());
    if role == TokenRole::Tenant && tenant.is_empty() {
        return Err(Failure::wrong_use(
            "--for",
            "",
            "a tenant's token is for one tenant",
            "name it with --for TENANT",
        ));
    }
    let role = match role {
        TokenRole::Tenant => Role::Tenant,
        TokenRole::Operator => Role::Operator,
        TokenRole::Admin => Role::Admin,
        TokenRole::Agent => Role::Agent,
        TokenRole::Scheduler => Role::Scheduler,
    };
    let reply =
        client.create_token(CreateTokenRequest { name: name.clone(), role: role.into(), tenant }).await?;
    match format {
        Format::Json => output::json(&json!({ "name": name, "token": reply.token }))?,
        _ => output::line(&reply.token)?,
    }
    done()
}

async fn list(client: &Client, format: Format) -> Outcome {
    let tokens = client.list_tokens(ListTokensRequest {}).await?.tokens;
    match format {
        Format::Json => output::json(&tokens.iter().map(as_json).collect())?,
        Format::Name => {
            output::text(&tokens.iter().map(|token| format!("{}\n", token.id)).collect::<String>())?;
        }
        Format::Table | Format::Wide => {
            let now_ms = SystemClock::new().wall_ms();
            let mut table = Table::new(&["ID", "NAME", "ROLE", "TENANT", "AGE", ""]);
            for token in &tokens {
                table.row(vec![
                    token.id.clone(),
                    token.name.clone(),
                    role(token),
                    token.tenant.clone(),
                    words::age(token.created_ms, now_ms),
                    if token.own { "this one" } else { "" }.to_owned(),
                ]);
            }
            table.print("no tokens")?;
        }
    }
    done()
}

fn role(token: &TokenView) -> String {
    token.role().as_str_name().trim_start_matches("ROLE_").to_lowercase()
}

fn as_json(token: &TokenView) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "role": role(token),
        "tenant": if token.tenant.is_empty() { Value::Null } else { json!(token.tenant) },
        "created_ms": token.created_ms,
        "own": token.own,
    })
}

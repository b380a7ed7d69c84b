//! `drumline tokens create`.

use super::{Outcome, done};
use crate::{
    args::{Format, TokenAction, TokenRole, TokensArgs},
    client::Client,
    failure::Failure,
    output,
};
use proto::v1::{CreateTokenRequest, Role};
use serde_json::json;

pub(super) async fn run(client: Client, args: TokensArgs) -> Outcome {
    let TokenAction::Create { name, role, for_tenant, format } = args.action;
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
    };
    let reply =
        client.create_token(CreateTokenRequest { name: name.clone(), role: role.into(), tenant }).await?;
    match format.format {
        Format::Json => output::json(&json!({ "name": name, "token": reply.token }))?,
        _ => output::line(&reply.token)?,
    }
    done()
}

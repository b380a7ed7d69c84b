//! Tokens are listed without their secret, and revoked for good.

use crate::support::{Client, TestDir, code, job, serve, submission};
use futures_util::stream;
use proto::problem::Problem;
use proto::v1::{
    CreateTokenRequest, JobRequest, ListTokensRequest, LogsRequest, RevokeTokenReply, RevokeTokenRequest,
    Role, SubmitRequest, TokenView,
};
use world::grpc::tonic::Status;
use world::time;

async fn list(client: &Client) -> Vec<TokenView> {
    let request = client.request(ListTokensRequest {});
    client.grpc.clone().list_tokens(request).await.unwrap().into_inner().tokens
}

async fn revoke(client: &Client, token: &str) -> Result<RevokeTokenReply, Status> {
    let request = client.request(RevokeTokenRequest { token: token.into() });
    client.grpc.clone().revoke_token(request).await.map(|reply| reply.into_inner())
}

#[tokio::test]
async fn a_revoked_token_opens_nothing_and_its_streams_end() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    let make = async |name: &str| {
        let (role, tenant) = (Role::Tenant.into(), "default".to_owned());
        let request = admin.request(CreateTokenRequest { name: name.into(), role, tenant });
        admin.grpc.clone().create_token(request).await.unwrap().into_inner().token
    };
    let mut user = admin.with(&make("ci").await);
    let other = admin.with(&make("other").await);
    let listed = list(&admin).await;
    let seen: Vec<(&str, Role, bool)> =
        listed.iter().map(|token| (token.name.as_str(), token.role(), token.own)).collect();
    assert_eq!(
        seen,
        [("admin", Role::Admin, true), ("ci", Role::Tenant, false), ("other", Role::Tenant, false)]
    );
    assert_eq!(code(user.grpc.list_tokens(user.request(ListTokensRequest {})).await), "denied.role");
    assert_eq!(code(revoke(&user, "other").await), "denied.role");

    let request = user.request(submission("x", ""));
    user.grpc.submit(request).await.unwrap();
    let job_one = || Some(JobRequest { tenant: String::new(), number: 1 });
    let logs = LogsRequest { job: job_one(), follow: true, ..LogsRequest::default() };
    let request = user.request(logs.clone());
    let mut followed = user.grpc.logs(request).await.unwrap().into_inner();
    let mut kept = other.grpc.clone().logs(other.request(logs)).await.unwrap().into_inner();

    let request = user.request(stream::pending());
    let mut outcomes = user.grpc.submit_many(request).await.unwrap().into_inner();

    let gone = revoke(&admin, "ci").await.unwrap().token.unwrap();
    assert_eq!((gone.name.as_str(), &gone.id), ("ci", &listed[1].id));
    let request = user.request(submission("y", ""));
    assert_eq!(code(user.grpc.submit(request).await), "auth.token");
    // The stream fails, and so does not look finished; another goes on.
    let ended = time::timeout(time::ms(20_000), followed.message()).await.expect("it ends in time");
    assert_eq!(code(ended), "auth.token");
    let ended = time::timeout(time::ms(20_000), outcomes.message()).await.expect("it ends in time");
    assert_eq!(code(ended), "auth.token");
    assert!(time::timeout(time::ms(50), kept.message()).await.is_err(), "nothing is to be said yet");
    assert_eq!(code(revoke(&admin, "ci").await), "missing.token");
    let request = other.request(SubmitRequest { spec: Some(job("z")), ..SubmitRequest::default() });
    other.grpc.clone().submit(request).await.unwrap();
    drop((kept, followed));
    server.stop().await;
}

#[tokio::test]
async fn the_last_admin_stays_and_a_restart_lets_in_whoever_is_locked_out() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    let problem = Problem::from(revoke(&admin, "admin").await.unwrap_err());
    assert_eq!(problem.code, "conflict.last_admin");
    assert!(problem.remedy.contains("drumline tokens create"), "{problem}");
    // Two of one name are told apart by their ids.
    let first = list(&admin).await[0].id.clone();
    let request =
        CreateTokenRequest { name: "admin".into(), role: Role::Admin.into(), tenant: String::new() };
    let request = admin.request(request);
    let second = admin.with(&admin.grpc.clone().create_token(request).await.unwrap().into_inner().token);
    let problem = Problem::from(revoke(&admin, "admin").await.unwrap_err());
    assert_eq!(problem.code, "spec.token");
    assert!(problem.reason.contains(&first), "{problem}");
    for wrong in ["", "nobody", &first[..6]] {
        assert_eq!(code(revoke(&admin, wrong).await), "missing.token", "{wrong:?}");
    }
    // Both at once: one of them stays.
    let ids: Vec<String> = list(&admin).await.into_iter().map(|token| token.id).collect();
    let both = tokio::join!(revoke(&admin, &ids[1]), revoke(&second, &ids[0]));
    assert!(both.0.is_ok() != both.1.is_ok(), "{both:?}");
    // Whoever keeps the other now: a start makes an admin's token for client.env.
    let lost = server.token.clone();
    server.stop().await;
    let server = serve(&dir).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    assert!(list(&admin).await.iter().any(|token| token.own && token.role() == Role::Admin));
    assert_eq!(server.token == lost, both.1.is_err(), "a new one only where that one was revoked");
    server.stop().await;
}

//! A real server in a directory of its own, and clients of it.

use gateway::server::{RunningServer, ServerConfig, ServerParts, StartError, start};
use proto::problem::Problem;
use proto::v1::drumline_client::DrumlineClient;
use proto::v1::{CreateTokenRequest, JobSpec, PutTenantRequest, Role, Step, SubmitRequest, TenantRow};
use std::path::PathBuf;
use std::sync::Arc;
use world::grpc::Channel;
use world::grpc::tonic::{Request, Status};
use world::real::{FsDisk, SystemClock};
use world::{Disk, time};

/// Gone with this value.
#[derive(Debug)]
pub struct TestDir(PathBuf);

impl TestDir {
    pub fn new() -> Self {
        let name = format!("drumline-gateway-{:016x}", world::rand::u64());
        Self(std::env::temp_dir().join(name))
    }

    pub fn disk(&self) -> Arc<dyn Disk> {
        FsDisk::open(self.0.clone()).unwrap()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        #[allow(clippy::disallowed_methods, reason = "a test tidies up behind the world")]
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server on a free port.
pub async fn serve(dir: &TestDir) -> Result<RunningServer, StartError> {
    serve_at(dir, "127.0.0.1:0").await
}

pub async fn serve_at(dir: &TestDir, listen: &str) -> Result<RunningServer, StartError> {
    serve_with(dir, listen, ServerConfig::default()).await
}

pub async fn serve_with(
    dir: &TestDir,
    listen: &str,
    config: ServerConfig,
) -> Result<RunningServer, StartError> {
    let config = ServerConfig { stop_grace_ms: 100, ..config };
    start(ServerParts {
        disk: dir.disk(),
        clock: Arc::new(SystemClock::new()),
        listen: listen.parse().unwrap(),
        config,
        shared: None,
    })
    .await
}

/// Calls with a token.
#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
    pub grpc: DrumlineClient<Channel>,
    token: String,
}

impl Client {
    pub async fn new(server: &RunningServer, token: &str) -> Self {
        let channel = world::grpc::connect(&server.address, time::ms(5_000)).await.unwrap();
        Self { grpc: DrumlineClient::new(channel.clone()), channel, token: token.to_owned() }
    }

    pub fn with(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if !self.token.is_empty() {
            let bearer = format!("Bearer {}", self.token).parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        request
    }

    /// A token of this role.
    pub async fn token(&self, role: Role, tenant: &str) -> String {
        let request = CreateTokenRequest { name: "test".into(), role: role.into(), tenant: tenant.into() };
        self.grpc.clone().create_token(self.request(request)).await.unwrap().into_inner().token
    }

    pub async fn tenant(&self, name: &str) {
        let tenant = Some(TenantRow { name: name.into(), ..TenantRow::default() });
        self.grpc.clone().put_tenant(self.request(PutTenantRequest { tenant, was: None })).await.unwrap();
    }
}

/// A problem's code.
pub fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    Problem::from(result.unwrap_err()).code
}

/// A job of one step that nobody will run here.
pub fn job(name: &str) -> JobSpec {
    let step = Step { name: "main".into(), argv: vec!["true".into()], ..Step::default() };
    JobSpec { name: name.into(), steps: vec![step], ..JobSpec::default() }
}

pub fn submission(name: &str, key: &str) -> SubmitRequest {
    SubmitRequest { spec: Some(job(name)), idempotency_key: key.into(), ..SubmitRequest::default() }
}

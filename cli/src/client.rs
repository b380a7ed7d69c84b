//! The connection to a server: address, token, deadlines, and errors turned
//! into failures with an exit code.

use crate::{args::Connection, failure::Failure, limits};
use proto::{
    ids::JobId,
    problem::Problem,
    v1::{drumline_client::DrumlineClient, *},
};
use world::{
    grpc::{
        Channel, ConnectError, connect,
        tonic::{Request, Status, Streaming, metadata::AsciiMetadataValue},
    },
    time,
};

/// Why there is no connection, and what to do.
pub fn unconnected(server: &str, error: &ConnectError) -> Failure {
    match error {
        ConnectError::Address { reason, .. } => {
            Failure::wrong_use("server", server, reason, "write it like 127.0.0.1:7420")
        }
        ConnectError::Unreachable { .. } | ConnectError::Deadline { .. } => {
            Failure::Unreachable(Problem::new(
                "unavailable.server",
                "server",
                server,
                error.to_string(),
                "start it with `drumline up`, or correct the address",
            ))
        }
    }
}

/// One server, as one bearer of a token.
#[derive(Clone)]
pub struct Client {
    stub: DrumlineClient<Channel>,
    authorization: AsciiMetadataValue,
    server: String,
    /// What `--tenant` told; empty: the token tells it.
    pub tenant: String,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $reply:ty;)*) => {$(
        $(#[$doc])*
        pub async fn $name(&self, message: $request) -> Result<$reply, Failure> {
            let mut stub = self.stub.clone();
            let request = self.request(message);
            match time::timeout(limits::CALL_DEADLINE, stub.$name(request)).await {
                Ok(Ok(reply)) => Ok(reply.into_inner()),
                Ok(Err(status)) => Err(self.failure(&status)),
                Err(_) => Err(self.silent()),
            }
        }
    )*};
}

impl Client {
    /// Connects to the server that flags or environment name.
    pub async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let Some(server) = connection.server.as_deref().filter(|server| !server.is_empty()) else {
            return Err(Failure::wrong_use(
                "server",
                "",
                "no server is named",
                "give --server HOST:PORT, or read the client.env of `drumline up` into the shell",
            ));
        };
        let Some(token) = connection.token.as_deref().filter(|token| !token.is_empty()) else {
            return Err(Failure::wrong_use(
                "token",
                "",
                "no token is given",
                "give --token dl_…, or read the client.env of `drumline up` into the shell",
            ));
        };
        Self::open(server, token, connection.tenant.as_deref().unwrap_or_default()).await
    }

    /// Connects to a server that is known.
    pub async fn open(server: &str, token: &str, tenant: &str) -> Result<Self, Failure> {
        let authorization = format!("Bearer {token}").parse::<AsciiMetadataValue>().map_err(|_| {
            Failure::wrong_use("token", "", "holds characters that no token has", "copy it again, as dl_…")
        })?;
        let channel = connect(server, limits::CONNECT_DEADLINE).await;
        let channel = channel.map_err(|error| unconnected(server, &error))?;
        let stub = DrumlineClient::new(channel)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
        Ok(Self { stub, authorization, server: server.to_owned(), tenant: tenant.to_owned() })
    }

    calls! {
        /// Submits one job.
        submit(SubmitRequest) -> SubmitReply;
        /// One job with its state.
        get_job(JobRequest) -> JobView;
        /// Jobs, newest first.
        list_jobs(ListJobsRequest) -> ListJobsReply;
        /// Tasks of one step.
        list_tasks(ListTasksRequest) -> ListTasksReply;
        /// Asks for a job's end.
        cancel(CancelRequest) -> CancelReply;
        /// Tries again what failed.
        retry(RetryRequest) -> RetryReply;
        /// What a job waits for.
        why(JobRequest) -> WhyReply;
        /// Links to a job's output files.
        outputs(JobRequest) -> OutputsReply;
        /// Where to send an input.
        create_upload(CreateUploadRequest) -> CreateUploadReply;
        /// All nodes.
        nodes(NodesRequest) -> NodesReply;
        /// All pools.
        pools(PoolsRequest) -> PoolsReply;
        /// Drains or resumes.
        drain_node(DrainNodeRequest) -> DrainNodeReply;
        /// Makes or changes a tenant.
        put_tenant(PutTenantRequest) -> PutTenantReply;
        /// All tenants.
        list_tenants(ListTenantsRequest) -> ListTenantsReply;
        /// Makes a token.
        create_token(CreateTokenRequest) -> CreateTokenReply;
        /// All tokens.
        list_tokens(ListTokensRequest) -> ListTokensReply;
        /// Ends a token.
        revoke_token(RevokeTokenRequest) -> RevokeTokenReply;
    }

    /// Opens a log.
    pub async fn logs(&self, message: LogsRequest) -> Result<Streaming<LogsReply>, Failure> {
        let mut stub = self.stub.clone();
        match time::timeout(limits::CALL_DEADLINE, stub.logs(self.request(message))).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(self.silent()),
        }
    }

    /// Opens the history.
    pub async fn events(&self, message: EventsRequest) -> Result<Streaming<EventsReply>, Failure> {
        let mut stub = self.stub.clone();
        match time::timeout(limits::CALL_DEADLINE, stub.events(self.request(message))).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(self.silent()),
        }
    }

    /// The job that a person wrote.
    pub fn job(&self, text: &str) -> Result<JobRequest, Failure> {
        let id = JobId::parse(text, &self.tenant).map_err(Failure::WrongUse)?;
        Ok(JobRequest { tenant: id.tenant, number: id.number })
    }

    /// The job that a person wrote, with its tenant: asked for where only the
    /// token tells it.
    pub async fn named_job(&self, text: &str) -> Result<JobRequest, Failure> {
        let job = self.job(text)?;
        if !job.tenant.is_empty() {
            return Ok(job);
        }
        let row = self.get_job(job.clone()).await?.job.unwrap_or_default();
        Ok(JobRequest { tenant: row.tenant, number: job.number })
    }

    /// What a status means to the shell. A server that cannot be reached is
    /// named.
    pub fn failure(&self, status: &Status) -> Failure {
        let mut problem = Problem::from(status);
        if problem.code == "unavailable.server" && problem.field.is_empty() {
            problem.field = "server".to_owned();
            problem.value.clone_from(&self.server);
        }
        problem.into()
    }

    fn silent(&self) -> Failure {
        Failure::Unreachable(Problem::new(
            "unavailable.deadline",
            "server",
            &self.server,
            format!("did not answer within {} s", limits::CALL_DEADLINE.as_secs()),
            "look whether it is alive, then try again",
        ))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }
}

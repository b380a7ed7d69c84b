//! The connection to a server: address, token, deadlines, and errors turned
//! into failures with an exit code.
//!
//! Of several servers that stand in for one another the one that serves is asked. Only
//! what surely did not happen is said again to the next: a server that stands by says
//! so, and one that is gone takes no connection.

use crate::{args::Connection, failure::Failure, limits};
use proto::{
    ids::JobId,
    problem::{Problem, STANDBY},
    v1::{drumline_client::DrumlineClient, *},
};
use std::sync::{Arc, Mutex, MutexGuard};
use world::{
    grpc::{
        Channel, ConnectError, Servers, connect,
        tonic::{Request, Status, Streaming, metadata::AsciiMetadataValue},
    },
    time::{self, Instant},
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

/// One server, or the one that serves of several, as one bearer of a token.
#[derive(Clone)]
pub struct Client {
    asked: Arc<Mutex<Asked>>,
    authorization: AsciiMetadataValue,
    server: String,
    /// What `--tenant` told; empty: the token tells it.
    pub tenant: String,
}

/// Who is asked, of those that there are.
struct Asked {
    servers: Servers,
    stub: DrumlineClient<Channel>,
}

fn stub(channel: Channel) -> DrumlineClient<Channel> {
    DrumlineClient::new(channel)
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
}

/// How long one call has been looking for the server that serves.
struct Patience<'a> {
    client: &'a Client,
    since: Instant,
}

impl<'a> Patience<'a> {
    fn new(client: &'a Client) -> Self {
        Self { client, since: Instant::now() }
    }

    /// True where the call surely did not happen and another server is to be asked: at
    /// once, or after a pause where none served just now.
    async fn bear(&self, status: &Status, server: &str) -> bool {
        let several = self.client.asked().servers.len() > 1;
        let elsewhere = Problem::from(status).code == STANDBY || was_never_sent(status);
        if !several || !elsewhere || self.since.elapsed() >= limits::TAKE_OVER_DEADLINE {
            return false;
        }
        if self.client.turn(server).await {
            time::sleep(limits::RECONNECT_PAUSE).await;
        }
        true
    }
}

/// Nobody listened.
fn was_never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        source = error.source();
    }
    false
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $reply:ty;)*) => {$(
        $(#[$doc])*
        pub async fn $name(&self, message: $request) -> Result<$reply, Failure> {
            let patience = Patience::new(self);
            loop {
                let (mut stub, server) = self.stub();
                let request = self.request(message.clone());
                match time::timeout(limits::CALL_DEADLINE, stub.$name(request)).await {
                    Ok(Ok(reply)) => return Ok(reply.into_inner()),
                    Ok(Err(status)) if patience.bear(&status, &server).await => {}
                    Ok(Err(status)) => return Err(self.failure(&status)),
                    Err(_) => return Err(self.silent()),
                }
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
        let mut servers = Servers::parse(server);
        let several = servers.len() > 1;
        let deadline = if several { limits::CONNECT_DEADLINE_OF_SEVERAL } else { limits::CONNECT_DEADLINE };
        let channel = loop {
            match connect(servers.current(), deadline).await {
                Ok(channel) => break channel,
                // The word of the last one is told.
                Err(error) if servers.turn() => return Err(unconnected(server, &error)),
                Err(_) => {}
            }
        };
        let asked = Arc::new(Mutex::new(Asked { servers, stub: stub(channel) }));
        Ok(Self { asked, authorization, server: server.to_owned(), tenant: tenant.to_owned() })
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().expect("no holder of this lock panics")
    }

    /// Whom to ask now, and its address.
    fn stub(&self) -> (DrumlineClient<Channel>, String) {
        let asked = self.asked();
        (asked.stub.clone(), asked.servers.current().to_owned())
    }

    /// Whoever is there does not serve: the next that takes a connection is asked from
    /// now on. True where all have been asked since the first.
    async fn turn(&self, from: &str) -> bool {
        let mut servers = self.asked().servers.clone();
        if servers.current() != from {
            // Another call has turned already.
            return false;
        }
        for _ in 0..servers.len() {
            let round = servers.turn();
            if let Ok(channel) = connect(servers.current(), limits::CONNECT_DEADLINE_OF_SEVERAL).await {
                *self.asked() = Asked { servers, stub: stub(channel) };
                return round;
            }
        }
        true
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
        why(WhyRequest) -> WhyReply;
        /// Links to a job's output files.
        outputs(JobRequest) -> OutputsReply;
        /// Where to send an input.
        create_upload(CreateUploadRequest) -> CreateUploadReply;
        /// All nodes.
        nodes(NodesRequest) -> NodesReply;
        /// All pools.
        pools(PoolsRequest) -> PoolsReply;
        /// How many there are of each license.
        licenses(LicensesRequest) -> LicensesReply;
        /// Drains or resumes.
        drain_node(DrainNodeRequest) -> DrainNodeReply;
        /// Keeps nodes free for a while.
        reserve(ReserveRequest) -> ReserveReply;
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
        /// What somebody should look at.
        alerts(AlertsRequest) -> AlertsReply;
    }

    /// Opens a log.
    pub async fn logs(&self, message: LogsRequest) -> Result<Streaming<LogsReply>, Failure> {
        let patience = Patience::new(self);
        loop {
            let (mut stub, server) = self.stub();
            let request = self.request(message.clone());
            match time::timeout(limits::CALL_DEADLINE, stub.logs(request)).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) if patience.bear(&status, &server).await => {}
                Ok(Err(status)) => return Err(self.failure(&status)),
                Err(_) => return Err(self.silent()),
            }
        }
    }

    /// Opens the history.
    pub async fn events(&self, message: EventsRequest) -> Result<Streaming<EventsReply>, Failure> {
        let patience = Patience::new(self);
        loop {
            let (mut stub, server) = self.stub();
            let request = self.request(message.clone());
            match time::timeout(limits::CALL_DEADLINE, stub.events(request)).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) if patience.bear(&status, &server).await => {}
                Ok(Err(status)) => return Err(self.failure(&status)),
                Err(_) => return Err(self.silent()),
            }
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

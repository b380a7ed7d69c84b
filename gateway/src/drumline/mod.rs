//! The service of tenants and operators: each rpc checked, given its deadline,
//! and handed to the file of its topic.

mod events;
mod follows;
mod groups;
mod inputs;
mod jobs;
mod listing;
mod logs;
mod nodes;
mod outputs;
mod pools;
mod progress;
mod reservations;
mod submit;
mod tenants;
mod tokens;
mod why;

pub(crate) use why::why;

use crate::auth::Right;
use crate::gate::{Gate, Replies, answer};
use crate::urls::Mover;
use proto::v1::drumline_server::Drumline;
use proto::v1::{
    AlertsReply, AlertsRequest, CancelReply, CancelRequest, CreateTokenReply, CreateTokenRequest,
    CreateUploadReply, CreateUploadRequest, DrainNodeReply, DrainNodeRequest, EventsReply, EventsRequest,
    JobRequest, JobView, LicensesReply, LicensesRequest, ListJobsReply, ListJobsRequest, ListTasksReply,
    ListTasksRequest, ListTenantsReply, ListTenantsRequest, ListTokensReply, ListTokensRequest, LogsReply,
    LogsRequest, NodesReply, NodesRequest, OutputsReply, PoolsReply, PoolsRequest, PutTenantReply,
    PutTenantRequest, ReadJobFileReply, ReadJobFileRequest, ReserveReply, ReserveRequest, RetryReply,
    RetryRequest, RevokeTokenReply, RevokeTokenRequest, SubmitOutcome, SubmitReply, SubmitRequest, WhyReply,
    WhyRequest,
};
use std::sync::Arc;
use world::grpc::tonic::{self, Request, Response, Status, Streaming};

/// See the module.
pub(crate) struct Front(pub Arc<Gate>);

impl Front {
    /// The link to one output file, named by its path below what `outputs` lays. REST
    /// alone asks so.
    pub async fn output_link(&self, request: Request<JobRequest>, path: &str) -> Result<String, Status> {
        let link = answer(async {
            let caller = self.0.caller(request.metadata(), Right::ReadJobs).await?;
            let links = self.0.links(&request, Mover::Client);
            outputs::link(&self.0, &links, &caller.job(Some(request.get_ref()))?, path).await
        });
        Ok(link.await?.into_inner())
    }
}

#[tonic::async_trait]
impl Drumline for Front {
    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::Submit).await?;
            submit::one(&self.0, &caller, request.into_inner()).await
        })
        .await
    }

    type SubmitManyStream = Replies<SubmitOutcome>;

    async fn submit_many(
        &self,
        request: Request<Streaming<SubmitRequest>>,
    ) -> Result<Response<Self::SubmitManyStream>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::Submit).await?;
            submit::many(&self.0, caller, request.into_inner())
        })
        .await
    }

    async fn read_job_file(
        &self,
        request: Request<ReadJobFileRequest>,
    ) -> Result<Response<ReadJobFileReply>, Status> {
        answer(async {
            self.0.caller(request.metadata(), Right::Submit).await?;
            submit::read(request.into_inner())
        })
        .await
    }

    async fn get_job(&self, request: Request<JobRequest>) -> Result<Response<JobView>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::ReadJobs).await?;
            jobs::get(&self.0, &caller.job(Some(request.get_ref()))?).await
        })
        .await
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Result<Response<ListJobsReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::ReadJobs).await?;
            listing::jobs(&self.0, &caller, request.into_inner()).await
        })
        .await
    }

    async fn list_tasks(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::ReadJobs).await?;
            let request = request.into_inner();
            listing::tasks(&self.0, &caller.job(request.job.as_ref())?, &request).await
        })
        .await
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::ChangeJobs).await?;
            let request = request.into_inner();
            let job = caller.job(request.job.as_ref())?;
            jobs::cancel(&self.0, &caller, &job, &request.reason).await
        })
        .await
    }

    async fn retry(&self, request: Request<RetryRequest>) -> Result<Response<RetryReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::ChangeJobs).await?;
            let request = request.into_inner();
            jobs::retry(&self.0, &caller.job(request.job.as_ref())?, &request.from_step).await
        })
        .await
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::ReadJobs).await?;
            let WhyRequest { tenant, number, at_ms, ago_ms } = request.into_inner();
            let job = caller.job(Some(&JobRequest { tenant, number }))?;
            match why::instant(&self.0, at_ms, ago_ms)? {
                Some(at_ms) => why::at(&self.0, &job, at_ms).await,
                None => why::why(&self.0, &job).await,
            }
        })
        .await
    }

    type LogsStream = Replies<LogsReply>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::ReadJobs).await?;
            let request = request.into_inner();
            let replies =
                logs::follow(&self.0, &caller, &caller.job(request.job.as_ref())?, &request).await?;
            Ok(self.0.while_known(&caller, replies))
        })
        .await
    }

    type EventsStream = Replies<EventsReply>;

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::ReadJobs).await?;
            let replies = events::follow(&self.0, &caller, &request.into_inner()).await?;
            Ok(self.0.while_known(&caller, replies))
        })
        .await
    }

    async fn outputs(&self, request: Request<JobRequest>) -> Result<Response<OutputsReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::ReadJobs).await?;
            let links = self.0.links(&request, Mover::Client);
            outputs::outputs(&self.0, &links, &caller.job(Some(request.get_ref()))?).await
        })
        .await
    }

    async fn create_upload(
        &self,
        request: Request<CreateUploadRequest>,
    ) -> Result<Response<CreateUploadReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::Submit).await?;
            let links = self.0.links(&request, Mover::Client);
            outputs::create_upload(&self.0, &links, &caller, &request.into_inner()).await
        })
        .await
    }

    async fn nodes(&self, request: Request<NodesRequest>) -> Result<Response<NodesReply>, Status> {
        answer(async {
            self.0.caller(request.metadata(), Right::ReadCluster).await?;
            nodes::nodes(&self.0).await
        })
        .await
    }

    async fn pools(&self, request: Request<PoolsRequest>) -> Result<Response<PoolsReply>, Status> {
        answer(async {
            self.0.caller(request.metadata(), Right::ReadCluster).await?;
            pools::pools(&self.0, request.get_ref()).await
        })
        .await
    }

    async fn licenses(&self, request: Request<LicensesRequest>) -> Result<Response<LicensesReply>, Status> {
        answer(async {
            self.0.caller(request.metadata(), Right::ReadCluster).await?;
            Ok(LicensesReply { licenses: self.0.planner.licenses() })
        })
        .await
    }

    async fn drain_node(
        &self,
        request: Request<DrainNodeRequest>,
    ) -> Result<Response<DrainNodeReply>, Status> {
        answer(async {
            self.0.caller(request.metadata(), Right::DrainNodes).await?;
            nodes::drain(&self.0, &request.into_inner()).await
        })
        .await
    }

    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<ReserveReply>, Status> {
        answer(async {
            self.0.caller(request.metadata(), Right::DrainNodes).await?;
            reservations::reserve(&self.0, request.into_inner()).await
        })
        .await
    }

    async fn put_tenant(
        &self,
        request: Request<PutTenantRequest>,
    ) -> Result<Response<PutTenantReply>, Status> {
        answer(async {
            self.0.caller(request.metadata(), Right::ChangeTenants).await?;
            tenants::put(&self.0, request.into_inner()).await
        })
        .await
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::ReadTenants).await?;
            tenants::list(&self.0, &caller).await
        })
        .await
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenReply>, Status> {
        answer(async {
            self.0.caller(request.metadata(), Right::MakeTokens).await?;
            tokens::create_token(&self.0, &request.into_inner()).await
        })
        .await
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::MakeTokens).await?;
            tokens::list(&self.0, &caller).await
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::MakeTokens).await?;
            tokens::revoke(&self.0, &caller, &request.into_inner().token).await
        })
        .await
    }

    async fn alerts(&self, request: Request<AlertsRequest>) -> Result<Response<AlertsReply>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::ReadTenants).await?;
            Ok(self.0.alerts.list(&caller, request.get_ref().cleared))
        })
        .await
    }
}

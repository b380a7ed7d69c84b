//! What is asked of the controller about jobs that have ended and expire. It holds none of
//! them: so their rows are read here, and brought.

use super::calls::{Handle, Input, unexpected, unreadable};
use super::{limits, load};
use crate::core::{DueJobs, EndedJob, Event, Expiring, Reply};
use proto::keys;
use proto::problem::Problem;
use std::future::Future;
use store::RangeRequest;

impl Handle {
    /// What is due of ended jobs; nothing where the controller is too busy to say.
    pub async fn due(&self) -> DueJobs {
        self.news(Input::Due).await
    }

    /// Has the controller know which jobs of a tenant have ended, and when.
    pub async fn survey(&self, tenant: &str) -> Result<(), Problem> {
        let prefix = keys::states_of(tenant);
        let (mut from, to) = (prefix.clone(), keys::prefix_end(&prefix));
        loop {
            let limit = limits::LOAD_PAGE;
            let range = RangeRequest { from, to: to.clone(), limit, backwards: false };
            let page = self.store.range(range).await.map_err(unreadable)?;
            let jobs = page.rows.iter().map(load::ended_job).collect::<Result<Vec<_>, _>>();
            let jobs: Vec<EndedJob> = jobs.map_err(unreadable)?.into_iter().flatten().collect();
            let next = page.rows.last().filter(|_| page.more).map(|row| keys::after(&row.key));
            let (tenant, last) = (tenant.to_owned(), next.is_none());
            self.ask(Box::new(move |ticket| Event::Ended { ticket, tenant, jobs, last })).await?;
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Goes on with a job that is due: a part of what it gave goes. Returns whether there is
    /// more. Once its rows are gone its log is to go, by `clear`.
    pub async fn expire(
        &self,
        tenant: &str,
        number: u64,
        clear: impl Future<Output = Result<(), Problem>>,
    ) -> Result<bool, Problem> {
        let Some(state) = self.job_state(tenant, number).await? else { return Ok(false) };
        // One that ends just now is not durable yet, or was tried again.
        if !load::ended(state.state()) {
            return Ok(false);
        }
        let rows = load::given(&*self.store, tenant, number).await.map_err(unreadable)?;
        let log_gone = state.expired_ms > 0 && rows.is_empty();
        if log_gone {
            clear.await?;
        }
        let (tenant, found) = (tenant.to_owned(), Box::new(Expiring { state, rows, log_gone }));
        match self.ask(Box::new(move |ticket| Event::Expire { ticket, tenant, number, found })).await? {
            Reply::Expired(more) => Ok(more),
            other => Err(unexpected(&other)),
        }
    }
}

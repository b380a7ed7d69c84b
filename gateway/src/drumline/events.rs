//! A tenant's history as a stream: first from rows, then as commits make it.
//!
//! What must hold: events come in the order of their numbers, none twice, none
//! left out. The watch begins before the rows are read, so that nothing falls
//! between; what comes both ways is known by its number.

use crate::auth::Caller;
use crate::gate::{Gate, Replies, Source, StreamPlace, ended, replies};
use crate::{limits, rows};
use prost::Message;
use proto::ids::JobId;
use proto::keys;
use proto::problem::{self, Problem};
use proto::v1::{Event, EventBatchRow, EventsReply, EventsRequest};
use std::collections::VecDeque;
use std::sync::Arc;
use store::{Key, Notice, RangeRequest, Row, Watch};
use world::time;

struct History {
    gate: Arc<Gate>,
    tenant: String,
    /// 0: of all jobs.
    job_number: u64,
    follow: bool,
    /// The first number not yet sent.
    next_seq: u64,
    /// Where to read on; `None`: the batch that holds `next_seq` must be found.
    from: Option<Key>,
    /// Rows that were read and are not yet told: one reply has only so many bytes.
    read: VecDeque<Row>,
    /// There were more rows behind them.
    more: bool,
    watch: Option<Watch>,
    /// All rows are read; what is new comes from the watch.
    caught_up: bool,
    /// The job had ended before the rows were read for the last time.
    ending: bool,
    over: bool,
    _place: StreamPlace,
}

pub(super) async fn follow(
    gate: &Arc<Gate>,
    caller: &Caller,
    request: &EventsRequest,
) -> Result<Replies<EventsReply>, Problem> {
    let tenant = caller.tenant(&request.tenant)?;
    gate.tenants.must_exist(&tenant).await?;
    if request.job_number != 0 {
        gate.state(&JobId::new(tenant.as_str(), request.job_number)).await?;
    }
    Ok(replies(History {
        gate: Arc::clone(gate),
        tenant,
        job_number: request.job_number,
        follow: request.follow,
        next_seq: request.from_seq,
        from: None,
        read: VecDeque::new(),
        more: false,
        watch: None,
        caught_up: false,
        ending: false,
        over: false,
        _place: gate.streams.open(caller)?,
    }))
}

impl Source for History {
    type Reply = EventsReply;

    async fn next(&mut self) -> Result<Option<EventsReply>, Problem> {
        while !self.over {
            if !self.caught_up {
                if self.read.is_empty() {
                    self.prepare().await?;
                    self.read_on().await?;
                }
                let events = self.of_rows()?;
                if !events.is_empty() {
                    return Ok(Some(self.reply(events, false)));
                }
                continue;
            }
            if !self.follow || self.ending {
                self.over = true;
                return Ok(Some(self.reply(Vec::new(), true)));
            }
            let events = self.hear().await?;
            if !events.is_empty() {
                return Ok(Some(self.reply(events, false)));
            }
        }
        Ok(None)
    }
}

impl History {
    fn reply(&self, events: Vec<Event>, end: bool) -> EventsReply {
        EventsReply { events, next_seq: self.next_seq, end }
    }

    /// Before rows are read: the watch, and whether the job has ended. Its end
    /// and its last event are one commit, so rows read later have them all.
    async fn prepare(&mut self) -> Result<(), Problem> {
        if self.follow && self.watch.is_none() {
            let watch = self.gate.store.watch(keys::events_of(&self.tenant)).await;
            self.watch = Some(watch.map_err(rows::unreadable)?);
        }
        if self.follow && self.job_number != 0 && !self.ending {
            let job = JobId::new(self.tenant.as_str(), self.job_number);
            self.ending = ended(self.gate.state(&job).await?.state());
        }
        Ok(())
    }

    /// The next rows.
    async fn read_on(&mut self) -> Result<(), Problem> {
        let from = match self.from.take() {
            Some(from) => from,
            None => self.first_key().await?,
        };
        let prefix = keys::events_of(&self.tenant);
        let to = keys::prefix_end(&prefix);
        let request =
            RangeRequest { from: from.clone(), to, limit: limits::EVENT_ROWS_PER_READ, backwards: false };
        let page = rows::range(&*self.gate.store, request).await?;
        self.from = Some(page.rows.last().map_or(from, |row| keys::after(&row.key)));
        self.more = page.more;
        self.read = page.rows.into();
        Ok(())
    }

    /// As many events of the rows that were read as one reply has; `caught_up` once
    /// there are no more.
    fn of_rows(&mut self) -> Result<Vec<Event>, Problem> {
        let mut events = Vec::new();
        let mut bytes = 0;
        while bytes < limits::EVENT_BYTES_PER_REPLY
            && let Some(row) = self.read.pop_front()
        {
            bytes += row.value.len();
            self.take(rows::decode(&row)?, &mut events);
        }
        self.caught_up = self.read.is_empty() && !self.more;
        Ok(events)
    }

    /// The key of the batch that holds the first event wanted.
    async fn first_key(&self) -> Result<Key, Problem> {
        let wanted = keys::event(&self.tenant, self.next_seq);
        let request = RangeRequest {
            from: keys::events_of(&self.tenant),
            to: keys::after(&wanted),
            limit: 1,
            backwards: true,
        };
        let page = rows::range(&*self.gate.store, request).await?;
        Ok(page.rows.into_iter().next().map_or(wanted, |row| row.key))
    }

    /// Takes what is new of a batch and wanted by this caller.
    fn take(&mut self, batch: EventBatchRow, events: &mut Vec<Event>) {
        for event in batch.events {
            if event.seq < self.next_seq {
                continue;
            }
            self.next_seq = event.seq + 1;
            if self.job_number == 0 || self.job_number == event.job_number {
                events.push(event);
            }
        }
    }

    /// Waits for news.
    async fn hear(&mut self) -> Result<Vec<Event>, Problem> {
        let Some(watch) = self.watch.as_mut() else {
            self.read_again();
            return Ok(Vec::new());
        };
        let deadline = time::ms(limits::FOLLOW_LOOK_MS);
        let mut events = Vec::new();
        match time::timeout(deadline, watch.notices.recv()).await {
            // Nothing new. A follower of one job looks whether that has ended.
            Err(_) if self.job_number != 0 => self.read_again(),
            Err(_) => {}
            // Too slow for the watch, or it broke: the rows have it all.
            Ok(None | Some(Notice::Lagged)) => {
                self.watch = None;
                self.read_again();
            }
            Ok(Some(Notice::Changed { changes, .. })) => {
                for (_, value) in changes {
                    let Some(value) = value else { continue };
                    let batch = EventBatchRow::decode(value)
                        .map_err(|_| problem::internal("an event row does not decode"))?;
                    if batch.events.first().is_some_and(|event| event.seq > self.next_seq.max(1)) {
                        // Not what comes next: the rows have what lies between.
                        self.read_again();
                        return Ok(events);
                    }
                    self.take(batch, &mut events);
                }
                if events.iter().any(|event| self.ends_the_job(event)) {
                    self.read_again();
                }
            }
        }
        Ok(events)
    }

    /// Back to the rows, at the batch of the next event.
    fn read_again(&mut self) {
        self.caught_up = false;
        self.from = None;
        self.read.clear();
    }

    /// What a follower of one job waits for.
    fn ends_the_job(&self, event: &Event) -> bool {
        self.job_number != 0 && event.step.is_none() && ended(event.to())
    }
}

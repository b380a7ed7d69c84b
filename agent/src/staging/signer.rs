//! Signed URLs from the server, and transfers with them.
//!
//! What must hold: every ask has a deadline, every try of a transfer a deadline by its
//! size, all tries together another; and so many tries in a row without progress are
//! the last. A URL that was refused is asked for anew, since it may have expired: at once,
//! and that is no try, where it was not signed for this very one, or has served before it
//! was refused. While a source is left alone no try is made of it and none counts, for so
//! long at most.

use super::arrivals::{Arrival, Wait};
use super::sources::{Broken, Pass, Sources, is_of_the_source, source_of};
use crate::config::AgentConfig;
use crate::core::key::Key;
use crate::limits;
use crate::shell::Connection;
use proto::v1::{Problem, SignTransfersRequest, TransferNeed};
use std::sync::Arc;
use world::pace::Pace;
use world::sync::watch;
use world::time::{Duration, Instant, ms, sleep, timeout};
use world::transfer::TransferError;

/// Why a file could not be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// One line.
    pub(crate) text: String,
    /// The other side does not have the bytes any more, or not as they were.
    pub(crate) lost: bool,
}
impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, lost: false }
    }
}

/// Asks for URLs in whichever session stands.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    config: Arc<AgentConfig>,
    connection: watch::Receiver<Option<Connection>>,
    sources: Arc<Sources>,
}

/// A file that is to be moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moving<'a> {
    /// For whom.
    pub(crate) key: &'a Key,
    /// Which.
    pub(crate) need: &'a TransferNeed,
    /// A person gave the URL.
    pub(crate) given: bool,
    /// How fast.
    pub(crate) pace: &'a Pace,
    /// Who is told what it waits for.
    pub(crate) arrival: Option<&'a Arrival>,
}

impl Signer {
    pub(crate) fn new(config: Arc<AgentConfig>, connection: watch::Receiver<Option<Connection>>) -> Self {
        Self { config, connection, sources: Sources::new() }
    }

    /// One URL for each need, in order. The error is one line.
    pub(crate) async fn sign(&self, key: &Key, needs: &[TransferNeed]) -> Result<Vec<String>, String> {
        let mut urls = Vec::with_capacity(needs.len());
        for part in needs.chunks(limits::SIGN_NEEDS_MAX) {
            let signed = timeout(ms(limits::SIGN_MS_MAX), self.sign_part(key, part)).await;
            urls.extend(signed.unwrap_or_else(|_| Err("the server could not be asked in time".to_owned()))?);
        }
        Ok(urls)
    }

    async fn sign_part(&self, key: &Key, needs: &[TransferNeed]) -> Result<Vec<String>, String> {
        let mut connections = self.connection.clone();
        let mut failures = 0;
        loop {
            let connection = match connections.wait_for(Option::is_some).await {
                Ok(connection) => connection.clone().expect("it was waited for"),
                Err(_) => return Err("the agent ends".to_owned()),
            };
            let request = connection.request(SignTransfersRequest {
                node: self.config.node.clone(),
                session: connection.session,
                attempt: Some(key.attempt_ref()),
                needs: needs.to_vec(),
            });
            let mut client = connection.client();
            let call = timeout(ms(limits::CALL_MS_MAX), client.sign_transfers(request));
            let problem = match call.await {
                Ok(Ok(reply)) => {
                    let urls = reply.into_inner().urls;
                    if urls.len() == needs.len() {
                        return Ok(urls);
                    }
                    return Err(format!("{} files were asked for, {} signed", needs.len(), urls.len()));
                }
                Ok(Err(status)) => Problem::from(&status),
                Err(_) => proto::problem::unavailable("deadline", "the server did not answer in time"),
            };
            failures += 1;
            // A session that was replaced under this call is one more that passes.
            let passing =
                matches!(problem.family(), "unavailable" | "internal") || problem.code == "conflict.session";
            if !passing || failures >= limits::TRANSFER_TRIES {
                return Err(problem.to_string());
            }
            sleep(pause(failures)).await;
        }
    }

    /// Moves one file: by the URL in hand first, by a new one after a failure
    /// (one that a person gave: by the same). An empty URL for a put says
    /// that the bytes are there already. Bytes with another digest are fetched once
    /// more: it may have been the way that changed them. `brought` tells how many bytes
    /// the tries so far have left to go on with.
    pub(crate) async fn transfer<F, Moved>(
        &self,
        moving: &Moving<'_>,
        url: String,
        brought: impl Fn() -> u64,
        mut transfer: F,
    ) -> Result<(), Failure>
    where
        F: FnMut(String) -> Moved,
        Moved: Future<Output = Result<(), TransferError>>,
    {
        let Moving { key, need, given, pace, .. } = *moving;
        let mebibytes = need.size_bytes >> 20;
        let deadline = ms(limits::TRANSFER_BASE_MS + mebibytes.saturating_mul(limits::TRANSFER_MS_PER_MIB))
            + pace.longest(need.size_bytes, limits::TRANSFERS_ON_THE_LINE);
        // Bytes that come one by one are progress too, but not for ever.
        let mut last = Instant::now() + deadline * limits::TRANSFER_TRIES;
        let mut url = url;
        // Signed for the try that is to come: where that is refused it is not for its age.
        let mut fresh = false;
        let mut tries = Tries::default();
        let mut altered = 0;
        // Since when its source is left alone, and why.
        let mut broken: Option<(Instant, String)> = None;
        loop {
            if url.is_empty() {
                let gone = Failure { text: "the server has no such file".to_owned(), lost: true };
                return if need.put { Ok(()) } else { Err(gone) };
            }
            let source = source_of(&url).to_owned();
            let asked = Instant::now();
            let since = broken.as_ref().map_or(asked, |(since, _)| *since);
            let pass = match self.pass(moving, &source, since + ms(limits::BREAKER_WAIT_MS_MAX)).await {
                Leave::Asked(pass) => pass,
                Leave::Anew => {
                    // It is signed by who serves now, maybe elsewhere.
                    (url, fresh) = (self.sign_one(key, need).await?, true);
                    continue;
                }
                Leave::Never(why) => return Err(gave_up(&why, broken.map(|(_, error)| error)).into()),
            };
            let waited = asked.elapsed();
            last += waited;
            if !given && waited > ms(limits::TRANSFER_PAUSE_MS) {
                // The one in hand may have expired meanwhile.
                let signed = self.sign_one(key, need).await?;
                fresh = true;
                if source_of(&signed) == source {
                    url = signed;
                } else {
                    (url, broken) = (signed, None);
                    continue;
                }
            }
            let before = brought();
            let ended = timeout(deadline, transfer(url.clone())).await;
            let slow = || TransferError::Network(format!("it took longer than {} s", deadline.as_secs()));
            let Err(error) = ended.unwrap_or_else(|_| Err(slow())) else {
                pass.judge(None, true);
                return Ok(());
            };
            let got_on = brought() > before;
            let of_source = is_of_the_source(&error) && !got_on;
            pass.judge(Some(&error), got_on);
            match &error {
                TransferError::Disk(_) => return Err(error.to_string().into()),
                TransferError::Digest { .. } => {
                    altered += 1;
                    if given || need.put || altered > 1 {
                        return Err(Failure { text: error.to_string(), lost: true });
                    }
                }
                // A person's URL stays as it is: what it is refused now it will be
                // refused in a second. The controller's tries are further apart.
                TransferError::Refused { status, .. } if given && !matches!(status, 408 | 429) => {
                    return Err(refused(&error, *status, brought()).into());
                }
                _ => {}
            }
            if !given && is_of_its_age(&error, fresh && !got_on) && Instant::now() < last {
                world::mark!("agent.url.expired");
                (url, fresh, broken) = (self.sign_one(key, need).await?, true, None);
                continue;
            }
            if of_source && self.sources.is_open(&source) {
                // That is no try of this transfer more: it waits until the source works.
                let since = broken.take().map_or_else(Instant::now, |(since, _)| since);
                broken = Some((since, error.to_string()));
                continue;
            }
            broken = None;
            let failures = tries.failed(brought());
            if failures >= limits::TRANSFER_TRIES || Instant::now() >= last {
                return Err(error.to_string().into());
            }
            sleep(pause(failures)).await;
            if !given {
                (url, fresh) = (self.sign_one(key, need).await?, true);
            }
        }
    }

    async fn sign_one(&self, key: &Key, need: &TransferNeed) -> Result<String, String> {
        Ok(self.sign(key, std::slice::from_ref(need)).await?.pop().unwrap_or_default())
    }

    /// Leave to ask a source, or another session to ask for another URL.
    async fn pass(&self, moving: &Moving<'_>, source: &str, deadline: Instant) -> Leave {
        let mut waits = None;
        let mut connections = self.connection.clone();
        let session = connections.borrow().as_ref().map(|open| open.session);
        let anew = |open: &Option<Connection>| {
            open.as_ref().is_some_and(|open| Some(open.session) != session && !moving.given)
        };
        let told = |why: Broken| {
            drop(waits.take());
            waits = moving.arrival.map(|arrival| arrival.waits(&moving.need.digest, Wait::Source(why)));
        };
        world::select! {
            biased;
            pass = self.sources.pass(source, deadline, told) => match pass {
                Ok(pass) => Leave::Asked(pass),
                Err(why) => Leave::Never(why),
            },
            true = async { connections.wait_for(anew).await.is_ok() } => {
                // Whoever has a session again reaches the server, and its door most likely.
                self.sources.expected(source);
                Leave::Anew
            }
        }
    }
}

/// What comes of asking for leave.
enum Leave {
    Asked(Pass),
    /// Another URL is to be asked for.
    Anew,
    Never(Broken),
}

/// A source was left alone for too long.
fn gave_up(why: &Broken, error: Option<String>) -> String {
    let Broken { source, failures, .. } = why;
    let seconds = limits::BREAKER_WAIT_MS_MAX / 1_000;
    let error = error.map(|error| format!(": {error}")).unwrap_or_default();
    format!("the source {source} failed {failures} times in a row, and was waited for {seconds} s{error}")
}

/// A person's URL was refused.
fn refused(error: &TransferError, status: u16, brought_bytes: u64) -> String {
    if brought_bytes > 0 && matches!(status, 401 | 403 | 404 | 410) {
        return format!(
            "the URL expired after {brought_bytes} bytes had come; give one that is valid for longer: {error}"
        );
    }
    error.to_string()
}

/// Whether a signed URL was refused since its time was over: only one that is not new can
/// be. A bucket's may end with the credentials that signed it, and then it is no proper
/// request any more.
fn is_of_its_age(error: &TransferError, is_new: bool) -> bool {
    !is_new && matches!(error, TransferError::Refused { status: 400 | 401 | 403 | 410, .. })
}

/// The tries of one transfer.
#[derive(Debug, Default)]
struct Tries {
    in_vain: u32,
    most_bytes: u64,
}

impl Tries {
    /// One failed, and so many bytes are there now: how many in a row brought nothing.
    fn failed(&mut self, brought_bytes: u64) -> u32 {
        self.in_vain = if brought_bytes > self.most_bytes { 0 } else { self.in_vain + 1 };
        self.most_bytes = self.most_bytes.max(brought_bytes);
        self.in_vain
    }
}

/// Doubled from one failure to the next, spread by chance.
fn pause(failures: u32) -> Duration {
    let base = limits::TRANSFER_PAUSE_MS << failures.min(6).saturating_sub(1);
    ms(base + world::rand::u64() % base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_served_before_it_was_refused_has_expired() {
        let error = TransferError::Refused { status: 403, reason: "no".to_owned() };
        assert_eq!(refused(&error, 403, 0), error.to_string());
        assert!(refused(&error, 403, 7).starts_with("the URL expired after 7 bytes had come"));
        assert_eq!(refused(&error, 400, 7), error.to_string());
    }

    #[test]
    fn only_a_url_that_is_not_new_can_have_expired() {
        let refused = |status| TransferError::Refused { status, reason: "no".to_owned() };
        for status in [400, 401, 403, 410] {
            assert!(is_of_its_age(&refused(status), false) && !is_of_its_age(&refused(status), true));
        }
        let others = [refused(404), refused(409), refused(429), TransferError::Network("no".to_owned())];
        assert!(others.iter().all(|error| !is_of_its_age(error, false) && !is_of_its_age(error, true)));
    }

    #[test]
    fn a_try_that_got_on_does_not_count() {
        let mut tries = Tries::default();
        let failures: Vec<u32> =
            [0, 0, 5, 5, 6, 6, 0, 6, 7].into_iter().map(|bytes| tries.failed(bytes)).collect();
        assert_eq!(failures, [1, 2, 0, 1, 0, 1, 2, 3, 0], "bytes that were lost and came again are none");
    }
}

//! Signed URLs from the server, and transfers with them.
//!
//! What must hold: every ask has a deadline, every try of a transfer a deadline by its
//! size, all tries together another; and so many tries in a row without progress are
//! the last. A URL that was refused is asked for anew, since it may have expired.

use crate::config::AgentConfig;
use crate::core::key::Key;
use crate::limits;
use crate::shell::Connection;
use proto::v1::{Problem, SignTransfersRequest, TransferNeed};
use std::sync::Arc;
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
}

impl Signer {
    pub(crate) fn new(config: Arc<AgentConfig>, connection: watch::Receiver<Option<Connection>>) -> Self {
        Self { config, connection }
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
    /// (`given`: by the same, which a person gave). An empty URL for a put says
    /// that the bytes are there already. Bytes with another digest are fetched once
    /// more: it may have been the way that changed them. `brought` tells how many bytes
    /// the tries so far have left to go on with.
    pub(crate) async fn transfer<F, Moved>(
        &self,
        key: &Key,
        need: &TransferNeed,
        url: String,
        given: bool,
        brought: impl Fn() -> u64,
        mut transfer: F,
    ) -> Result<(), Failure>
    where
        F: FnMut(String) -> Moved,
        Moved: Future<Output = Result<(), TransferError>>,
    {
        let mebibytes = need.size_bytes >> 20;
        let deadline = ms(limits::TRANSFER_BASE_MS + mebibytes.saturating_mul(limits::TRANSFER_MS_PER_MIB));
        // Bytes that come one by one are progress too, but not for ever.
        let last = Instant::now() + deadline * limits::TRANSFER_TRIES;
        let fixed = given.then(|| url.clone());
        let mut url = url;
        let mut tries = Tries::default();
        let mut altered = 0;
        loop {
            if url.is_empty() {
                let gone = Failure { text: "the server has no such file".to_owned(), lost: true };
                return if need.put { Ok(()) } else { Err(gone) };
            }
            let error = match timeout(deadline, transfer(url)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error @ TransferError::Disk(_))) => return Err(error.to_string().into()),
                Ok(Err(error @ TransferError::Digest { .. })) => {
                    altered += 1;
                    if given || need.put || altered > 1 {
                        return Err(Failure { text: error.to_string(), lost: true });
                    }
                    error.to_string()
                }
                // A person's URL stays as it is: what it is refused now it will be
                // refused in a second. The controller's tries are further apart.
                Ok(Err(error @ TransferError::Refused { status, .. }))
                    if given && !matches!(status, 408 | 429) =>
                {
                    return Err(error.to_string().into());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("it took longer than {} s", deadline.as_secs()),
            };
            let failures = tries.failed(brought());
            if failures >= limits::TRANSFER_TRIES || Instant::now() >= last {
                return Err(error.into());
            }
            sleep(pause(failures)).await;
            url = match &fixed {
                Some(url) => url.clone(),
                None => self.sign(key, std::slice::from_ref(need)).await?.pop().unwrap_or_default(),
            };
        }
    }
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
    fn a_try_that_got_on_does_not_count() {
        let mut tries = Tries::default();
        let failures: Vec<u32> =
            [0, 0, 5, 5, 6, 6, 0, 6, 7].into_iter().map(|bytes| tries.failed(bytes)).collect();
        assert_eq!(failures, [1, 2, 0, 1, 0, 1, 2, 3, 0], "bytes that were lost and came again are none");
    }
}

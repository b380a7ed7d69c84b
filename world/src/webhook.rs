//! Where news is posted for programs of others: what drumline tells of itself by HTTP.

use async_trait::async_trait;
use std::fmt;

/// Takes JSON texts.
#[async_trait]
pub trait Webhook: fmt::Debug + Send + Sync + 'static {
    /// Posts one. Ends within a deadline of its own; after an error, which says in one line
    /// what was wrong, it may have been taken or not.
    async fn post(&self, json: String) -> Result<(), String>;
}

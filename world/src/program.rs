//! A program of an operator's own that is asked something: it reads a text and answers with one.

use async_trait::async_trait;
use std::fmt;

/// Answers texts.
#[async_trait]
pub trait Program: fmt::Debug + Send + Sync + 'static {
    /// Asks it once. Ends within a deadline of its own; what it answers is bounded in size.
    async fn ask(&self, text: String) -> Result<String, Unanswered>;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It cannot have done anything: it did not begin.
    NotBegun(String),
    /// It may have done all, some or nothing of it.
    Failed(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBegun(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

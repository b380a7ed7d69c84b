//! A webhook of `http://` or `https://`.

use super::tls::Clients;
use crate::{
    limits::{REASON_BYTES_MAX, WEBHOOK_ANSWER, WEBHOOK_CONNECT},
    time,
    webhook::Webhook,
};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Uri, header};
use std::{error::Error, sync::Arc};

const READ_BYTES: usize = 16 * 1024;

/// One URL.
pub struct HttpWebhook {
    clients: Clients<Full<Bytes>>,
    uri: Uri,
}

impl std::fmt::Debug for HttpWebhook {
    /// Without its path, which is what keeps others from posting there.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpWebhook").field("host", &self.uri.host()).finish_non_exhaustive()
    }
}

impl HttpWebhook {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(url: &str) -> Result<Arc<Self>, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "is no URL")?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(_)) => {}
            _ => return Err("is no http:// or https:// URL"),
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("names a user, and credentials in URLs are not sent");
        }
        Ok(Arc::new(Self { clients: Clients::new(WEBHOOK_CONNECT, 1, READ_BYTES), uri }))
    }

    async fn ask(&self, json: String) -> Result<(), String> {
        let request = Request::post(&self.uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("drumline/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(json)))
            .map_err(|error| error.to_string())?;
        let answer = self.clients.request(request).await.map_err(|error| told(&error))?;
        let status = answer.status();
        // Read, so that the connection is of use again.
        let text = Limited::new(answer.into_body(), REASON_BYTES_MAX).collect().await;
        if status.is_success() {
            return Ok(());
        }
        let text = text.map(|text| String::from_utf8_lossy(&text.to_bytes()).trim().replace('\n', " "));
        match text {
            Ok(text) if !text.is_empty() => Err(format!("it answered {}: {text}", status.as_u16())),
            _ => Err(format!("it answered {}", status.as_u16())),
        }
    }
}

fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(source) = at {
        text = format!("{text}: {source}");
        at = source.source();
    }
    text
}

#[async_trait]
impl Webhook for HttpWebhook {
    async fn post(&self, json: String) -> Result<(), String> {
        match time::timeout(WEBHOOK_ANSWER, self.ask(json)).await {
            Ok(answered) => answered,
            Err(_) => Err(format!("it did not answer within {} s", WEBHOOK_ANSWER.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_url_that_can_be_posted_to_is_one() {
        for good in ["http://127.0.0.1:9/hook", "https://chat.example/x?y=1"] {
            assert!(HttpWebhook::new(good).is_ok(), "{good}");
        }
        for bad in ["", "chat.example/x", "ftp://chat.example/", "http://", "http://me:secret@chat.example/"]
        {
            assert!(HttpWebhook::new(bad).is_err(), "{bad}");
        }
        let hook = HttpWebhook::new("https://chat.example/secret").unwrap();
        assert!(!format!("{hook:?}").contains("secret"));
    }
}

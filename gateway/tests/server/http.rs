//! A REST client for tests. Every answer is held against the server's own
//! OpenAPI document: a status, type or member that is not documented fails.

use crate::conforms::conforms;
use gateway::server::RunningServer;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::net::SocketAddr;

pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    pub base: String,
    pub token: String,
    document: Value,
}

/// One answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status, code and field of a refusal.
    pub fn refusal(&self) -> (u16, String, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let told = self.json();
        assert_eq!(told["status"], self.status, "{told}");
        assert_eq!(told["type"], format!("urn:drumline:problem:{}", told["code"].as_str().unwrap()));
        let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        assert!(
            !text("title").is_empty() && !text("detail").is_empty() && !text("remedy").is_empty(),
            "{told}"
        );
        (self.status, text("code"), text("field"))
    }
}

impl Http {
    pub async fn new(server: &RunningServer, token: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let mut http = Self {
            client,
            base: format!("http://{}", server.listening),
            token: token.to_owned(),
            document: Value::Null,
        };
        http.document =
            serde_json::from_str(&http.raw(http.request("GET", "/openapi.json")).await.text).unwrap();
        http
    }

    /// The same server with another token.
    pub fn with(&self, token: &str) -> Self {
        let (client, base) = (self.client.clone(), self.base.clone());
        Self { client, base, token: token.to_owned(), document: self.document.clone() }
    }

    /// The same server by another way.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { base: format!("http://{address}"), ..self.with(&self.token) }
    }

    pub fn request(&self, method: &str, target: &str) -> hyper::http::request::Builder {
        let builder = Request::builder().method(method).uri(format!("{}{target}", self.base));
        if self.token.is_empty() {
            builder
        } else {
            builder.header("authorization", format!("Bearer {}", self.token))
        }
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send(self.request("GET", target), "").await
    }

    pub async fn delete(&self, target: &str) -> Answer {
        self.send(self.request("DELETE", target), "").await
    }

    pub async fn post(&self, target: &str, body: &str) -> Answer {
        self.send(self.request("POST", target).header("content-type", "application/json"), body).await
    }

    pub async fn put(&self, target: &str, body: &str) -> Answer {
        self.send(self.request("PUT", target).header("content-type", "application/json"), body).await
    }

    /// The bytes behind a signed link.
    pub async fn raw_bytes(&self, request: hyper::http::request::Builder) -> (u16, Vec<u8>) {
        let answer = self.client.request(request.body(Full::default()).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    pub async fn send(&self, request: hyper::http::request::Builder, body: &str) -> Answer {
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = read(self.client.request(request).await.unwrap()).await;
        self.check(&method, &path, &answer);
        answer
    }

    /// An answer that no document covers.
    pub async fn raw(&self, request: hyper::http::request::Builder) -> Answer {
        read(self.client.request(request.body(Full::default()).unwrap()).await.unwrap()).await
    }

    /// Sends bytes to a signed URL.
    pub async fn put_bytes(&self, request: hyper::http::request::Builder, bytes: &str) -> u16 {
        let request = request.body(Full::new(Bytes::from(bytes.to_owned()))).unwrap();
        self.client.request(request).await.unwrap().status().as_u16()
    }

    /// The head of an answer whose body may have no end.
    pub async fn open(&self, request: hyper::http::request::Builder) -> Response<Incoming> {
        self.try_open(request).await.unwrap()
    }

    /// Likewise, where the connection may break before the head is there.
    pub async fn try_open(
        &self,
        request: hyper::http::request::Builder,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        self.client.request(request.body(Full::default()).unwrap()).await
    }

    fn check(&self, method: &Method, path: &str, answer: &Answer) {
        let paths = self.document["paths"].as_object().unwrap();
        let matches = |template: &str| {
            let (ours, theirs): (Vec<&str>, Vec<&str>) =
                (path.split('/').collect(), template.split('/').collect());
            // A path of outputs is the one name that may hold slashes.
            let open = theirs.last() == Some(&"{path}") && ours.len() > theirs.len();
            (ours.len() == theirs.len() || open)
                && ours.iter().zip(theirs).all(|(part, name)| name.starts_with('{') || *part == name)
        };
        let (template, operations) = paths.iter().find(|(template, _)| matches(template)).expect(path);
        let responses = &operations[method.as_str().to_lowercase()]["responses"];
        let told = &responses[answer.status.to_string()];
        assert!(
            told.is_object(),
            "{method} {template} answered an undocumented {}: {}",
            answer.status,
            answer.text
        );
        let media_type = answer.header("content-type").split(';').next().unwrap_or_default();
        if told["content"].is_null() {
            assert_eq!(answer.text, "", "{method} {template} answered an undocumented body");
            return;
        }
        let schema = &told["content"][media_type]["schema"];
        assert!(schema.is_object(), "{method} {template} answered an undocumented {media_type}");
        let lines: Vec<Value> = match media_type {
            "application/x-ndjson" => {
                answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
            }
            "text/plain" => vec![Value::String(answer.text.clone())],
            _ => vec![answer.json()],
        };
        for value in lines {
            conforms(&value, schema, &self.document).unwrap_or_else(|why| {
                panic!("{method} {template} {}: {why}\n{}", answer.status, answer.text)
            });
        }
    }
}

async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let data = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        text: String::from_utf8(data.to_vec()).unwrap(),
    }
}

/// What most tests expect.
pub fn is_ok(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::OK.as_u16(), "{}", answer.text);
}

//! A bucket of S3, or of what speaks like it. Requests are signed by `object_store` and
//! carried by this machine's own HTTP clients.

use super::tls::Clients;
use crate::{
    bucket::{Bucket, misread},
    disk::{Disk, DiskFile, OpenMode},
    task, time,
    transfer::hex_digest,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::BodyExt as _;
use object_store::{
    ClientOptions, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, RetryConfig,
    WriteMultipart,
    aws::{AmazonS3, AmazonS3Builder},
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
    path::Path,
    signer::Signer as _,
};
use sha2::{Digest, Sha256};
use std::{fmt, io, ops::Range, sync::Arc, time::Duration};

/// For a connection to stand.
const CONNECT: Duration = Duration::from_secs(5);
/// For one request, with the bytes of a part.
const ANSWER: Duration = Duration::from_secs(30);
/// For a call but [`Bucket::put`], however often it is tried.
const CALL: Duration = Duration::from_secs(32);
/// Tries of one request after the first.
const RETRIES: usize = 2;
/// What is longer is put in parts of this size; of S3's 10,000 at most.
const PART_BYTES: usize = 16 * 1024 * 1024;
/// Parts of one object on their way at once.
const PARTS_AT_ONCE: usize = 2;
/// A put takes no longer than [`CALL`] and so much for each MiB.
const PUT_MS_PER_MIB: u64 = 1_000;
const IDLE_CONNECTIONS_MAX: usize = 32;
/// Read from a connection at once.
const READ_BYTES: usize = 1024 * 1024;

/// Which bucket, and where. Credentials come from the environment, as everywhere in that
/// world: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Options {
    /// Its name.
    pub bucket: String,
    /// What precedes all keys; nothing, or without a `/` at its ends.
    pub prefix: String,
    /// `http://…` or `https://…` of the service; empty for that of AWS.
    pub endpoint: String,
    /// Empty for that of the environment.
    pub region: String,
}

/// One bucket.
#[derive(Debug)]
pub struct S3 {
    store: AmazonS3,
    prefix: String,
}

impl S3 {
    /// Nothing is asked of the service yet.
    pub fn new(options: &S3Options) -> io::Result<Arc<Self>> {
        let plain = options.endpoint.starts_with("http://");
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: ANSWER, backoff: Default::default() };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&options.bucket)
            .with_http_connector(Connector)
            .with_client_options(ClientOptions::new().with_allow_http(plain))
            .with_retry(retry);
        if !options.endpoint.is_empty() {
            builder = builder.with_endpoint(&options.endpoint);
        }
        if !options.region.is_empty() {
            builder = builder.with_region(&options.region);
        }
        let store = builder.build().map_err(failed)?;
        Ok(Arc::new(Self { store, prefix: options.prefix.clone() }))
    }

    fn path(&self, key: &str) -> Path {
        if self.prefix.is_empty() { Path::from(key) } else { Path::from(format!("{}/{key}", self.prefix)) }
    }
}

/// With all that it rests on in one line.
fn failed(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    let mut text = error.to_string();
    let mut at = std::error::Error::source(&error);
    while let Some(source) = at {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        at = source.source();
    }
    io::Error::new(kind, text.replace('\n', " "))
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>) -> io::Result<T> {
    match time::timeout(limit, call).await {
        Ok(done) => done.map_err(failed),
        Err(_) => {
            let why = format!("the object store did not answer within {} s", limit.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        }
    }
}

#[async_trait]
impl Bucket for S3 {
    async fn size(&self, key: &str) -> io::Result<Option<u64>> {
        match within(CALL, self.store.head(&self.path(key))).await {
            Ok(found) => Ok(Some(found.size)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, key: &str, disk: Arc<dyn Disk>, path: &str, digest: &str) -> io::Result<()> {
        let path = path.to_owned();
        let (file, len) = task::blocking(move || -> io::Result<_> {
            let file = disk.open(&path, OpenMode::Read)?;
            let len = file.len()?;
            Ok((file, len))
        })
        .await?;
        let limit = CALL + time::ms((len >> 20) * PUT_MS_PER_MIB);
        let key = self.path(key);
        if len <= PART_BYTES as u64 {
            let (bytes, hash) = block(&file, 0..len, Sha256::new()).await?;
            if hex_digest(&hash.finalize()) != digest {
                return Err(misread());
            }
            return within(limit, self.store.put(&key, bytes.into())).await.map(|_| ());
        }
        match time::timeout(limit, put_parts(&self.store, &key, (&file, len, digest))).await {
            Ok(put) => put,
            // What was put of it is taken away by the bucket's own rule, as of a crash.
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the object store takes the object too slowly"))
            }
        }
    }

    async fn read(&self, key: &str, span: Range<u64>) -> io::Result<Bytes> {
        if span.is_empty() {
            return Ok(Bytes::new());
        }
        let due = span.end - span.start;
        let options = GetOptions { range: Some(GetRange::Bounded(span)), ..GetOptions::default() };
        let key = self.path(key);
        let bytes = within(CALL, async { self.store.get_opts(&key, options).await?.bytes().await }).await?;
        if bytes.len() as u64 == due {
            return Ok(bytes);
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the object is cut short"))
    }

    async fn remove(&self, key: &str) -> io::Result<()> {
        match within(CALL, self.store.delete(&self.path(key))).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    async fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let prefix = self.path(prefix);
        let found = self.store.list(Some(&prefix)).map_ok(|object| object.location.to_string());
        let found: Vec<String> = time::timeout(CALL, found.try_collect())
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the object store lists too slowly"))?
            .map_err(failed)?;
        let own = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        Ok(found.into_iter().filter_map(|key| key.strip_prefix(&own).map(str::to_owned)).collect())
    }

    async fn signed(&self, key: &str, ttl: Duration) -> io::Result<String> {
        let key = self.path(key);
        let url = within(CALL, self.store.signed_url(hyper::Method::GET, &key, ttl)).await?;
        Ok(url.to_string())
    }
}

/// These bytes, and the hash with them.
async fn block(file: &Arc<dyn DiskFile>, span: Range<u64>, mut hash: Sha256) -> io::Result<(Bytes, Sha256)> {
    let (file, due) = (Arc::clone(file), usize::try_from(span.end - span.start).map_err(io::Error::other)?);
    task::blocking(move || {
        let mut data = vec![0; due];
        let mut read = 0;
        while read < due {
            match file.read_at(span.start + read as u64, &mut data[read..])? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
                more => read += more,
            }
        }
        hash.update(&data);
        Ok((data.into(), hash))
    })
    .await
}

async fn put_parts(
    store: &AmazonS3,
    key: &Path,
    (file, len, digest): (&Arc<dyn DiskFile>, u64, &str),
) -> io::Result<()> {
    let upload = store.put_multipart(key).await.map_err(failed)?;
    let mut writing = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    let mut hash = Sha256::new();
    for from in (0..len).step_by(PART_BYTES) {
        let sent = match block(file, from..len.min(from + PART_BYTES as u64), hash.clone()).await {
            Ok((bytes, more)) => {
                hash = more;
                writing.put(bytes);
                writing.wait_for_capacity(PARTS_AT_ONCE).await.map_err(failed)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            let _ = writing.abort().await;
            return Err(error);
        }
    }
    if hex_digest(&hash.finalize()) != digest {
        let _ = writing.abort().await;
        return Err(misread());
    }
    writing.finish().await.map(|_| ()).map_err(failed)
}

/// Gives `object_store` our clients.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Carrier(Clients::new(CONNECT, IDLE_CONNECTIONS_MAX, READ_BYTES))))
    }
}

struct Carrier(Clients<HttpRequestBody>);

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpService for Carrier {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        match time::timeout(ANSWER, self.0.request(request)).await {
            Err(late) => Err(HttpError::new(HttpErrorKind::Timeout, io::Error::other(late.to_string()))),
            Ok(Err(error)) => Err(HttpError::new(HttpErrorKind::Request, error)),
            Ok(Ok(answer)) => Ok(answer.map(|body| {
                HttpResponseBody::new(body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)))
            })),
        }
    }
}

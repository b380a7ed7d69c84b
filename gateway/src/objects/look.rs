//! What the server itself reads of objects: which are there, and what one says.

use super::download::read_file;
use super::{Objects, bucket, path};
use crate::limits;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use proto::problem::{self, Problem};
use std::io;
use std::sync::Arc;
use world::disk::OpenMode;
use world::task::blocking;

impl Objects {
    /// The sizes of many objects, in their order, where they are there and will stay.
    pub(crate) async fn sizes(
        self: &Arc<Self>,
        tenant: &str,
        digests: Vec<String>,
    ) -> Result<Vec<Option<u64>>, Problem> {
        let condemned: Vec<bool> = {
            let names = self.names();
            digests.iter().map(|digest| names.condemned.contains(&path(tenant, digest))).collect()
        };
        let sizes: io::Result<Vec<_>> = match &self.bucket {
            Some(bucket) => {
                let (place, bucket, tenant) = (Arc::clone(self), Arc::clone(bucket), tenant.to_owned());
                let size = move |digest: String| {
                    let (place, bucket, tenant) = (Arc::clone(&place), Arc::clone(&bucket), tenant.clone());
                    async move { bucket::size(&place, &*bucket, (&tenant, &digest)).await }
                };
                stream::iter(digests).map(size).buffered(limits::BUCKET_ASKS_MAX).try_collect().await
            }
            None => {
                let (place, tenant) = (Arc::clone(self), tenant.to_owned());
                blocking(move || digests.iter().map(|digest| place.settled(&tenant, digest)).collect()).await
            }
        };
        let sizes = sizes.map_err(|error| {
            problem::unavailable("objects", format!("whether an object is there cannot be told: {error}"))
        })?;
        Ok(sizes.into_iter().zip(condemned).map(|(size, condemned)| size.filter(|_| !condemned)).collect())
    }

    /// The first bytes of an object, which has so many.
    pub(crate) async fn read(&self, tenant: &str, digest: &str, bytes: u64) -> io::Result<Vec<u8>> {
        let due = usize::try_from(bytes).map_err(io::Error::other)?;
        if let Some(bucket) = &self.bucket {
            return Ok(bucket.read(&bucket::key(tenant, digest), 0..bytes).await?.into());
        }
        let (disk, path) = (Arc::clone(&self.disk), path(tenant, digest));
        blocking(move || Ok(read_file(&*disk.open(&path, OpenMode::Read)?, 0, due)?.into())).await
    }
}

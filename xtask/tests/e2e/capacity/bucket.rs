//! The objects in the testbed's bucket, past the server.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::site::Site;
use crate::{Result, ensure, http};

/// For an answer of the object store.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A site's objects.
pub struct Bucket<'s> {
    site: &'s Site<'s>,
    http: reqwest::Client,
    objects: String,
}

impl<'s> Bucket<'s> {
    /// Below the site's name.
    ///
    /// # Errors
    /// When there can be no client.
    pub fn of(site: &'s Site<'s>) -> Result<Self> {
        let place = &site.world.place;
        let bucket = place.bucket.trim_start_matches("gs://");
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        Ok(Self { site, http, objects: format!("{}/storage/v1/b/{bucket}/o", place.gcs) })
    }

    /// The names of all.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn names(&self) -> Result<BTreeSet<String>> {
        let request = self.http.get(&self.objects).query(&[("prefix", format!("{}/", self.site.name))]);
        let list: Value = serde_json::from_slice(&self.send(request)?)?;
        ensure!(list["nextPageToken"].is_null(), "there are more objects than a page holds");
        let names = list["items"].as_array().into_iter().flatten().filter_map(|object| object["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Removes one.
    ///
    /// # Errors
    /// When the store does not answer, or there is none.
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut url = url::Url::parse(&self.objects)?;
        url.path_segments_mut().map_err(|()| "a store without a path")?.push(name);
        self.send(self.http.delete(url)).map(drop)
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>> {
        self.site.world.runtime.block_on(http::answer(request))
    }
}

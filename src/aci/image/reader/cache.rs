//! What a reader remembers: the digests of tags, configurations, the pauses of registries, and the reads that run.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::WeakShared;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{ImageRead, ReadFuture};
use crate::aci::expiring_map::ExpiringMap;
use crate::aci::image::access::AccessFingerprint;
use crate::aci::image::digest::ImageDigest;

/// How long the digest of a tag is remembered.
const TAG_LIFETIME: Duration = Duration::from_secs(60);
/// The most tags that are remembered.
const TAGS: usize = 4096;
/// The most configurations that are remembered, and the largest of them, in bytes: together at most 16 MiB.
const CONFIGS: usize = 1024;
const LARGEST_CONFIG: usize = 16 << 10;
/// The most registries and accesses whose pauses are remembered.
const PAUSES: usize = 1024;

/// A reference with an access: what is read once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReadKey {
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) target: String,
    pub(super) access: AccessFingerprint,
}

/// Content in a repository. Another repository with the same content has a key of its own: a registry that claims to
/// have a digest does not get what another registry has for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ContentKey {
    registry: String,
    repository: String,
    digest: ImageDigest,
}

impl ReadKey {
    /// The key of content in the same repository.
    fn content(&self, digest: ImageDigest) -> ContentKey {
        ContentKey {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            digest,
        }
    }
}

pub(super) struct ImageCaches {
    tags: ExpiringMap<ReadKey, ImageDigest>,
    configs: ExpiringMap<ContentKey, ImageRead>,
    pub(super) pauses: ExpiringMap<(String, AccessFingerprint), Instant>,
    /// By namespace and what is read: a read that waits for the turn of one namespace is not shared with another.
    pub(super) reads: HashMap<(String, ReadKey), RunningRead>,
    /// Counts reads.
    pub(super) started: u64,
    pub(super) registry_permits: HashMap<String, Weak<Semaphore>>,
    pub(super) namespace_permits: HashMap<String, Weak<Semaphore>>,
    /// By namespace and registry: a registry that hangs leaves turns of the namespace to others.
    pub(super) pair_permits: HashMap<String, Weak<Semaphore>>,
}

/// A read that has not ended, and its number.
pub(super) struct RunningRead {
    pub(super) number: u64,
    pub(super) read: WeakShared<ReadFuture>,
}

impl ImageCaches {
    /// Empty caches.
    pub(super) fn new() -> Self {
        Self {
            tags: ExpiringMap::new(TAGS, |key| &key.registry),
            configs: ExpiringMap::new(CONFIGS, |key| &key.registry),
            pauses: ExpiringMap::new(PAUSES, |(registry, _)| registry),
            reads: HashMap::new(),
            started: 0,
            registry_permits: HashMap::new(),
            namespace_permits: HashMap::new(),
            pair_permits: HashMap::new(),
        }
    }

    /// What is known of an image without a request.
    pub(super) fn known(&mut self, key: &ReadKey, now: Instant) -> Option<ImageRead> {
        let digest = self.tags.get(key, now)?;
        self.configs.get(&key.content(digest), now)
    }

    /// What is known of the content with this digest, which the access has just been shown.
    pub(super) fn known_content(
        &mut self,
        key: &ReadKey,
        digest: ImageDigest,
        now: Instant,
    ) -> Option<ImageRead> {
        let known = self.configs.get(&key.content(digest), now)?;
        self.remember(key, &known, now);
        Some(known)
    }

    /// Remembers what the key's tag names, and its content unless that is large.
    pub(super) fn remember(&mut self, key: &ReadKey, read: &ImageRead, now: Instant) {
        let expires = Some(now + TAG_LIFETIME);
        self.tags.insert(key.clone(), read.digest, expires, now);
        let content = key.content(read.digest);
        let weight = content.registry.len() + content.repository.len() + read.config.weight();
        if weight <= LARGEST_CONFIG {
            self.configs.insert(content, read.clone(), None, now);
        }
    }
}

/// The permits for reads with this key.
pub(super) fn limit(
    limits: &mut HashMap<String, Weak<Semaphore>>,
    key: &str,
    most: usize,
) -> Arc<Semaphore> {
    if let Some(permits) = limits.get(key).and_then(Weak::upgrade) {
        return permits;
    }
    limits.retain(|_, permits| permits.strong_count() > 0);
    let permits = Arc::new(Semaphore::new(most));
    limits.insert(key.to_owned(), Arc::downgrade(&permits));
    permits
}

//! Reads the configurations of images, each as seldom as possible.
//!
//! In: a reference and an access. Out: an [`ImageRead`]. Docker Hub counts each GET of a manifest as a pull, and
//! allows 100 in six hours to an address without a login (<https://docs.docker.com/docker-hub/usage/pulls/>); a
//! HEAD is not counted. Therefore:
//!
//! - HEAD first: it shows the digest that a tag names, and that the access may read it.
//! - A tag's digest is remembered for 60 s, for this access only. A credential thus opens no image for another one.
//! - The configuration of a digest never changes, and is remembered without an end, for every access that has passed
//!   the HEAD for the same repository.
//! - Reads of the same image with the same access at the same time are one.
//! - After status 429 the registry gets no requests with this access until the time that it names.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::access::{AccessFingerprint, ImageAccess, RegistryTokenSource};
use super::cache::ExpiringMap;
use super::config::ImageConfig;
use super::digest::ImageDigest;
use super::error::ImageReadError;
use super::guard::RegistryHostGuard;
use super::manifest::{ImageManifest, ImageProblem};
use super::reference::ImageReference;
use super::session::{ManifestHead, RegistryConnector, RegistrySession, SentManifest};

/// The timeout of a whole read. A cold read takes about eight requests to up to four hosts.
const READ: Duration = Duration::from_secs(20);
/// How long the digest of a tag is remembered.
const TAG_LIFETIME: Duration = Duration::from_secs(60);
/// The longest time for which a registry can ask for no requests.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// The most tags that are remembered.
const TAGS: usize = 4096;
/// The most configurations that are remembered, and the largest of them, in bytes: together at most 64 MiB.
const CONFIGS: usize = 2048;
const LARGEST_CONFIG: usize = 32 << 10;
/// The most registries and accesses whose pauses are remembered.
const PAUSES: usize = 1024;
/// The most reads at the same time from one registry, so that one that hangs takes no more connections.
const READS_PER_REGISTRY: usize = 8;
/// The most reads at the same time that receive bodies: together at most 128 MiB.
const DOWNLOADS: usize = 32;
/// The most manifests on the way to a configuration: an index may name another index.
const DEPTH: usize = 3;

/// An image as a registry describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRead {
    /// The digest of what the reference names: an index or a manifest. Pass it to [`ImageReference::pinned`].
    pub digest: ImageDigest,
    /// The configuration of the image for `linux/amd64`.
    pub config: Arc<ImageConfig>,
    /// The sum of the layers' lengths in bytes, as the registry stores them.
    pub compressed_bytes: u64,
}

/// The settings of an [`ImageReader`].
pub struct ImageReaderSettings {
    /// Certificates to trust in addition to the system's, in PEM.
    pub extra_ca: Vec<u8>,
    /// Which hosts may be requested.
    pub guard: RegistryHostGuard,
    /// Tokens of the operator's identity.
    pub tokens: RegistryTokenSource,
    /// The timeout of a whole read; `None` for the default of 20 s.
    pub timeout: Option<Duration>,
}

/// Reads configurations of images; cheap to clone. All clones share the caches.
#[derive(Clone)]
pub struct ImageReader {
    shared: Arc<SharedReader>,
}

type ReadResult = Result<ImageRead, ImageReadError>;
type ReadFuture = BoxFuture<'static, ReadResult>;

struct SharedReader {
    connector: RegistryConnector,
    timeout: Duration,
    downloads: Semaphore,
    caches: Mutex<ImageCaches>,
}

/// A reference with an access: what is read once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ReadKey {
    registry: String,
    repository: String,
    target: String,
    access: AccessFingerprint,
}

/// Content in a repository. Another repository with the same content has a key of its own: a registry that claims to
/// have a digest does not get what another registry has for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ContentKey {
    registry: String,
    repository: String,
    digest: ImageDigest,
}

struct ImageCaches {
    tags: ExpiringMap<ReadKey, ImageDigest>,
    configs: ExpiringMap<ContentKey, ImageRead>,
    pauses: ExpiringMap<(String, AccessFingerprint), Instant>,
    reads: HashMap<ReadKey, WeakShared<ReadFuture>>,
    permits: HashMap<String, Weak<Semaphore>>,
}

impl ImageReader {
    /// A reader with empty caches. Fails if a certificate is invalid.
    pub fn new(settings: ImageReaderSettings) -> reqwest::Result<Self> {
        let ImageReaderSettings {
            extra_ca,
            guard,
            tokens,
            timeout,
        } = settings;
        let http = RegistryConnector::http(&extra_ca, &guard)?;
        let caches = ImageCaches {
            tags: ExpiringMap::new(TAGS),
            configs: ExpiringMap::new(CONFIGS),
            pauses: ExpiringMap::new(PAUSES),
            reads: HashMap::new(),
            permits: HashMap::new(),
        };
        let shared = SharedReader {
            connector: RegistryConnector {
                http,
                guard,
                tokens,
            },
            timeout: timeout.unwrap_or(READ),
            downloads: Semaphore::new(DOWNLOADS),
            caches: Mutex::new(caches),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Reads the configuration of an image. Call it from a task of its own, or with others at the same time: it takes
    /// as long as the registry, up to the timeout. The read ends when the last caller has gone.
    pub async fn read(&self, reference: &ImageReference, access: &ImageAccess) -> ReadResult {
        let key = ReadKey {
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            target: reference.target(),
            access: access.fingerprint(),
        };
        let read = {
            let mut caches = self.shared.caches();
            if let Some(known) = caches.known(&key, Instant::now()) {
                return Ok(known);
            }
            caches.reads.retain(|_, read| read.upgrade().is_some());
            let running = caches.reads.get(&key).and_then(WeakShared::upgrade);
            running.unwrap_or_else(|| {
                let read = self.start(key.clone(), reference.clone(), access.clone());
                caches
                    .reads
                    .extend(read.downgrade().map(|weak| (key, weak)));
                read
            })
        };
        read.await
    }

    /// A read that its callers share.
    fn start(
        &self,
        key: ReadKey,
        reference: ImageReference,
        access: ImageAccess,
    ) -> Shared<ReadFuture> {
        let shared = self.shared.clone();
        let read = async move {
            let read = shared.read(&key, &reference, &access);
            let result = tokio::time::timeout(shared.timeout, read).await;
            let result = result.unwrap_or_else(|_| {
                Err(ImageReadError::Unreachable {
                    registry: key.registry.clone(),
                    why: format!("reading the image took longer than {:?}", shared.timeout),
                })
            });
            // Later callers start again, or find what this read has remembered.
            shared.caches().reads.remove(&key);
            result
        };
        read.boxed().shared()
    }
}

impl SharedReader {
    fn caches(&self) -> MutexGuard<'_, ImageCaches> {
        self.caches.lock()
    }

    async fn read(
        &self,
        key: &ReadKey,
        reference: &ImageReference,
        access: &ImageAccess,
    ) -> ReadResult {
        let permits = self.caches().permits(&key.registry);
        let _permit = permits.acquire().await;
        let paused = (key.registry.clone(), key.access);
        let now = Instant::now();
        if let Some(until) = self.caches().pauses.get(&paused, now) {
            let (registry, wait) = (key.registry.clone(), until - now);
            return Err(ImageReadError::Throttled { registry, wait });
        }
        let result = self.request(key, reference, access).await;
        if let Err(ImageReadError::Throttled { wait, .. }) = &result {
            let now = Instant::now();
            let until = now + (*wait).min(LONGEST_PAUSE);
            self.caches().pauses.insert(paused, until, Some(until), now);
        }
        result
    }

    async fn request(
        &self,
        key: &ReadKey,
        reference: &ImageReference,
        access: &ImageAccess,
    ) -> ReadResult {
        let mut session = RegistrySession::new(&self.connector, reference, access)?;
        let head = session.head(&key.target).await?;
        let (digest, sent) = match head {
            ManifestHead::Digest(digest) => (digest, None),
            ManifestHead::Unknown => {
                let _permit = self.downloads.acquire().await;
                let sent = session.manifest(&key.target).await?;
                (ImageDigest::of(&sent.body), Some(sent))
            }
        };
        if reference.digest().is_some_and(|wanted| wanted != digest) {
            return Err(session.corrupt(format!("{digest} in place of {}", key.target)));
        }
        let content = ContentKey {
            registry: key.registry.clone(),
            repository: key.repository.clone(),
            digest,
        };
        let known = self.caches().configs.get(&content, Instant::now());
        let read = if let Some(known) = known {
            known
        } else {
            let _permit = self.downloads.acquire().await;
            fetch(&mut session, digest, sent).await?
        };
        self.caches().remember(key, content, &read, Instant::now());
        Ok(read)
    }
}

impl ImageCaches {
    /// What is known of an image without a request.
    fn known(&mut self, key: &ReadKey, now: Instant) -> Option<ImageRead> {
        let content = ContentKey {
            digest: self.tags.get(key, now)?,
            registry: key.registry.clone(),
            repository: key.repository.clone(),
        };
        self.configs.get(&content, now)
    }

    fn remember(&mut self, key: &ReadKey, content: ContentKey, read: &ImageRead, now: Instant) {
        let expires = Some(now + TAG_LIFETIME);
        self.tags.insert(key.clone(), read.digest, expires, now);
        if read.config.weight() <= LARGEST_CONFIG {
            self.configs.insert(content, read.clone(), None, now);
        }
    }

    /// The permits for reads from a registry.
    fn permits(&mut self, registry: &str) -> Arc<Semaphore> {
        if let Some(permits) = self.permits.get(registry).and_then(Weak::upgrade) {
            return permits;
        }
        self.permits.retain(|_, permits| permits.strong_count() > 0);
        let permits = Arc::new(Semaphore::new(READS_PER_REGISTRY));
        self.permits
            .insert(registry.to_owned(), Arc::downgrade(&permits));
        permits
    }
}

/// Reads the manifests from `digest` to the image's configuration. `sent` is the first one, if it has been read.
async fn fetch(
    session: &mut RegistrySession<'_>,
    digest: ImageDigest,
    mut sent: Option<SentManifest>,
) -> ReadResult {
    let mut next = digest;
    for _ in 0..DEPTH {
        let manifest = match sent.take() {
            Some(manifest) => manifest,
            None => session.manifest(&next.to_string()).await?,
        };
        session.verify(&manifest.body, next)?;
        let manifest = ImageManifest::decode(&manifest.content_type, &manifest.body);
        match manifest.map_err(|problem| failure(session, problem))? {
            ImageManifest::Index(chosen) => next = chosen.digest,
            ImageManifest::Image {
                config,
                compressed_bytes,
            } => {
                let body = session.config(&config).await?;
                let config = ImageConfig::decode(&body);
                let config = config.and_then(|config| config.check_platform().map(|()| config));
                let config = Arc::new(config.map_err(|problem| failure(session, problem))?);
                return Ok(ImageRead {
                    digest,
                    config,
                    compressed_bytes,
                });
            }
        }
    }
    Err(session.corrupt(format!("indexes in indexes, more than {DEPTH} deep")))
}

fn failure(session: &RegistrySession<'_>, problem: ImageProblem) -> ImageReadError {
    match problem {
        ImageProblem::Malformed(why) => session.corrupt(why),
        ImageProblem::Unsupported(why) => ImageReadError::Unsupported {
            image: session.image(),
            why,
        },
    }
}

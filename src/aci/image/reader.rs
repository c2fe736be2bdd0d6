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
//! - Reads of the same image with the same access for the same namespace at the same time are one.
//! - A registry that hangs delays only its own images: the reads of a registry, of a namespace, and all together are
//!   limited, and a read's timeout begins when it has its turn.
//! - After status 429 the registry gets no requests with this access until the time that it names.

mod cache;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, Shared};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::access::{ImageAccess, RegistryTokenSource};
use super::config::ImageConfig;
use super::digest::ImageDigest;
use super::error::{ImageReadError, MAX_WAIT};
use super::guard::{RegistryHostGuard, authority};
use super::manifest::{ImageManifest, ImageProblem};
use super::reference::ImageReference;
use super::session::{ManifestHead, RegistryConnector, RegistrySession, SentManifest};
use cache::{ImageCaches, ReadKey, RunningRead, limit};

/// The timeout of a read that has its turn. A cold read takes about eight requests to up to four hosts.
const READ: Duration = Duration::from_secs(20);
/// The longest wait for a turn.
const QUEUED: Duration = Duration::from_secs(60);
/// The most reads at the same time.
const READS: usize = 48;
/// The most reads at the same time from one registry, so that one that hangs takes no more connections.
const READS_PER_REGISTRY: usize = 4;
/// The most reads at the same time for the pods of one namespace, however many registries they name.
const READS_PER_NAMESPACE: usize = 16;
/// The most reads at the same time that hold a body: with what is decoded from it, together at most 32 MiB.
const DOWNLOADS: usize = 16;
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
    /// Which hosts may be requested.
    pub guard: RegistryHostGuard,
    /// Tokens of the operator's identity.
    pub tokens: RegistryTokenSource,
    /// The timeout of a read that has its turn; `None` for the default of 20 s.
    pub timeout: Option<Duration>,
}

impl ImageReaderSettings {
    /// The settings of an operator without an identity for Azure Container Registry.
    pub fn without_identity() -> Self {
        let why = "the operator has no identity".to_owned();
        Self {
            guard: RegistryHostGuard::default(),
            tokens: Arc::new(move || std::future::ready(Err(why.clone())).boxed()),
            timeout: None,
        }
    }
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
    reads: Semaphore,
    downloads: Semaphore,
    caches: Mutex<ImageCaches>,
}

/// Removes a read from the running ones when it ends or is given up.
struct ReadRegistration {
    shared: Arc<SharedReader>,
    key: (String, ReadKey),
    number: u64,
}

impl Drop for ReadRegistration {
    fn drop(&mut self) {
        let mut caches = self.shared.caches();
        let running = caches.reads.get(&self.key);
        if running.is_some_and(|running| running.number == self.number) {
            caches.reads.remove(&self.key);
        }
    }
}

impl ImageReader {
    /// A reader with empty caches. Fails if the process cannot use TLS.
    pub fn new(settings: ImageReaderSettings) -> reqwest::Result<Self> {
        let ImageReaderSettings {
            guard,
            tokens,
            timeout,
        } = settings;
        let shared = SharedReader {
            connector: RegistryConnector::new(guard, tokens)?,
            timeout: timeout.unwrap_or(READ),
            reads: Semaphore::new(READS),
            downloads: Semaphore::new(DOWNLOADS),
            caches: Mutex::new(ImageCaches::new()),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Reads the configuration of an image, as [`read_for`](Self::read_for) does, for no namespace.
    pub async fn read(&self, reference: &ImageReference, access: &ImageAccess) -> ReadResult {
        self.read_for("", reference, access).await
    }

    /// Reads the configuration of an image for a pod in `namespace`. Call it from a task of its own, or with others at
    /// the same time: it takes as long as the registry, up to the timeout, after up to two minutes for its turn. The read
    /// ends when the last caller has gone.
    pub async fn read_for(
        &self,
        namespace: &str,
        reference: &ImageReference,
        access: &ImageAccess,
    ) -> ReadResult {
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
            let key = (namespace.to_owned(), key);
            let running = caches.reads.get(&key);
            match running.and_then(|running| running.read.upgrade()) {
                Some(read) => read,
                None => self.start(&mut caches, key, reference.clone(), access.clone()),
            }
        };
        read.await
    }

    /// A read that its callers share.
    fn start(
        &self,
        caches: &mut ImageCaches,
        key: (String, ReadKey),
        reference: ImageReference,
        access: ImageAccess,
    ) -> Shared<ReadFuture> {
        caches.started += 1;
        let number = caches.started;
        let permits = limit(&mut caches.namespace_permits, &key.0, READS_PER_NAMESPACE);
        let pair = format!("{}/{}", key.0, key.1.registry);
        let pair_permits = limit(&mut caches.pair_permits, &pair, READS_PER_REGISTRY);
        let registration = ReadRegistration {
            shared: self.shared.clone(),
            key: key.clone(),
            number,
        };
        let read = async move {
            // Later callers start again, or find what this read has remembered.
            let ReadRegistration { shared, key, .. } = &registration;
            let turn = async { (pair_permits.acquire().await, permits.acquire().await) };
            let Ok(_turn) = tokio::time::timeout(QUEUED, turn).await else {
                return Err(no_turn(&key.1));
            };
            shared.read(&key.1, &reference, &access).await
        };
        let shared = read.boxed().shared();
        if let Some(read) = shared.downgrade() {
            caches.reads.insert(key, RunningRead { number, read });
        }
        shared
    }
}

/// The error of a read that has waited too long for others.
fn no_turn(key: &ReadKey) -> ImageReadError {
    ImageReadError::Unreachable {
        registry: key.registry.clone(),
        why: "other reads are under way, which take long".to_owned(),
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
        let session = RegistrySession::new(&self.connector, reference, access)?;
        // Several names are one host: `docker.io` and its API, and `a.io` and `a.io:443`.
        let host = authority(&session.base);
        let permits = {
            let mut caches = self.caches();
            limit(&mut caches.registry_permits, &host, READS_PER_REGISTRY)
        };
        let turn = async { (permits.acquire().await, self.reads.acquire().await) };
        let Ok(_turn) = tokio::time::timeout(QUEUED, turn).await else {
            return Err(no_turn(key));
        };
        let paused = (host, key.access);
        let now = Instant::now();
        if let Some(until) = self.caches().pauses.get(&paused, now) {
            let (registry, wait) = (key.registry.clone(), until - now);
            return Err(ImageReadError::Throttled { registry, wait });
        }
        let request = self.request(key, reference, session);
        let result = tokio::time::timeout(self.timeout, request).await;
        let result = result.unwrap_or_else(|_| {
            Err(ImageReadError::Unreachable {
                registry: key.registry.clone(),
                why: format!("reading the image took longer than {:?}", self.timeout),
            })
        });
        if let Err(ImageReadError::Throttled { wait, .. }) = &result {
            let now = Instant::now();
            let until = now + (*wait).min(MAX_WAIT);
            self.caches().pauses.insert(paused, until, Some(until), now);
        }
        result
    }

    async fn request(
        &self,
        key: &ReadKey,
        reference: &ImageReference,
        mut session: RegistrySession<'_>,
    ) -> ReadResult {
        let head = session.head(&key.target).await?;
        if let ManifestHead::Digest(digest) = head {
            check_digest(reference, digest, &session)?;
            if let Some(known) = self.known(key, digest) {
                return Ok(known);
            }
        }
        // Held as long as a body is.
        let _permit = self.downloads.acquire().await;
        let (digest, sent) = match head {
            ManifestHead::Digest(digest) => (digest, None),
            ManifestHead::Unknown => {
                let sent = session.manifest(&key.target).await?;
                (ImageDigest::of(&sent.body), Some(sent))
            }
        };
        check_digest(reference, digest, &session)?;
        if let Some(known) = self.known(key, digest) {
            return Ok(known);
        }
        let read = fetch(&mut session, digest, sent).await?;
        let mut caches = self.caches();
        caches.remember(key, &read, Instant::now());
        Ok(read)
    }

    fn known(&self, key: &ReadKey, digest: ImageDigest) -> Option<ImageRead> {
        self.caches().known_content(key, digest, Instant::now())
    }
}

/// Checks that a reference by digest leads to that digest.
fn check_digest(
    reference: &ImageReference,
    digest: ImageDigest,
    session: &RegistrySession<'_>,
) -> Result<(), ImageReadError> {
    match reference.digest() {
        Some(wanted) if wanted != digest => {
            Err(session.corrupt(format!("{digest} in place of {wanted}")))
        }
        _ => Ok(()),
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

//! The container registry of `target/controlplane` as a process, its tenants, and images in it.
//!
//! In: images, as JSON. Out: references to them, and the requests that a client has sent. All tests share one process,
//! each as a tenant of its own. The process ends when its standard input closes: at the latest with this one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    missing_docs,
    reason = "the names say it, as in the other files of tests"
)]

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use burstpool::aci::image::{
    ImageAccess, ImageDigest, ImageRead, ImageReadError, ImageReader, ImageReaderSettings,
    ImageReference, RegistryHostGuard, RegistryLogin,
};
use burstpool::aci::translate::secret_string::SecretString;
use futures::FutureExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::optional::skipped;

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Where the registry listens.
#[derive(Clone, Debug, Deserialize)]
pub struct Addresses {
    pub front: String,
    pub storage: String,
    pub raw: String,
}

struct Process {
    addresses: Addresses,
    /// Holds the pipe that keeps the process alive.
    _child: Child,
}

/// A request that the registry has received.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub query: String,
    pub host: String,
    /// The scheme of the header.
    #[serde(default)]
    pub authorization: String,
    pub status: u16,
}

/// The part of the registry that belongs to one test.
pub struct Tenant {
    pub name: String,
    pub addresses: Addresses,
    http: reqwest::Client,
}

/// An image that was pushed.
pub struct Pushed {
    pub digest: ImageDigest,
    pub size: usize,
}

async fn start() -> Option<Process> {
    let binary = std::env::var_os("BURSTPOOL_CONTROLPLANE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/controlplane"),
        Into::into,
    );
    if !binary.is_file() {
        return None;
    }
    let mut child = Command::new(binary)
        .arg("registry")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the registry starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
    let line = line.expect("in time").expect("readable");
    let line = line.expect("one line: `make controlplane` builds a version with a registry");
    let addresses = serde_json::from_str(&line).expect("its addresses");
    Some(Process {
        addresses,
        _child: child,
    })
}

impl Tenant {
    /// A new tenant; `None`, and reported, if the registry is not built.
    pub async fn new(name: &str) -> Option<Self> {
        static PROCESS: OnceCell<Option<Process>> = OnceCell::const_new();
        let Some(process) = PROCESS.get_or_init(start).await else {
            skipped("target/controlplane", "make controlplane");
            return None;
        };
        Some(Self {
            name: name.to_owned(),
            addresses: process.addresses.clone(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        })
    }

    /// `host:port` of the registry.
    pub fn host(&self) -> &str {
        host(&self.addresses.front)
    }

    /// Sets what the registry demands and which faults it makes.
    pub async fn set(&self, settings: Value) {
        let url = format!("{}/tenants/{}", self.addresses.raw, self.name);
        let answer = self.http.put(url).json(&settings).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    /// All requests of this tenant.
    pub async fn requests(&self) -> Vec<Request> {
        let url = format!("{}/tenants/{}", self.addresses.raw, self.name);
        self.http
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    /// All requests of this tenant, as method and the last two parts of the path with digests shortened.
    pub async fn lines(&self) -> Vec<String> {
        let requests = self.requests().await;
        let lines = requests.iter().map(|request| {
            let mut parts = request.path.rsplitn(3, '/');
            let (last, kind) = (parts.next().unwrap(), parts.next().unwrap());
            let last = if last.starts_with("sha256:") {
                "DIGEST"
            } else {
                last
            };
            format!("{} {kind}/{last} {}", request.method, request.status)
        });
        lines.collect()
    }

    pub fn repository(&self) -> String {
        format!("{}/app", self.name)
    }

    pub fn image(&self, suffix: &str) -> ImageReference {
        let image = format!("{}/{}{suffix}", self.host(), self.repository());
        ImageReference::parse("spec.containers[0].image", &image).unwrap()
    }

    /// A reader that may ask this registry and its storage, and takes both for tests' hosts.
    pub fn reader(&self) -> ImageReader {
        self.reader_with(self.guard(), Duration::from_secs(20))
    }

    pub fn guard(&self) -> RegistryHostGuard {
        let local = [self.host(), host(&self.addresses.storage)];
        RegistryHostGuard::for_tests(local, [self.host()])
    }

    pub fn reader_with(&self, guard: RegistryHostGuard, timeout: Duration) -> ImageReader {
        let token = format!("entra-{}", self.name);
        ImageReader::new(ImageReaderSettings {
            guard,
            tokens: Arc::new(move || {
                let token = SecretString::new(token.clone());
                async move { Ok(token) }.boxed()
            }),
            timeout: Some(timeout),
        })
        .unwrap()
    }

    pub async fn push_blob(&self, content: &[u8]) -> Pushed {
        let digest = ImageDigest::of(content);
        let url = format!(
            "{}/v2/{}/blobs/uploads/?digest={digest}",
            self.addresses.raw,
            self.repository()
        );
        let answer = self
            .http
            .post(url)
            .body(content.to_vec())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        Pushed {
            digest,
            size: content.len(),
        }
    }

    pub async fn push_manifest(
        &self,
        reference: &str,
        media_type: &str,
        manifest: &Value,
    ) -> Pushed {
        let body = manifest.to_string().into_bytes();
        let url = format!(
            "{}/v2/{}/manifests/{reference}",
            self.addresses.raw,
            self.repository()
        );
        let request = self.http.put(url).header("content-type", media_type);
        let answer = request.body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        Pushed {
            digest: ImageDigest::of(&body),
            size: body.len(),
        }
    }

    /// Pushes an image with one layer. `config` is the configuration's part `config`.
    pub async fn push_image(
        &self,
        reference: &str,
        platform: (&str, &str),
        config: Value,
    ) -> Pushed {
        let layer = layer();
        let diff = ImageDigest::of(&layer);
        let layer = self.push_blob(&layer).await;
        let (os, architecture) = platform;
        let config = json!({
            "os": os, "architecture": architecture, "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff.to_string()]},
        });
        let config = self.push_blob(config.to_string().as_bytes()).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config.digest.to_string(), "size": config.size},
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer.digest.to_string(), "size": layer.size,
            }],
        });
        self.push_manifest(reference, MANIFEST, &manifest).await
    }

    /// Pushes an image that is the same for a container runtime as any: an index with the given program for
    /// linux/amd64, another for arm64, and an attestation.
    pub async fn push(&self, tag: &str, program: &str) -> Pushed {
        let config = |program: &str| json!({"Entrypoint": [program], "Cmd": ["serve"], "User": "65532:65532"});
        let amd64 = self
            .push_image("amd64", ("linux", "amd64"), config(program))
            .await;
        let arm64 = self
            .push_image("arm64", ("linux", "arm64"), config("/arm"))
            .await;
        let attestation = self
            .push_image("attestation", ("unknown", "unknown"), json!({}))
            .await;
        let entry = |pushed: &Pushed, os: &str, architecture: &str| {
            json!({
                "mediaType": MANIFEST, "digest": pushed.digest.to_string(), "size": pushed.size,
                "platform": {"os": os, "architecture": architecture},
            })
        };
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            entry(&arm64, "linux", "arm64"),
            entry(&attestation, "unknown", "unknown"),
            entry(&amd64, "linux", "amd64"),
        ]});
        self.push_manifest(tag, INDEX, &index).await
    }
}

/// A layer with one file, as an archive of tar.
fn layer() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let content = b"hello";
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    archive
        .append_data(&mut header, "hello", &content[..])
        .unwrap();
    archive.into_inner().unwrap()
}

/// `host:port` of a URL without a path.
pub fn host(url: &str) -> &str {
    url.trim_start_matches("http://")
}

pub fn login(username: &str, password: &str) -> ImageAccess {
    ImageAccess::Login(RegistryLogin {
        username: username.to_owned(),
        password: SecretString::new(password),
    })
}

/// The program of an image that was read.
pub fn program(read: &Result<ImageRead, ImageReadError>) -> &str {
    match read {
        Ok(read) => &read.config.entrypoint[0],
        Err(error) => panic!("{error:?}"),
    }
}

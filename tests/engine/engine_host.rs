//! The container engine of these tests: one that already runs, or podman's own service, started while
//! tests need it; and the image of the tests' containers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListContainersOptionsBuilder};
use futures::TryStreamExt as _;
use parking_lot::Mutex;

use crate::support::skipped;

/// The image: Debian's static busybox with a link for each of its applets.
pub const IMAGE: &str = "localhost/burstpool-test/busybox:1";
/// podman's settings for machines where its defaults fail: a runtime that supports every cgroup layout,
/// and ulimits that a container may set.
const CONFIGURATION: &str = "[engine]\nruntime = \"runc\"\n[containers]\n\
                             default_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n";
/// The label of all containers that emulators create.
const OWNER: &str = "burstpool.aci-emulator.owner";

/// A running engine.
pub struct Host {
    pub socket: PathBuf,
    docker: Docker,
    _service: Option<Service>,
}

/// The engine that concurrent tests share. The last test ends it.
static HOST: tokio::sync::Mutex<Weak<Host>> = tokio::sync::Mutex::const_new(Weak::new());

impl Host {
    /// The engine. If there is none, reports the test as skipped and returns `None`, or fails if one is
    /// required.
    pub async fn get() -> Option<Arc<Self>> {
        let mut shared = HOST.lock().await;
        if let Some(host) = shared.upgrade() {
            return Some(host);
        }
        match Self::find().await {
            Ok(host) => {
                let host = Arc::new(host);
                *shared = Arc::downgrade(&host);
                Some(host)
            }
            Err(why) => {
                skipped("a container engine that answers", &why);
                None
            }
        }
    }

    /// A client of the engine.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// The engine's command line: podman's, unless Docker listens.
    pub fn command(&self) -> String {
        let socket = self.socket.display();
        if self.socket.to_string_lossy().contains("podman") {
            "podman".to_owned()
        } else {
            format!("docker --host unix://{socket}")
        }
    }

    async fn find() -> Result<Self, String> {
        let usual = std::env::var("DOCKER_HOST").ok();
        let usual = usual
            .as_deref()
            .and_then(|host| host.strip_prefix("unix://"));
        let sockets = [
            usual.unwrap_or("/var/run/docker.sock"),
            "/run/podman/podman.sock",
        ];
        for socket in sockets.map(PathBuf::from) {
            if let Ok(docker) = connect(&socket).await {
                return Self::prepared(socket, docker, None).await;
            }
        }
        let service = Service::start()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match connect(&service.socket).await {
                Ok(docker) => {
                    return Self::prepared(service.socket.clone(), docker, Some(service)).await;
                }
                Err(why) if Instant::now() > deadline => return Err(format!("podman: {why}")),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn prepared(
        socket: PathBuf,
        docker: Docker,
        service: Option<Service>,
    ) -> Result<Self, String> {
        let host = Self {
            socket,
            docker,
            _service: service,
        };
        host.import(IMAGE, None).await?;
        Ok(host)
    }

    /// Creates an image of this name with busybox, unless it exists. It runs `command` unless a
    /// container says otherwise.
    pub async fn import(&self, name: &str, command: Option<&str>) -> Result<(), String> {
        if self.docker.inspect_image(name).await.is_ok() {
            return Ok(());
        }
        let changes = command.map(|command| format!("CMD {command}"));
        let options = CreateImageOptionsBuilder::new()
            .from_src("-")
            .repo(name)
            .changes(changes.into_iter().collect())
            .build();
        let root = bollard::body_full(busybox()?.into());
        let imported = self.docker.create_image(Some(options), Some(root), None);
        imported
            .try_for_each(|_| async { Ok(()) })
            .await
            .map_err(|why| why.to_string())
    }

    /// The names and labels of all emulators' containers whose names contain `part`.
    pub async fn containers(&self, part: &str) -> HashMap<String, HashMap<String, String>> {
        let filters = HashMap::from([("label", vec![OWNER])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        // podman calls a container `stopped` for a moment after its end, a state that this client does
        // not know.
        let listed = async {
            loop {
                match self.docker.list_containers(Some(options.clone())).await {
                    Ok(all) => return all,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let listed = tokio::time::timeout(Duration::from_secs(20), listed).await;
        let all = listed.expect("containers are listed");
        all.into_iter()
            .filter_map(|c| Some((c.names?.first()?.clone(), c.labels?)))
            .filter(|(name, _)| name.contains(part))
            .collect()
    }
}

async fn connect(socket: &Path) -> Result<Docker, String> {
    let docker =
        Docker::connect_with_unix(&socket.to_string_lossy(), 60, bollard::API_DEFAULT_VERSION);
    let docker = docker.map_err(|why| why.to_string())?;
    docker.ping().await.map_err(|why| why.to_string())?;
    Ok(docker)
}

/// podman's service on a socket of its own.
struct Service {
    socket: PathBuf,
    child: Mutex<Child>,
    _directory: tempfile::TempDir,
}

impl Service {
    fn start() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|why| why.to_string())?;
        let (socket, configuration) = (
            directory.path().join("podman.sock"),
            directory.path().join("containers.conf"),
        );
        std::fs::write(&configuration, CONFIGURATION).map_err(|why| why.to_string())?;
        let child = Command::new("podman")
            // If this process is killed, the service ends after 60 s without requests.
            .args(["system", "service", "--time=60"])
            .arg(format!("unix://{}", socket.display()))
            .env("CONTAINERS_CONF", configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|why| format!("podman: {why}"))?;
        Ok(Self {
            socket,
            child: Mutex::new(child),
            _directory: directory,
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        // Ignore errors: it may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A tar archive of a root file system with busybox.
fn busybox() -> Result<Vec<u8>, String> {
    let said = |why: std::io::Error| format!("/bin/busybox (package busybox-static): {why}");
    let program = std::fs::read("/bin/busybox").map_err(said)?;
    let listed = Command::new("/bin/busybox")
        .arg("--list")
        .output()
        .map_err(said)?;
    let applets = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content)
    };
    add("bin/", tar::EntryType::Directory, 0o755, &[]).map_err(said)?;
    add("tmp/", tar::EntryType::Directory, 0o1777, &[]).map_err(said)?;
    add(
        "etc/passwd",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:0:root:/:/bin/sh\n",
    )
    .map_err(said)?;
    add("bin/busybox", tar::EntryType::Regular, 0o755, &program).map_err(said)?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        archive
            .append_link(&mut header, format!("bin/{applet}"), "busybox")
            .map_err(said)?;
    }
    archive.into_inner().map_err(said)
}

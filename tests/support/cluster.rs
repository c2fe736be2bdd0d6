//! A real Kubernetes cluster on loopback: etcd, API server, scheduler, controller manager, kwok.
//!
//! In: [`Options`] and the control plane binary. Out: clients, a kubeconfig, kubectl, and functions
//! that stop and start components. Tests share one cluster ([`Cluster::shared`]), each as its own
//! tenant (`tenant.rs`). A test that stops components, or that counts all nodes, starts its own
//! cluster.
//!
//! Nothing outlives the cluster: its processes end and its directory is removed on drop, and when this
//! process ends in any way (`cluster/supervisor.rs`). Statics are never dropped, so the shared cluster
//! always ends with the process.

mod certificates;
mod components;
mod logs;
mod metrics;
mod ports;
mod supervisor;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use http::Request;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{sync::OnceCell, time};
use uuid::Uuid;

pub use self::components::Component;
use self::{certificates as pki, components::Site, ports::Ports, supervisor::Supervisor};
use crate::support::{Error, wait};

/// Timeout for a part of the cluster to become ready. Long, for a machine under load.
const DEADLINE: Duration = Duration::from_mins(1);
/// Timeout of a kubectl command, after which it prints its goroutines' stacks. No test needs kubectl
/// for longer than a few minutes.
const KUBECTL_DEADLINE: &str = "5m";
/// How many starts are tried if another process takes a port.
const ATTEMPTS: usize = 3;

/// Differences from the default cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Runs metrics-server, and serves `metrics.k8s.io` through the API server.
    pub metrics_server: bool,
    /// Additional flags of the API server.
    pub api_server: &'static [&'static str],
    /// Additional flags of the controller manager.
    pub controller_manager: &'static [&'static str],
}

/// A running cluster.
pub struct Cluster {
    binary: PathBuf,
    site: Site,
    config: Config,
    supervisor: Supervisor,
}

impl Cluster {
    /// The cluster that all tests of this binary share. The first caller starts it.
    #[expect(clippy::panic, reason = "a test without its cluster has failed")]
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Result<Cluster, Error>> = OnceCell::const_new();
        match SHARED.get_or_init(|| Self::start(Options::default())).await {
            Ok(cluster) => cluster,
            Err(error) => panic!("starting the shared cluster: {error}"),
        }
    }

    /// Starts a cluster and waits until it is ready.
    pub async fn start(options: Options) -> Result<Self, Error> {
        for _ in 1..ATTEMPTS {
            match Self::attempt(options).await {
                Err(error) if error.port_was_taken() => {}
                outcome => return outcome,
            }
        }
        Self::attempt(options).await
    }

    async fn attempt(options: Options) -> Result<Self, Error> {
        let binary = binary()?;
        let supervisor = Supervisor::start(&binary).await?;
        let site = Site {
            directory: supervisor.directory().to_owned(),
            ports: Ports::free()?,
            token: Uuid::new_v4().to_string(),
        };
        write_files(&site)?;
        let config = config(site.kubeconfig_text(pki::ADMIN)).await?;
        let cluster = Self {
            binary,
            site,
            config,
            supervisor,
        };
        tokio::select! {
            ready = cluster.bring_up(options) => ready?,
            death = cluster.supervisor.death() => {
                let supervisor::Death { component, status, log } = death;
                return Err(Error::Died { component, status, log });
            }
        }
        logs::show_on_panic(&cluster.site.directory);
        Ok(cluster)
    }

    async fn bring_up(&self, options: Options) -> Result<(), Error> {
        self.launch(Component::Etcd, &[]).await?;
        self.launch(Component::ApiServer, options.api_server)
            .await?;
        self.healthy(Component::ApiServer, self.site.ports.api_server)
            .await?;
        // These components exit at once if the API server does not answer yet.
        self.launch(Component::ControllerManager, options.controller_manager)
            .await?;
        self.launch(Component::Scheduler, &[]).await?;
        self.launch(Component::Kwok, &[]).await?;
        if options.metrics_server {
            self.launch(Component::MetricsServer, &[]).await?;
        }
        tokio::try_join!(
            self.healthy(Component::Scheduler, self.site.ports.scheduler),
            self.healthy(
                Component::ControllerManager,
                self.site.ports.controller_manager
            ),
            self.default_account("default"),
        )?;
        if options.metrics_server {
            metrics::register(self.client()?, &self.site).await?;
        }
        Ok(())
    }

    /// A client of the administrator, on the caller's runtime.
    ///
    /// Create one in every test: a client's connections live on the runtime that created them.
    pub fn client(&self) -> Result<Client, Error> {
        Ok(Client::try_from(self.config())?)
    }

    /// A copy of the administrator's configuration.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// A configuration of another user. `user` is the user entry of a kubeconfig, for example
    /// `{"token": ...}`; empty for an anonymous caller.
    pub async fn config_of(&self, user: &Value) -> Result<Config, Error> {
        config(self.site.kubeconfig_for(user)).await
    }

    /// The same as a kubeconfig file in the cluster's directory.
    pub fn kubeconfig_of(&self, name: &str, user: &Value) -> Result<PathBuf, Error> {
        let path = self.site.kubeconfig(name);
        fs::write(&path, self.site.kubeconfig_for(user).to_string())
            .map_err(Error::io("writing a kubeconfig"))?;
        Ok(path)
    }

    /// The administrator's bearer token, for clients that cannot send a certificate.
    pub fn token(&self) -> &str {
        &self.site.token
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.site.kubeconfig(pki::ADMIN)
    }

    /// The PEM file of the CA that signs this cluster's client and server certificates.
    pub fn certificate_authority(&self) -> PathBuf {
        self.site.directory.join(format!("{}.crt", pki::CA))
    }

    /// A kubectl command of the API server's version, as the administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("kubectl")
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECTL_DEADLINE", KUBECTL_DEADLINE)
            .env("KUBERC", "off")
            .env("HOME", self.site.directory.join("tmp")); // for its cache
        command
    }

    /// The directory of all the cluster's files.
    pub fn directory(&self) -> &Path {
        &self.site.directory
    }

    /// The process ids of the supervisor and of the running components, by name.
    pub fn processes(&self) -> BTreeMap<String, u32> {
        self.supervisor.processes()
    }

    /// The last lines of the components' logs.
    pub fn logs(&self) -> String {
        logs::tails(&self.site.directory)
    }

    /// Sends SIGTERM to a component, and waits until it has ended.
    pub async fn stop(&self, component: Component) -> Result<(), Error> {
        self.supervisor.stop_component(component.name()).await
    }

    /// Sends SIGKILL to a component, and waits until it has ended.
    pub async fn kill(&self, component: Component) -> Result<(), Error> {
        self.supervisor.kill_component(component.name()).await
    }

    /// Starts a component again with the same arguments, and waits until it is ready. etcd and kwok
    /// have no health endpoint: their clients retry until they are ready.
    pub async fn restart(&self, component: Component) -> Result<(), Error> {
        self.supervisor
            .start_component(component.name(), None)
            .await?;
        let Ports {
            api_server,
            scheduler,
            controller_manager,
            metrics_server,
            ..
        } = self.site.ports;
        match component {
            Component::Etcd | Component::Kwok => Ok(()),
            Component::ApiServer => self.healthy(component, api_server).await,
            Component::Scheduler => self.healthy(component, scheduler).await,
            Component::ControllerManager => self.healthy(component, controller_manager).await,
            Component::MetricsServer => self.healthy(component, metrics_server).await,
        }
    }

    /// Creates a namespace, and waits for its default service account.
    pub async fn namespace(&self, name: &str) -> Result<(), Error> {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        Api::all(self.client()?)
            .create(&PostParams::default(), &namespace)
            .await?;
        self.default_account(name).await
    }

    /// Installs burstpool's resource, and waits until the API server serves it. That is a moment after
    /// it is established, and no watch shows it, so this polls.
    pub async fn install_crds(&self) -> Result<(), Error> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/burstpools.yaml");
        let applied = self
            .kubectl()
            .args(["apply", "--server-side", "-f", file])
            .output();
        let applied = applied.map_err(Error::io("running kubectl"))?;
        let (client, mut again) = (self.client()?, time::interval(Duration::from_millis(20)));
        let path = "/apis/burstpool.io/v1alpha1/burstpools";
        let asking = async {
            loop {
                again.tick().await;
                let request = Request::get(path).body(Vec::new());
                let request = request.expect("a path is a valid URI");
                if client.request_text(request).await.is_ok() {
                    return;
                }
            }
        };
        let asked = time::timeout(DEADLINE, asking).await;
        asked.map_err(|_| Error::NotReady {
            what: "BurstPools to be served".to_owned(),
            after: DEADLINE,
            seen: String::from_utf8_lossy(&applied.stderr).into_owned(),
            logs: self.logs(),
        })
    }

    async fn default_account(&self, namespace: &str) -> Result<(), Error> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client()?, namespace);
        let what = format!("the default service account of {namespace}");
        wait::until(accounts, "default", &what, |account| account.is_some()).await
    }

    async fn launch(&self, component: Component, more: &[&str]) -> Result<(), Error> {
        let mut args = self.site.arguments(component);
        args.extend(more.iter().map(|flag| (*flag).to_owned()));
        self.supervisor
            .start_component(component.name(), Some(&args))
            .await
    }

    /// Waits until the component reports that it is ready. A process that does not listen yet has no
    /// watch, so this polls.
    async fn healthy(&self, component: Component, port: u16) -> Result<(), Error> {
        let mut config = self.config();
        config.cluster_url = format!("https://127.0.0.1:{port}").parse().expect("a URL");
        config.default_retry = false;
        let client = Client::try_from(config)?;
        let mut seen = "not asked yet".to_owned();
        let asking = async {
            let mut again = time::interval(Duration::from_millis(20));
            loop {
                again.tick().await;
                let request = Request::get(component.health()).body(Vec::new());
                match client
                    .request_text(request.expect("a path is a valid URI"))
                    .await
                {
                    Ok(_) => return,
                    Err(error) => seen = error.to_string(),
                }
            }
        };
        let asked = time::timeout(DEADLINE, asking).await;
        asked.map_err(|_| Error::NotReady {
            what: format!("{} to be ready", component.name()),
            after: DEADLINE,
            seen,
            logs: self.logs(),
        })
    }
}

/// The control plane: `BURSTPOOL_CONTROLPLANE`, or the output of `make controlplane`.
fn binary() -> Result<PathBuf, Error> {
    let path = env::var_os("BURSTPOOL_CONTROLPLANE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/controlplane"),
        PathBuf::from,
    );
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::NotBuilt { path })
    }
}

/// Writes the files that the components read.
fn write_files(site: &Site) -> Result<(), Error> {
    pki::write(&site.directory)?;
    let mut files = vec![(site.directory.join(components::TOKENS), site.tokens_text())];
    for user in [pki::ADMIN, pki::SCHEDULER, pki::CONTROLLER_MANAGER] {
        files.push((
            site.kubeconfig(user),
            site.kubeconfig_text(user).to_string(),
        ));
    }
    for (path, text) in files {
        fs::write(&path, text).map_err(Error::io(format!("writing {}", path.display())))?;
    }
    Ok(())
}

async fn config(kubeconfig: Value) -> Result<Config, Error> {
    let kubeconfig: Kubeconfig =
        serde_json::from_value(kubeconfig).expect("Site writes what kubeconfigs have");
    Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}

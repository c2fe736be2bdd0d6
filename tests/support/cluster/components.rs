//! The arguments of every component.
//!
//! In: the cluster's directory and ports. Out: names, arguments and kubeconfigs. Pure. The flags are
//! those of a production cluster: Node and RBAC authorizers, the service account admission, a
//! controller manager with one service account per controller.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{certificates as pki, ports::Ports};

/// The API server's file of bearer tokens.
pub const TOKENS: &str = "tokens.csv";

/// A part of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// etcd.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-scheduler.
    Scheduler,
    /// kube-controller-manager.
    ControllerManager,
    /// kwok, which plays the kubelets of home nodes.
    Kwok,
    /// metrics-server.
    MetricsServer,
}

impl Component {
    /// Its name for the control plane binary and the supervisor.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::Scheduler => "kube-scheduler",
            Self::ControllerManager => "kube-controller-manager",
            Self::Kwok => "kwok",
            Self::MetricsServer => "metrics-server",
        }
    }

    /// Its readiness endpoint. The controller manager only has a health endpoint, which succeeds after
    /// it has started its controllers.
    pub fn health(self) -> &'static str {
        if self == Self::ControllerManager {
            "/healthz"
        } else {
            "/readyz"
        }
    }
}

/// A cluster's directory and ports.
pub struct Site {
    /// Its directory.
    pub directory: PathBuf,
    /// Its ports.
    pub ports: Ports,
    /// The administrator's bearer token, for clients that cannot send a certificate.
    pub token: String,
}

impl Site {
    /// The API server's address.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api_server)
    }

    /// The kubeconfig file for a client certificate.
    pub fn kubeconfig(&self, certificate: &str) -> PathBuf {
        self.directory.join(format!("{certificate}.kubeconfig"))
    }

    /// The text of that kubeconfig (JSON is valid YAML).
    pub fn kubeconfig_text(&self, certificate: &str) -> Value {
        self.kubeconfig_for(&json!({
            "client-certificate": self.path(&format!("{certificate}.crt")),
            "client-key": self.path(&format!("{certificate}.key")),
        }))
    }

    /// The text of the token file for the API server.
    pub fn tokens_text(&self) -> String {
        format!("{},admin,admin,system:masters\n", self.token)
    }

    /// A kubeconfig with these credentials.
    pub fn kubeconfig_for(&self, user: &Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": self.url(),
                "certificate-authority": self.path(&format!("{}.crt", pki::CA)),
            }}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        })
    }

    /// The arguments of a component.
    pub fn arguments(&self, component: Component) -> Vec<String> {
        match component {
            Component::Etcd => self.etcd(),
            Component::ApiServer => self.api_server(),
            Component::Scheduler => self.scheduler(),
            Component::ControllerManager => self.controller_manager(),
            Component::Kwok => self.kwok(),
            Component::MetricsServer => self.metrics_server(),
        }
    }

    fn etcd(&self) -> Vec<String> {
        let Ports {
            etcd, etcd_peers, ..
        } = self.ports;
        vec![
            format!("--data-dir={}", self.path("etcd")),
            format!("--listen-client-urls=http://127.0.0.1:{etcd}"),
            format!("--advertise-client-urls=http://127.0.0.1:{etcd}"),
            format!("--listen-peer-urls=http://127.0.0.1:{etcd_peers}"),
            "--log-level=warn".to_owned(),
            "--unsafe-no-fsync".to_owned(), // the data may be lost with the machine
        ]
    }

    fn api_server(&self) -> Vec<String> {
        let mut args = self.serves(self.ports.api_server);
        args.extend([
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(), // endpoints must not be loopback
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--allow-privileged".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            self.file("client-ca-file", pki::CA, "crt"),
            format!("--token-auth-file={}", self.path(TOKENS)),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            self.file("service-account-key-file", pki::SERVICE_ACCOUNTS, "pub"),
            self.file(
                "service-account-signing-key-file",
                pki::SERVICE_ACCOUNTS,
                "key",
            ),
            self.file("kubelet-client-certificate", pki::KUBELET_CLIENT, "crt"),
            self.file("kubelet-client-key", pki::KUBELET_CLIENT, "key"),
            self.file("requestheader-client-ca-file", pki::FRONT_PROXY_CA, "crt"),
            format!("--requestheader-allowed-names={}", pki::FRONT_PROXY),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            self.file("proxy-client-cert-file", pki::FRONT_PROXY, "crt"),
            self.file("proxy-client-key-file", pki::FRONT_PROXY, "key"),
        ]);
        args
    }

    fn scheduler(&self) -> Vec<String> {
        let mut args = self.serves(self.ports.scheduler);
        args.extend(self.delegates(pki::SCHEDULER));
        args.push("--leader-elect=false".to_owned());
        args
    }

    fn controller_manager(&self) -> Vec<String> {
        let mut args = self.serves(self.ports.controller_manager);
        args.extend(self.delegates(pki::CONTROLLER_MANAGER));
        args.extend([
            "--leader-elect=false".to_owned(),
            "--use-service-account-credentials".to_owned(),
            // It requests a token for each controller before it starts it. With the default of 20
            // requests per second, that alone would take five seconds.
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=500".to_owned(),
            self.file(
                "service-account-private-key-file",
                pki::SERVICE_ACCOUNTS,
                "key",
            ),
            self.file("root-ca-file", pki::CA, "crt"),
            self.file("cluster-signing-cert-file", pki::CA, "crt"),
            self.file("cluster-signing-key-file", pki::CA, "key"),
        ]);
        args
    }

    fn kwok(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", show(&self.kubeconfig(pki::ADMIN))),
            "--manage-nodes-with-label-selector=type=kwok".to_owned(),
            "--node-ip=127.0.0.1".to_owned(),
            // Without leases, kwok's nodes become NotReady after 50 s, and so do their pods.
            "--node-lease-duration-seconds=40".to_owned(),
            "--v=warn".to_owned(),
        ]
    }

    fn metrics_server(&self) -> Vec<String> {
        let mut args = self.serves(self.ports.metrics_server);
        args.extend(self.delegates(pki::ADMIN));
        args.extend([
            "--kubelet-insecure-tls".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--kubelet-use-node-status-port".to_owned(), // virtual nodes choose their ports
            "--metric-resolution=10s".to_owned(),        // the minimum
            "--kubelet-request-timeout=5s".to_owned(),   // must be shorter than that
        ]);
        args
    }

    fn serves(&self, port: u16) -> Vec<String> {
        vec![
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            self.file("tls-cert-file", pki::SERVING, "crt"),
            self.file("tls-private-key-file", pki::SERVING, "key"),
        ]
    }

    /// The flags for its client certificate, and for authentication and authorization by the API
    /// server.
    fn delegates(&self, certificate: &str) -> [String; 3] {
        let kubeconfig = show(&self.kubeconfig(certificate));
        [
            "kubeconfig",
            "authentication-kubeconfig",
            "authorization-kubeconfig",
        ]
        .map(|flag| format!("--{flag}={kubeconfig}"))
    }

    fn file(&self, flag: &str, name: &str, kind: &str) -> String {
        format!("--{flag}={}", self.path(&format!("{name}.{kind}")))
    }

    fn path(&self, name: &str) -> String {
        show(&self.directory.join(name))
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

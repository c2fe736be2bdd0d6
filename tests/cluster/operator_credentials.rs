//! The operator as a process with the credentials of Azure's platforms, and what only an end-to-end
//! test shows: a pod's file share behind a claim, its kube-proxy, and logs without any secret of
//! either.

use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use burstpool::api::BurstPool;
use burstpool::emulator::group::model::Properties;
use burstpool::emulator::{Emulator, EmulatorOptions as AzureOptions, TlsOptions};
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::support::{Cluster, Options, wait};

const SUBNET: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/n";
const KEY: &str = "SECRET-ACCOUNT-KEY";
const HEADER: &str = "SECRET-IDENTITY-HEADER";

/// A cluster, an Azure with TLS, and a directory for files.
struct World {
    cluster: Cluster,
    client: Client,
    azure: Emulator,
    files: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let cluster = Cluster::start(Options::default()).await.expect("a cluster");
        let client = cluster.client().expect("a client");
        let options = AzureOptions {
            speed: 20.0,
            tls: Some(TlsOptions::default()),
            ..AzureOptions::default()
        };
        let azure = Emulator::start(options).await.expect("the emulator starts");
        cluster
            .install_crds()
            .await
            .expect("the resource is served");
        let files = tempfile::tempdir().expect("a directory");
        Self {
            cluster,
            client,
            azure,
            files,
        }
    }

    /// Runs the operator with these environment variables as its credential.
    fn run(&self, credential: &[(&str, &str)]) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("a log");
        Command::new(env!("CARGO_BIN_EXE_burstpool"))
            .arg("run")
            .arg("--kubeconfig")
            .arg(self.cluster.kubeconfig())
            .args(["--arm-endpoint", self.azure.url(), "--arm-ca-file"])
            .arg(self.azure.ca_file().expect("it speaks TLS"))
            .args(["--subscription-id", "00000000-0000-0000-0000-000000000000"])
            .args(["--resource-group", "rg", "--node-address", "127.0.0.1"])
            .args([
                "--metrics-listen",
                "127.0.0.1:0",
                "--kubelet-listen",
                "127.0.0.1:0",
            ])
            .args(["--namespace", "burstpool"])
            .env("RUST_LOG", "trace")
            .envs(credential.iter().copied())
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .expect("the operator starts")
    }

    fn log(&self) -> std::path::PathBuf {
        self.files.path().join("log")
    }

    /// A service account token, as a cluster mounts it for workload identity.
    fn federated_token(&self) -> std::path::PathBuf {
        let expires = jiff::Timestamp::now().as_second() + 3600;
        let claims = URL_SAFE_NO_PAD.encode(json!({"exp": expires}).to_string());
        let path = self.files.path().join("federated");
        std::fs::write(&path, format!("e30.{claims}.SECRET-SIGNATURE")).expect("it is written");
        path
    }

    fn kubectl(&self, arguments: &[&str]) {
        let ran = self.cluster.kubectl().args(arguments).output();
        let ran = ran.expect("kubectl");
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }

    /// Creates a pool with one placement. Returns it when its node takes pods.
    async fn pool(&self, name: &str, placement: &Value) -> BurstPool {
        let mut whole = json!({"name": "weu", "region": "westeurope"});
        for (field, value) in placement.as_object().into_iter().flatten() {
            whole[field] = value.clone();
        }
        let pool: BurstPool = read(json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": name},
            "spec": {"azure": {}, "placements": [whole]},
        }));
        let pools: Api<BurstPool> = Api::all(self.client.clone());
        let made = pools.create(&PostParams::default(), &pool).await;
        made.expect("a pool");
        let open = |pool: Option<&BurstPool>| {
            let placements = pool?.status.as_ref()?.placements.first()?;
            placements.ready.then(|| pool.cloned())?
        };
        let waited = wait::get(pools, name, "the node to take pods", open).await;
        waited.unwrap_or_else(|error| unreachable!("{error}\n{}", self.tail()))
    }

    /// The last log lines of the operator itself.
    fn tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let own: Vec<&str> = text.lines().filter(|l| l.contains("burstpool::")).collect();
        own[own.len().saturating_sub(40)..].join("\n")
    }

    async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), "burstpool");
        let made = api.create(&PostParams::default(), &read(object)).await;
        made.expect("it is created");
    }

    /// Creates a pod with a claim whose volume the CSI driver created.
    async fn pod_with_a_claim(&self, pool: &str) {
        let size = json!({"storage": "1Gi"});
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let csi = json!({
            "driver": "file.csi.azure.com", "volumeHandle": "rg#shopfiles#files#",
            "nodeStageSecretRef": {"name": "key", "namespace": "burstpool"},
        });
        let volume = read(json!({"metadata": {"name": "files"}, "spec": {
            "capacity": size, "accessModes": ["ReadWriteMany"], "storageClassName": "", "csi": csi}}));
        let made = volumes.create(&PostParams::default(), &volume).await;
        made.expect("a volume");
        self.create::<PersistentVolumeClaim>(json!({"metadata": {"name": "files"}, "spec": {
            "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": "files", "resources": {"requests": size}}}))
        .await;
        self.create::<Pod>(json!({"metadata": {"name": "web"}, "spec": {
            "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
            "nodeSelector": {"burstpool.io/pool": pool},
            "containers": [{"name": "main", "image": "nginx", "volumeMounts": [{"name": "files", "mountPath": "/files"}]}],
            "volumes": [{"name": "files", "persistentVolumeClaim": {"claimName": "files"}}],
        }}))
        .await;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "burstpool");
        let waits = |pod: Option<&Pod>| {
            let status = pod.and_then(|pod| serde_json::to_string(&pod.status).ok());
            status.is_some_and(|status| {
                status.contains("Secret burstpool/key of PersistentVolume files does not exist")
            })
        };
        let waited = wait::until(pods.clone(), "web", "the pod to wait for the key", waits).await;
        waited.unwrap_or_else(|error| unreachable!("{error}\n{}", self.tail()));
        let data = json!({"azurestorageaccountname": "shopfiles", "azurestorageaccountkey": KEY});
        self.create::<Secret>(json!({"metadata": {"name": "key"}, "stringData": data}))
            .await;
        let running = |pod: Option<&Pod>| {
            let status = pod.and_then(|pod| pod.status.as_ref());
            status.is_some_and(|status| status.phase.as_deref() == Some("Running"))
        };
        let waited = wait::until(pods, "web", "the pod to run", running).await;
        waited.unwrap_or_else(|error| unreachable!("{error}\n{}", self.tail()));
    }

    /// The properties of the only group, secrets included.
    fn group(&self) -> Properties {
        let store = self.azure.shared().store();
        let mut groups = store.groups.values();
        let group = groups.next().expect("a group");
        assert!(groups.next().is_none(), "only one");
        group.body.properties.clone().expect("properties")
    }

    fn tokens(&self, kind: &str) -> bool {
        let text = self.azure.shared().counters.text();
        text.contains(&format!("operation=\"{kind}\",status=\"200\""))
    }

    /// A client with the kubeconfig that kube-proxy got, and the token in it.
    async fn kube_proxy(&self) -> (Client, String) {
        let group = self.group();
        let extensions = group.extensions.expect("extensions");
        let settings = extensions[0].properties.as_ref().expect("properties");
        let settings = settings.protected_settings.as_ref().expect("settings");
        let config = STANDARD.decode(settings["kubeConfig"].as_str().expect("a text"));
        let config: Value = serde_json::from_slice(&config.expect("base64")).expect("JSON");
        let token = config["users"][0]["user"]["token"].as_str();
        let token = token.expect("a token").to_owned();
        let config: Kubeconfig = read(config);
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(config, &options).await;
        let client = Client::try_from(config.expect("a configuration"));
        (client.expect("a client"), token)
    }

    async fn review<K>(&self, review: Value) -> Value
    where
        K: kube::Resource<Scope = kube::core::ClusterResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + DeserializeOwned,
    {
        let reviews: Api<K> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &read(review)).await;
        serde_json::to_value(answer.expect("an answer")).expect("JSON")["status"].clone()
    }

    /// Whether a service account of the namespace may do this.
    async fn may(&self, account: &str, attributes: Value) -> bool {
        let user = format!("system:serviceaccount:burstpool:{account}");
        let spec = json!({"user": user, "resourceAttributes": attributes});
        let answer = self.review::<SubjectAccessReview>(json!({"spec": spec}));
        answer.await["allowed"] == json!(true)
    }
}

fn read<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object")
}

async fn lists<K>(client: &Client) -> bool
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    match api.list(&ListParams::default()).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 403, "{status}");
            false
        }
        Err(error) => unreachable!("{error}"),
    }
}

#[tokio::test]
async fn a_pod_gets_its_share_and_its_kube_proxy_and_no_log_shows_a_secret_of_them() {
    let world = World::start().await;
    world.kubectl(&["create", "namespace", "burstpool"]);
    let kube_proxy = concat!(env!("CARGO_MANIFEST_DIR"), "/config/kube-proxy");
    world.kubectl(&["apply", "-k", kube_proxy]);
    let federated = world.federated_token();
    let mut operator = world.run(&[
        ("AZURE_AUTHORITY_HOST", world.azure.url()),
        ("AZURE_TENANT_ID", "11111111-1111-1111-1111-111111111111"),
        ("AZURE_CLIENT_ID", "22222222-2222-2222-2222-222222222222"),
        (
            "AZURE_FEDERATED_TOKEN_FILE",
            federated.to_str().expect("plain"),
        ),
    ]);
    let placement = json!({"subnetId": SUBNET, "network": {"kubeProxy": true}});
    let pool = world.pool("shop", &placement).await;
    assert!(world.tokens("Token_Assertion"));
    let status = pool.status.expect("a status");
    let message = &status.placements[0].message;
    assert!(
        message.contains("ClusterFirst") && message.contains("network.dns"),
        "{message}"
    );

    Box::pin(world.pod_with_a_claim("shop")).await;
    let group = world.group();
    let share = group.volumes()[0].azure_file.as_ref().expect("a share");
    assert_eq!(share.share_name.as_deref(), Some("files"));
    assert_eq!(share.storage_account_name.as_deref(), Some("shopfiles"));
    assert_eq!(share.storage_account_key.as_deref(), Some(KEY));

    let (proxy, token) = world.kube_proxy().await;
    let review = json!({"metadata": {}, "spec": {"token": token}});
    let whose = world.review::<TokenReview>(review).await;
    assert_eq!(
        whose["user"]["username"],
        "system:serviceaccount:burstpool:burstpool-kube-proxy"
    );
    assert!(lists::<Service>(&proxy).await && lists::<EndpointSlice>(&proxy).await);
    assert!(!lists::<Pod>(&proxy).await && !lists::<Secret>(&proxy).await);
    for (name, allowed) in [("burstpool-kube-proxy", true), ("default", false)] {
        let attributes = json!({"namespace": "burstpool", "verb": "create", "resource": "serviceaccounts", "subresource": "token", "name": name});
        assert_eq!(world.may("burstpool", attributes).await, allowed, "{name}");
    }

    operator.kill().await.expect("SIGKILL");
    let endpoint = format!("{}/msi/token", world.azure.url());
    let app_service = [
        ("IDENTITY_ENDPOINT", endpoint.as_str()),
        ("IDENTITY_HEADER", HEADER),
    ];
    let _operator = world.run(&app_service);
    world.pool("second", &json!({})).await;
    assert!(world.tokens("Token_AppService"));

    let log = std::fs::read_to_string(world.log()).expect("a log");
    assert!(log.contains("TRACE"), "everything is logged");
    for secret in [KEY, HEADER, token.as_str(), "SECRET-SIGNATURE"] {
        let encoded = STANDARD.encode(secret);
        let shown = log
            .lines()
            .find(|line| line.contains(secret) || line.contains(&encoded));
        assert_eq!(shown, None);
    }
}

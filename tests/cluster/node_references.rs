//! References of pods, read from a real API server with exactly the documented rights: the volumes
//! behind claims, and the token of ACI's kube-proxy.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use burstpool::aci::translate::claims::ClaimBacking;
use burstpool::aci::translate::kube_proxy::ApiServer;
use burstpool::node::environment::{self, AccountName, KubeProxy, MissingObject, PodEnvironment};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::{Cluster, Tenant, wait};

/// A tenant, and a service account in it that has no rights at first.
async fn tenant(hint: &str) -> (Tenant, Client) {
    let cluster = Cluster::shared().await;
    let tenant = cluster.tenant(hint).await.expect("a tenant");
    let token = token_of(&tenant, "operator").await;
    let config = cluster.config_of(&json!({"token": token})).await;
    let client = Client::try_from(config.expect("a configuration")).expect("a client");
    (tenant, client)
}

async fn token_of(tenant: &Tenant, account: &str) -> String {
    create::<ServiceAccount>(tenant, json!({"metadata": {"name": account}})).await;
    let request = TokenRequest::default();
    let answer = tenant
        .api::<ServiceAccount>()
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .expect("a token");
    let token = answer.status.and_then(|status| status.token);
    token.expect("a token")
}

fn read<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object")
}

async fn create<K>(tenant: &Tenant, object: Value)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    tenant
        .create::<K>(&read(object))
        .await
        .expect("it is created");
}

/// Gives the tenant's operator these rights in its namespace.
async fn allow(tenant: &Tenant, name: &str, rules: Value) {
    let subject =
        json!({"kind": "ServiceAccount", "name": "operator", "namespace": tenant.namespace});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    create::<Role>(tenant, json!({"metadata": {"name": name}, "rules": rules})).await;
    create::<RoleBinding>(
        tenant,
        json!({"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}),
    )
    .await;
}

/// Gives the tenant's operator the right to read volumes, which have no namespace. The caller removes
/// it.
async fn allow_volumes(tenant: &Tenant) {
    let name = &tenant.namespace;
    let subject = json!({"kind": "ServiceAccount", "name": "operator", "namespace": name});
    let role =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
    let rules = json!([{"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get"]}]);
    let role_of: ClusterRole = read(json!({"metadata": {"name": name}, "rules": rules}));
    let binding: ClusterRoleBinding =
        read(json!({"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}));
    let parameters = PostParams::default();
    let roles = Api::all(tenant.client.clone());
    roles.create(&parameters, &role_of).await.expect("a role");
    let bindings = Api::all(tenant.client.clone());
    bindings
        .create(&parameters, &binding)
        .await
        .expect("a binding");
}

fn pod(tenant: &Tenant, volumes: &Value) -> Pod {
    let spec = json!({"containers": [{"name": "a", "image": "a"}], "volumes": volumes});
    read(json!({"metadata": {"name": "web", "namespace": tenant.namespace}, "spec": spec}))
}

fn said(missing: &[MissingObject]) -> String {
    let said: Vec<String> = missing.iter().map(ToString::to_string).collect();
    said.join("; ")
}

/// Resolves the references until the result is `wanted`. The API server applies new rights after a
/// delay, and no watch shows when, so this polls.
async fn until<T>(
    client: &Client,
    pod: &Pod,
    proxy: Option<&KubeProxy>,
    wanted: impl Fn(Result<PodEnvironment, Vec<MissingObject>>) -> Result<T, String>,
) -> T {
    let start = Instant::now();
    let mut again = tokio::time::interval(Duration::from_millis(50));
    loop {
        again.tick().await;
        match wanted(environment::resolve(client, pod, &[], proxy).await) {
            Ok(came) => return came,
            Err(other) => assert!(start.elapsed() < wait::DEADLINE, "{other}"),
        }
    }
}

/// Resolves until the missing objects are as `expected`.
async fn lacks(client: &Client, pod: &Pod, proxy: Option<&KubeProxy>, expected: &str) {
    let lacks = |came: Result<PodEnvironment, Vec<MissingObject>>| match came {
        Err(missing) if said(&missing).contains(expected) => Ok(()),
        other => Err(format!("not '{expected}' but {other:?}")),
    };
    until(client, pod, proxy, lacks).await;
}

/// Resolves until nothing is missing.
async fn resolved(client: &Client, pod: &Pod, proxy: Option<&KubeProxy>) -> PodEnvironment {
    let found =
        |came: Result<PodEnvironment, Vec<MissingObject>>| came.map_err(|missing| said(&missing));
    until(client, pod, proxy, found).await
}

fn volume(name: &str, source: &Value) -> PersistentVolume {
    let mut spec = json!({
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"],
        "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
    });
    for (field, value) in source.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    read(json!({"metadata": {"name": name}, "spec": spec}))
}

/// Binds a claim of the tenant to a volume of that kind, as the volume controller does.
async fn claim(tenant: &Tenant, name: &str, source: &Value) {
    let volume_name = format!("{}-{name}", tenant.namespace);
    let volumes: Api<PersistentVolume> = Api::all(tenant.client.clone());
    let volume = volume(&volume_name, source);
    let made = volumes.create(&PostParams::default(), &volume).await;
    made.expect("a volume");
    let spec = json!({
        "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": volume_name,
        "resources": {"requests": {"storage": "1Gi"}},
    });
    create::<PersistentVolumeClaim>(tenant, json!({"metadata": {"name": name}, "spec": spec}))
        .await;
    let bound = |claim: Option<&PersistentVolumeClaim>| {
        let status = claim.and_then(|claim| claim.status.as_ref());
        status.is_some_and(|status| status.phase.as_deref() == Some("Bound"))
    };
    wait::until(tenant.api(), name, "the claim to be bound", bound)
        .await
        .expect("it is bound");
}

/// A pod with a claim.
fn claiming(tenant: &Tenant, name: &str) -> Pod {
    let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": name}});
    pod(tenant, &json!([claim]))
}

/// A share as the CSI driver creates it. Its key is in the tenant's Secret `key`.
fn share(tenant: &Tenant) -> Value {
    json!({"csi": {
        "driver": "file.csi.azure.com", "volumeHandle": "rg#shopfiles#files#", "readOnly": true,
        "nodeStageSecretRef": {"name": "key", "namespace": tenant.namespace},
    }})
}

async fn allow_claims(tenant: &Tenant) {
    let resources = json!(["persistentvolumeclaims"]);
    let rule = json!({"apiGroups": [""], "resources": resources, "verbs": ["get"]});
    allow(tenant, "claims", json!([rule])).await;
}

async fn allow_key(tenant: &Tenant) {
    let (resources, names) = (json!(["secrets"]), json!(["key"]));
    let rule = json!({"apiGroups": [""], "resources": resources, "resourceNames": names, "verbs": ["get"]});
    allow(tenant, "keys", json!([rule])).await;
}

async fn create_key(tenant: &Tenant) {
    let data = json!({"azurestorageaccountkey": "HIDDEN"});
    create::<Secret>(
        tenant,
        json!({"metadata": {"name": "key"}, "stringData": data}),
    )
    .await;
}

#[tokio::test]
async fn what_is_missing_on_the_way_to_a_share_is_named_with_its_remedy() {
    let (tenant, client) = tenant("lacking").await;
    let (namespace, files) = (&tenant.namespace, claiming(&tenant, "files"));
    let may_not = format!(
        "PersistentVolumeClaim {namespace}/files may not be read; to let burstpool read what pods of this \
         namespace refer to: kubectl apply -k config/namespace -n {namespace}"
    );
    lacks(&client, &files, None, &may_not).await;
    allow_claims(&tenant).await;
    lacks(&client, &files, None, "/files does not exist").await;
    let spec = json!({
        "accessModes": ["ReadWriteMany"], "storageClassName": "none",
        "resources": {"requests": {"storage": "1Gi"}},
    });
    let waiting = json!({"metadata": {"name": "waiting"}, "spec": spec});
    create::<PersistentVolumeClaim>(&tenant, waiting).await;
    let pending = "is not bound to a PersistentVolume yet: its phase is Pending";
    lacks(&client, &claiming(&tenant, "waiting"), None, pending).await;

    claim(&tenant, "files", &share(&tenant)).await;
    lacks(&client, &files, None, "the verb get on persistentvolumes").await;
    allow_volumes(&tenant).await;
    let key = format!("Secret {namespace}/key of PersistentVolume {namespace}-files");
    lacks(&client, &files, None, &format!("{key} may not be read")).await;
    allow_key(&tenant).await;
    lacks(&client, &files, None, &format!("{key} does not exist")).await;
    let empty = json!({"metadata": {"name": "key"}});
    create::<Secret>(&tenant, empty).await;
    let no_key = format!("{key} has no key 'azurestorageaccountkey'");
    lacks(&client, &files, None, &no_key).await;
    forget(&tenant, &["files"]).await;
}

#[tokio::test]
async fn a_claim_is_followed_to_its_share() {
    let (tenant, client) = tenant("claims").await;
    allow_claims(&tenant).await;
    allow_volumes(&tenant).await;
    allow_key(&tenant).await;
    create_key(&tenant).await;
    let in_tree =
        json!({"secretName": "key", "secretNamespace": tenant.namespace, "shareName": "tree"});
    let disk = json!({"driver": "disk.csi.azure.com", "volumeHandle": "d"});
    claim(&tenant, "files", &share(&tenant)).await;
    claim(&tenant, "tree", &json!({"azureFile": in_tree})).await;
    claim(&tenant, "disk", &json!({"csi": disk})).await;

    let found = resolved(&client, &claiming(&tenant, "files"), None).await;
    assert!(!format!("{found:?}").contains("HIDDEN"));
    let Some(ClaimBacking::Share(share)) = found.resolved.claims.get("files") else {
        unreachable!("{found:?}");
    };
    let named = (
        share.share_name.as_str(),
        share.storage_account_name.as_str(),
    );
    assert_eq!((named, share.read_only), (("files", "shopfiles"), true));
    assert_eq!(share.storage_account_key.expose(), "HIDDEN");
    // The in-tree volume type has the account name only in the Secret.
    let no_name = "has no key 'azurestorageaccountname'";
    lacks(&client, &claiming(&tenant, "tree"), None, no_name).await;
    let found = resolved(&client, &claiming(&tenant, "disk"), None).await;
    let disk = found.resolved.claims.get("disk");
    assert!(
        matches!(disk, Some(ClaimBacking::Unsupported(why)) if why.contains("disk.csi.azure.com")),
        "{disk:?}"
    );
    forget(&tenant, &["files", "tree", "disk"]).await;
}

/// Deletes the test's objects that have no namespace.
async fn forget(tenant: &Tenant, claims: &[&str]) {
    let parameters = DeleteParams::default();
    let volumes: Api<PersistentVolume> = Api::all(tenant.client.clone());
    for name in claims {
        let name = format!("{}-{name}", tenant.namespace);
        volumes.delete(&name, &parameters).await.expect("deleted");
    }
    let roles: Api<ClusterRole> = Api::all(tenant.client.clone());
    roles
        .delete(&tenant.namespace, &parameters)
        .await
        .expect("deleted");
    let bindings: Api<ClusterRoleBinding> = Api::all(tenant.client.clone());
    bindings
        .delete(&tenant.namespace, &parameters)
        .await
        .expect("deleted");
}

#[tokio::test]
async fn kube_proxys_token_is_one_of_its_own_account_and_what_is_missing_for_it_is_named() {
    let (tenant, client) = tenant("proxy").await;
    let proxy = KubeProxy {
        account: AccountName {
            namespace: tenant.namespace.clone(),
            name: "burstpool-kube-proxy".to_owned(),
        },
        api_server: ApiServer {
            url: "https://api.example".to_owned(),
            certificate_authority: Vec::new(),
        },
    };
    let web = pod(&tenant, &json!([]));
    let remedy = "kubectl apply -k config/kube-proxy";
    let account = format!("the ServiceAccount {} of network.kubeProxy", proxy.account);
    lacks(
        &client,
        &web,
        Some(&proxy),
        &format!("a token of {account} may not be requested; "),
    )
    .await;
    lacks(&client, &web, Some(&proxy), remedy).await;
    allow(&tenant, "tokens", json!([{"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["burstpool-kube-proxy"], "verbs": ["create"]}])).await;
    lacks(
        &client,
        &web,
        Some(&proxy),
        &format!("{account} does not exist; "),
    )
    .await;
    lacks(&client, &web, Some(&proxy), remedy).await;
    create::<ServiceAccount>(
        &tenant,
        json!({"metadata": {"name": "burstpool-kube-proxy"}}),
    )
    .await;

    let found = resolved(&client, &web, Some(&proxy)).await;
    let config = found.resolved.kube_config.expect("a kubeconfig");
    let config = STANDARD.decode(config.expose()).expect("base64");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    let token = config["users"][0]["user"]["token"]
        .as_str()
        .expect("a token");
    assert_eq!(
        who(&tenant, token).await,
        format!(
            "system:serviceaccount:{}:burstpool-kube-proxy",
            tenant.namespace
        )
    );
    // Without kube-proxy there is no token.
    let without = resolved(&client, &web, None).await;
    assert_eq!(without.resolved.kube_config, None);
}

/// The user of a token, according to the API server.
async fn who(tenant: &Tenant, token: &str) -> String {
    let reviews: Api<TokenReview> = Api::all(tenant.client.clone());
    let review: TokenReview = read(json!({"metadata": {}, "spec": {"token": token}}));
    let answer = reviews
        .create(&PostParams::default(), &review)
        .await
        .expect("an answer");
    let status = answer.status.expect("a review is answered in its status");
    assert_eq!(status.authenticated, Some(true));
    status.user.and_then(|user| user.username).expect("a name")
}

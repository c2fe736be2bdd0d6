//! A test's own part of a shared cluster: a namespace, and home nodes that only its pods reach.
//!
//! In: a cluster and a hint for the name. Out: nodes made, and pods and Deployments to make.
//!
//! Tests that share a cluster keep apart by one taint, `burstpool.test/tenant=<namespace>:NoSchedule`,
//! on the home nodes of a tenant, and its toleration on the tenant's pods. A taint, because a node
//! selector would also keep those pods off virtual nodes, which are what they are to reach; those keep
//! apart by their own taint, as in production. Whoever makes a pod without the constructors here adds
//! [`Tenant::toleration`].
//!
//! What this cannot keep apart: pods that tolerate everything (`DaemonSet`s), and a spread over
//! `kubernetes.io/hostname`, which counts tainted nodes as domains. A test of those starts a cluster
//! of its own.

use std::fmt::Debug;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod, Taint, Toleration},
};
use kube::{Api, Client, api::PostParams, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::support::{Cluster, Error, objects, wait};

const TAINT: &str = "burstpool.test/tenant";

/// One test in a cluster.
pub struct Tenant {
    /// Its namespace, which is also its name: unlike any other in this cluster, ever.
    pub namespace: String,
    /// The administrator, on this test's runtime.
    pub client: Client,
}

impl Cluster {
    /// A new tenant; the hint makes its names readable.
    pub async fn tenant(&self, hint: &str) -> Result<Tenant, Error> {
        let unique = Uuid::new_v4().simple().to_string();
        let namespace = format!("{hint}-{}", &unique[..8]);
        self.namespace(&namespace).await?;
        Ok(Tenant {
            namespace,
            client: self.client()?,
        })
    }
}

impl Tenant {
    /// The API of a namespaced kind, in this tenant's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object in this tenant's namespace.
    pub async fn create<K>(&self, object: &K) -> Result<K, Error>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        Ok(self.api().create(&PostParams::default(), object).await?)
    }

    /// A home node of this tenant, Ready. The answer is its name, `<namespace>-<name>`.
    pub async fn home_node(&self, name: &str, cpu: &str, memory: &str) -> Result<String, Error> {
        self.tainted_node(name, cpu, memory, self.taint()).await
    }

    /// A node with that one taint, Ready.
    pub async fn tainted_node(
        &self,
        name: &str,
        cpu: &str,
        memory: &str,
        taint: Taint,
    ) -> Result<String, Error> {
        let name = format!("{}-{name}", self.namespace);
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = objects::kwok_node(&name, cpu, memory, &[taint]);
        nodes.create(&PostParams::default(), &node).await?;
        let ready = |node: Option<&Node>| node.is_some_and(objects::is_ready);
        wait::until(nodes, &name, &format!("node {name} to be ready"), ready).await?;
        Ok(name)
    }

    /// A pod for this tenant's home nodes, to be created.
    pub fn pod(&self, name: &str, cpu: &str, memory: &str) -> Pod {
        objects::pod(name, cpu, memory, &[self.toleration()])
    }

    /// A Deployment for this tenant's home nodes, to be created; its pods are labelled `app: NAME`.
    pub fn deployment(&self, name: &str, replicas: i32, cpu: &str, memory: &str) -> Deployment {
        objects::deployment(name, replicas, cpu, memory, &[self.toleration()])
    }

    /// What keeps other tenants' pods off this tenant's nodes.
    pub fn taint(&self) -> Taint {
        objects::no_schedule(TAINT, &self.namespace)
    }

    /// What lets a pod onto them.
    pub fn toleration(&self) -> Toleration {
        Toleration {
            key: Some(TAINT.to_owned()),
            operator: Some("Equal".to_owned()),
            value: Some(self.namespace.clone()),
            effect: Some("NoSchedule".to_owned()),
            toleration_seconds: None,
        }
    }
}

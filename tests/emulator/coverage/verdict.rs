//! Whether ACI runs the pod of a template.
//!
//! In: a template, and whether its container group is in a subnet. Out: everything that keeps the pod off: what the
//! translation refuses, and what the scheduler would refuse. A pod that nothing keeps off is a group that the
//! emulated service accepts.

use std::collections::BTreeMap;
use std::sync::Arc;

use burstpool::aci::client::GroupScope;
use burstpool::aci::image::ImageConfig;
use burstpool::aci::names::GroupOwner;
use burstpool::aci::translate::body::AzureFile;
use burstpool::aci::translate::claims::{ClaimBacking, provisions_shares};
use burstpool::aci::translate::field_table::waits_for_helper;
use burstpool::aci::translate::references::KeyedReference;
use burstpool::aci::translate::resolved_references::{ObjectContent, ResolvedImage};
use burstpool::aci::translate::secret_string::SecretString;
use burstpool::aci::translate::{
    NO_IDENTITIES, PodReferences, ResolvedReferences, TranslationTarget, Unsupported,
    accept_losses, decode, image_requests, pod_references, translate,
};
use burstpool::api::{AcceptedLoss, LossSet, NO_LOSSES, Placement};
use burstpool::burst::facts::node_constraints::NodeConstraints;
use burstpool::node::capacity::NodeResourceStatus;
use burstpool::node::daemon_set::is_daemon_set_pod;
use burstpool::node::last_placement::LastPlacement;
use burstpool::node::node_object::{self, NodeConfig};
use serde_json::{Value, json};

use super::templates::Template;
use crate::translation::accepted;

const SUBNET: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/n";

/// What keeps the pod of a template off ACI.
pub struct Verdict {
    /// In a placement with a subnet.
    pub in_subnet: Vec<Unsupported>,
    /// In a placement without a subnet.
    pub without_subnet: Vec<Unsupported>,
    /// What a pool must accept so that the pod runs in a subnet: nothing if it runs as it is, `None` if that does not
    /// help.
    pub losses: Option<LossSet>,
    /// Whether the operator must read the configuration of an image.
    pub reads_image: bool,
    /// Whether the pod belongs to a `DaemonSet`, whose pods are never run on ACI.
    pub is_daemon: bool,
}

impl Verdict {
    /// The verdict on `template`.
    pub fn of(template: &Template) -> Self {
        let (in_subnet, reads_image) = refusals(template, true, &NO_LOSSES);
        let (without_subnet, _) = refusals(template, false, &NO_LOSSES);
        let losses = accept_losses(&in_subnet, &AcceptedLoss::ALL.into_iter().collect()).ok();
        if let Some(losses) = &losses {
            let (others, _) = refusals(template, true, losses);
            assert!(others.is_empty(), "{}: {others:?}", template.name);
        }
        let (pod, _) = decode(template.pod.clone()).expect("a pod");
        Self {
            in_subnet,
            without_subnet,
            losses,
            reads_image,
            is_daemon: is_daemon_set_pod(&pod),
        }
    }

    /// Whether the pod runs in a placement with a subnet.
    pub fn runs(&self) -> bool {
        self.in_subnet.is_empty() && !self.is_daemon
    }

    /// Whether the pod runs in a placement without a subnet.
    pub fn runs_without_subnet(&self) -> bool {
        self.without_subnet.is_empty() && !self.is_daemon
    }

    /// The losses with which the pod runs in a subnet; `None` if it runs without any, or not at all.
    pub fn runs_with(&self) -> Option<&LossSet> {
        let losses = self.losses.as_ref().filter(|losses| !losses.is_empty());
        losses.filter(|_| !self.is_daemon)
    }

    /// Whether only fields that wait for the helper keep the pod off, whatever the pool accepts.
    pub fn waits_for_helper(&self) -> bool {
        let mut others = self.in_subnet.iter().filter(|one| one.loss.is_none());
        let can_run = self.runs() || self.runs_with().is_some();
        !can_run && !self.is_daemon && others.all(|one| waits_for_helper(&one.field))
    }

    /// The fields that keep the pod off in a subnet whatever the pool accepts, without indices, each once.
    pub fn fields(&self) -> Vec<String> {
        let others = self.in_subnet.iter().filter(|one| one.loss.is_none());
        fields(others)
    }
}

/// The fields of `refusals`, without indices, each once.
pub fn fields<'a>(refusals: impl IntoIterator<Item = &'a Unsupported>) -> Vec<String> {
    let mut fields: Vec<String> = refusals
        .into_iter()
        .map(|one| without_indices(&one.field))
        .collect();
    fields.sort();
    fields.dedup();
    fields
}

/// `spec.containers[1].ports[0].hostPort` as `containers[].ports[].hostPort`.
fn without_indices(field: &str) -> String {
    let mut short = String::new();
    let mut in_index = false;
    for letter in field.trim_start_matches("spec.").chars() {
        match letter {
            '[' => in_index = true,
            ']' => in_index = false,
            _ if in_index => continue,
            _ => {}
        }
        short.push(letter);
    }
    short
}

/// Everything that keeps the pod off in a pool that accepts these losses, and whether an image must be read.
fn refusals(
    template: &Template,
    in_subnet: bool,
    accepted_losses: &LossSet,
) -> (Vec<Unsupported>, bool) {
    let mut place = json!({"name": "weu", "region": "westeurope"});
    if in_subnet {
        place["subnetId"] = SUBNET.into();
    }
    let place: Placement = serde_json::from_value(place).expect("a placement");
    let config = node_config(&place);
    let node = config.name();
    let (pod, unknown) = decode(template.pod.clone()).expect("a pod");
    let target = TranslationTarget {
        spec: &place,
        tags: &BTreeMap::new(),
        node: &node,
        node_address: Some("10.1.2.3"),
        identities: &NO_IDENTITIES,
        accepted: accepted_losses,
    };
    let owner = GroupOwner {
        cluster: "c-1".into(),
        pool: "shop".into(),
        node: node.clone(),
    };
    let mut resolved = resolved(template, &pod_references(&pod));
    let requests = image_requests(&pod, &resolved, &target).expect("no pull identity");
    resolved.images = requests
        .iter()
        .map(|one| (one.image.clone(), image(&one.image, &template.image)))
        .collect();
    let spec = pod.spec.as_ref().expect("a spec");
    let constraints = NodeConstraints::from_pod_spec(spec);
    // The taints are those that a grant tolerates.
    let scheduler = constraints.refusal(&node, &node_object::labels(&config), &[]);
    let mut all: Vec<Unsupported> = scheduler.into_iter().collect();
    match translate(&pod, &unknown, &resolved, &owner, &target) {
        Err(refused) => all.extend(refused),
        Ok(group) => {
            let body = serde_json::to_value(group).expect("a body");
            if let Err(error) = accepted(&body) {
                panic!("{}: {error}", template.name);
            }
        }
    }
    (all, !requests.is_empty())
}

/// The node of a placement.
fn node_config(place: &Placement) -> NodeConfig {
    let scope = GroupScope {
        subscription: "s".into(),
        resource_group: "g".into(),
    };
    NodeConfig {
        pool: "shop".into(),
        pool_uid: "u-0".into(),
        last_placement: LastPlacement::new(&scope, place),
        address: "10.1.2.3".into(),
        port: 10250,
        offer: NodeResourceStatus::default(),
        region_notice: None,
        region_unavailable: None,
        creates_failing: None,
        probe_path: None,
        kubernetes_minor: 35,
    }
}

/// Everything that the pod refers to.
fn resolved(template: &Template, needs: &PodReferences) -> ResolvedReferences {
    let contents = |objects: &BTreeMap<String, KeyedReference>| {
        let all = objects.iter();
        all.map(|(name, need)| (name.clone(), content(need)))
            .collect()
    };
    let token = |need| (need, SecretString::new("token"));
    ResolvedReferences {
        secrets: contents(&needs.secrets),
        config_maps: contents(&needs.config_maps),
        claims: needs
            .claims
            .iter()
            .map(|claim| (claim.clone(), backing(template, claim)))
            .collect(),
        tokens: needs.tokens.iter().cloned().map(token).collect(),
        ..ResolvedReferences::default()
    }
}

fn content(need: &KeyedReference) -> ObjectContent {
    let keys = need.keys.keys().map(String::as_str).chain(["SETTING"]);
    ObjectContent {
        data: keys
            .map(|key| (key.to_owned(), b"value".to_vec()))
            .collect(),
        ..ObjectContent::default()
    }
}

fn backing(template: &Template, claim: &str) -> ClaimBacking {
    let class = template
        .claims
        .get(claim)
        .unwrap_or_else(|| panic!("{}: add the claim {claim}", template.name));
    match provisions_shares(class) {
        Err(why) => ClaimBacking::Unsupported(why),
        Ok(()) => ClaimBacking::Share(AzureFile {
            share_name: "files".into(),
            read_only: false,
            storage_account_name: "shopfiles".into(),
            storage_account_key: SecretString::new("key"),
        }),
    }
}

/// What a registry says of `image`.
fn image(image: &str, config: &Value) -> ResolvedImage {
    let text = |field: &str| config[field].as_str().unwrap_or_default().to_owned();
    let config = ImageConfig {
        entrypoint: serde_json::from_value(config["Entrypoint"].clone())
            .unwrap_or_else(|_| vec!["/entry".to_owned()]),
        user: text("User"),
        working_dir: text("WorkingDir"),
        ..ImageConfig::default()
    };
    ResolvedImage {
        pinned: format!("{image}@sha256:{}", "0".repeat(64)),
        config: Arc::new(config),
    }
}

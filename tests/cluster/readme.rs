//! Runs the commands that the documents and the manifests' comments tell users to type.
//!
//! Exceptions: commands of the Azure CLI, which need Azure, and `make` and `cargo test`, which run
//! these tests. [`facts`] checks other claims of the documents, such as the files that they name.

#[path = "readme/documents.rs"]
mod documents;
#[path = "readme/facts.rs"]
mod facts;
#[path = "readme/terminal.rs"]
mod terminal;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use self::documents::Document;
use self::terminal::Terminal;
use crate::support::{Cluster, OPERATOR, Options, objects, wait};

/// The pod that the documents use as an example, and the virtual node of its pool.
const EXPLAINED: &str = "web-7d4b";
const NODE: &str = "burst-peak-weu";
/// Options of other programs.
const OTHERS: [&str; 39] = [
    // az
    "--vnet-name",
    "--address-prefixes",
    "--delegations",
    "--role-definition",
    "--role",
    "--scope",
    "--assignee-object-id",
    "--assignee-principal-type",
    "--query",
    "--enable-oidc-issuer",
    "--enable-workload-identity",
    "--identity-name",
    "--issuer",
    "--subject",
    // kubectl
    "--force",
    "--grace-period",
    "--server-side",
    "--replicas",
    "--all",
    "--all-containers",
    "--prefix",
    "--recursive",
    "--previous",
    "--type",
    "--patch-file",
    "--follow",
    "--for",
    "--timeout",
    "--ignore-not-found",
    // cargo and docker
    "--lib",
    "--test",
    "--open",
    "--bin",
    "--locked",
    "--release",
    "--platform",
    "--push",
    "--from",
    "--from-literal",
];

#[tokio::test]
async fn every_document_typed_from_top_to_bottom_leads_to_a_burst() {
    let cluster = Box::pin(Cluster::start(Options::default()))
        .await
        .expect("a cluster");
    let nodes = Api::all(cluster.client().expect("a client"));
    // Room for the operator and three pods of the sample.
    let home = objects::kwok_node("home", "4", "16Gi", &[]);
    nodes
        .create(&PostParams::default(), &home)
        .await
        .expect("a node");
    cluster.namespace("shop").await.expect("a namespace");
    let mut terminal = Terminal::open(&cluster);
    let documents = documents::all();
    let commands: Vec<String> = documents.iter().flat_map(Document::commands).collect();
    let emulator = commands.iter().find(|one| one.contains("aci-emulator"));
    terminal
        .start_emulator(emulator.expect("the emulator's"))
        .await;

    let (mut typed, mut others) = (0, BTreeSet::new());
    for command in &commands {
        match command.split(' ').next().unwrap_or_default() {
            other @ ("az" | "make") => {
                others.insert(other);
            }
            "cargo" if command.starts_with("cargo test ") => facts::assert_tests_exist(command),
            "cargo" if command.contains("aci-emulator") => {}
            "cargo" if command.contains("-- run ") => terminal.start_operator(command),
            "curl" => terminal.send(command).await,
            "burstpool" => {
                let pod = on_aci(&cluster, &terminal).await;
                terminal.run(&command.replace(EXPLAINED, &pod)).await;
            }
            _ if command.contains(EXPLAINED) => {
                let pod = on_aci(&cluster, &terminal).await;
                let ready = format!("kubectl wait --for=condition=Ready --timeout=5m pod/{pod}");
                terminal.run(&ready).await;
                terminal.run(&command.replace(EXPLAINED, &pod)).await;
            }
            _ => terminal.run(command).await,
        }
        typed += 1;
    }
    assert_eq!(others.len(), 2, "the documents have them still: {others:?}");
    assert!(typed > 20, "the documents' commands are found: {typed}");
}

/// A pod of the sample on ACI, once all of them run.
async fn on_aci(cluster: &Cluster, terminal: &Terminal) -> String {
    let pods: Api<Pod> = Api::namespaced(cluster.client().expect("a client"), "default");
    let web = watcher::Config::default().labels("app=web");
    let what = "3 pods at home, and 9 on ACI";
    let spread = |pods: &[Pod]| objects::spread(pods) == (3, 9, 0);
    let pods = wait::until_all(pods, web, what, spread).await;
    let pods = pods.unwrap_or_else(|error| {
        let log = terminal.log();
        unreachable!("{error}\n{log}")
    });
    let mut away = pods
        .iter()
        .filter(|pod| objects::node_of(pod) == Some(NODE));
    away.next().expect("one is there").name_any()
}

#[tokio::test]
async fn every_other_command_of_the_documents_and_manifests_is_accepted() {
    let cluster = Box::pin(Cluster::start(Options::default()))
        .await
        .expect("a cluster");
    let kinds = cluster
        .install_kinds(&[OPERATOR, "argocd", "shop", "elsewhere"])
        .await;
    kinds.expect("the resources are served");
    let argo = ["create", "configmap", "argocd-cm", "--namespace", "argocd"];
    cluster.ask(&argo).expect("Argo CD's configuration");
    let terminal = Terminal::open(&cluster);

    let documents = documents::all();
    let spans = documents.iter().flat_map(Document::spans);
    let is_whole = |span: &String| {
        span.starts_with("kubectl explain") || span.starts_with("kubectl") && span.contains(" -k ")
    };
    let (spans, comments) = (
        spans.filter(is_whole).collect::<BTreeSet<_>>(),
        documents::commented(),
    );
    assert!(
        spans.len() > 2 && comments.len() > 5,
        "{spans:?} {comments:?}"
    );
    for command in spans.iter().chain(&comments) {
        // `apply` and `patch` run dry here: the test above runs these commands for real.
        let is_dry = command.contains(" apply ") || command.contains(" patch ");
        let dry = if is_dry { " --dry-run=server" } else { "" };
        terminal.run(&format!("{command}{dry}")).await;
    }
}

#[tokio::test]
async fn the_documents_resources_are_accepted_as_they_stand() {
    let sample = documents::root().join("config/samples/burst.yaml");
    let sample = documents::read(&sample);
    let sample = sample.split("---").next().expect("a pool");
    let parsed = |text: &str| -> Value { serde_yaml::from_str(text).expect("YAML") };
    let documents = documents::all();
    let blocks = |language| documents.iter().flat_map(move |one| one.blocks(language));
    let roles: Vec<String> = blocks("json").collect();
    let mut blocks = blocks("yaml");

    let first = parsed(&blocks.next().expect("a pool"));
    assert_eq!(first, parsed(sample), "it is the sample that it names");
    let parts: Vec<Value> = blocks.map(|block| parsed(&block)).collect();
    assert!(!parts.is_empty());
    let cluster = Cluster::shared().await;
    cluster
        .install_crds()
        .await
        .expect("the resource is served");
    for part in parts {
        let mut pool = first.clone();
        json_patch::merge(&mut pool, &part);
        json_patch::merge(&mut pool, &json!({"metadata": {"name": "readme"}}));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), pool.to_string()).expect("it is written");
        let path = file.path().to_string_lossy();
        let created = cluster.ask(&["create", "--dry-run=server", "-f", &path]);
        created.expect("it is accepted");
    }
    assert!(!roles.is_empty());
    for role in roles {
        let role: Value = serde_json::from_str(&role).expect("JSON");
        assert!(role["Actions"].is_array(), "{role}");
    }
}

#[tokio::test]
async fn every_option_that_the_documents_and_the_manifests_name_exists() {
    let mut known = BTreeSet::new();
    for (program, arguments) in [
        (
            env!("CARGO_BIN_EXE_burstpool"),
            ["run", "--help"].as_slice(),
        ),
        (env!("CARGO_BIN_EXE_burstpool"), &["explain", "--help"]),
        (env!("CARGO_BIN_EXE_aci-emulator"), &["--help"]),
    ] {
        let help = std::process::Command::new(program).args(arguments).output();
        let help = String::from_utf8(help.expect("help").stdout).expect("text");
        known.extend(options(&help));
        known.extend(variables(&help));
    }
    assert!(
        known.contains("--speed") && known.contains("POD_IP"),
        "{known:?}"
    );

    let documents = documents::all().into_iter();
    let mut texts: Vec<String> = documents.map(|document| document.text).collect();
    texts.extend(
        documents::manifests()
            .iter()
            .map(|path| documents::read(path)),
    );
    let named: BTreeSet<String> = texts.iter().flat_map(|text| options(text)).collect();
    let others = BTreeSet::from(OTHERS.map(str::to_owned));
    let unnamed: Vec<&String> = others.difference(&named).collect();
    assert!(unnamed.is_empty(), "nobody names them: {unnamed:?}");
    let unknown = named.difference(&known);
    let unknown: Vec<&String> = unknown.filter(|one| !others.contains(*one)).collect();
    assert!(unknown.is_empty(), "no such option: {unknown:?}");
    let operator = documents::read(&documents::root().join("config/default/operator.yaml"));
    let set = operator
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "));
    let set = set.filter_map(|line| line.trim_start_matches('{').strip_prefix("name: "));
    let set: BTreeSet<String> = set
        .map(|rest| rest.split([',', '}']).next().unwrap_or_default().to_owned())
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    assert!(set.len() > 2, "{set:?}");
    let unknown: Vec<&String> = set.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "no option has such a variable: {unknown:?}"
    );
}

/// All words of the form `--option`.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let is_option =
        |word: &&str| word.len() > 3 && word.starts_with("--") && !word.starts_with("---");
    words.filter(is_option).map(str::to_owned).collect()
}

/// All environment variables in a help text.
fn variables(help: &str) -> BTreeSet<String> {
    let named = help.split("[env: ").skip(1);
    named
        .filter_map(|rest| Some(rest.split('=').next()?.to_owned()))
        .collect()
}

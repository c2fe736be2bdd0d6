//! All requests of the service's published examples, 2021-10-01 to 2024-10-01-preview: the emulator
//! accepts them, or rejects them with the code of the service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};

use crate::azure::{Azure, body};

/// The operation of each group of example files: prefix, method, and a path below the resource group,
/// or an absolute path if it begins with `/`.
const OPERATIONS: [(&str, &str, &str); 22] = [
    (
        "ContainerAttach",
        "POST",
        "containerGroups/{g}/containers/{c}/attach",
    ),
    (
        "ContainerExec",
        "POST",
        "containerGroups/{g}/containers/{c}/exec",
    ),
    ("ContainerGroupCreate", "PUT", "containerGroups/{g}"),
    (
        "ContainerGroupEncryptionProperties",
        "PUT",
        "containerGroups/{g}",
    ),
    ("ContainerGroupExtensions", "PUT", "containerGroups/{g}"),
    (
        "ContainerGroupUsage",
        "GET",
        "/subscriptions/{s}/providers/Microsoft.ContainerInstance/locations/{l}/usages",
    ),
    ("ContainerGroupsCreate", "PUT", "containerGroups/{g}"),
    ("ContainerGroupsDelete", "DELETE", "containerGroups/{g}"),
    ("ContainerGroupsGet", "GET", "containerGroups/{g}"),
    (
        "ContainerGroupsListByResourceGroup",
        "GET",
        "containerGroups",
    ),
    (
        "ContainerGroupsList",
        "GET",
        "/subscriptions/{s}/providers/Microsoft.ContainerInstance/containerGroups",
    ),
    (
        "ContainerGroupsRestart",
        "POST",
        "containerGroups/{g}/restart",
    ),
    ("ContainerGroupsStart", "POST", "containerGroups/{g}/start"),
    ("ContainerGroupsStop", "POST", "containerGroups/{g}/stop"),
    ("ContainerGroupsUpdate", "PATCH", "containerGroups/{g}"),
    (
        "ContainerListLogs",
        "GET",
        "containerGroups/{g}/containers/{c}/logs",
    ),
    (
        "CachedImagesList",
        "GET",
        "/subscriptions/{s}/providers/Microsoft.ContainerInstance/locations/{l}/cachedImages",
    ),
    (
        "CapabilitiesList",
        "GET",
        "/subscriptions/{s}/providers/Microsoft.ContainerInstance/locations/{l}/capabilities",
    ),
    (
        "OperationsList",
        "GET",
        "/providers/Microsoft.ContainerInstance/operations",
    ),
    (
        "SubnetServiceAssociationLinkDelete",
        "DELETE",
        "/subscriptions/{s}/resourcegroups/{r}/providers/Microsoft.Network/virtualNetworks/v/subnets/n/providers/\
         Microsoft.ContainerInstance/serviceAssociationLinks/default",
    ),
    // The emulator does not have operations that are missing in the stable version 2023-05-01.
    ("ContainerGroupProfile", "GET", "containerGroupProfiles/p"),
    ("NGroup", "GET", "ngroups/n"),
];

/// The expected error of an example.
fn expected(file: &str) -> (u16, &'static str) {
    if file.starts_with("ContainerGroupsCreateOrUpdate") {
        // The example's subnet is a template expression and not a resource id: ARM's gateway rejects
        // it.
        (400, "LinkedInvalidPropertyId")
    } else if file == "ContainerGroupCreateOrUpdateStandbyPool.json" {
        (404, "ResourceNotFound")
    } else if is_newer(file) {
        (404, "InvalidResourceType")
    } else {
        (0, "")
    }
}

fn is_newer(file: &str) -> bool {
    file.contains("Profile")
        || file.starts_with("NGroup")
        || file.starts_with("ContainerGroupProfile")
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/aci/examples");
    let entries = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).expect("the folder is there");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    };
    let mut files: Vec<PathBuf> = entries(&folder)
        .iter()
        .flat_map(|version| entries(version))
        .collect();
    files.sort();
    files
}

fn request(file: &str, parameters: &Value) -> (Method, String, Option<Value>) {
    let (_, method, path) = if is_newer(file) {
        OPERATIONS[if file.starts_with("NGroup") { 21 } else { 20 }]
    } else {
        let fits = OPERATIONS
            .iter()
            .filter(|(prefix, _, _)| file.starts_with(prefix));
        *fits
            .max_by_key(|(prefix, _, _)| prefix.len())
            .unwrap_or_else(|| panic!("{file} is of no operation"))
    };
    let text = |name: &str, usual: &str| parameters[name].as_str().unwrap_or(usual).to_owned();
    let (subscription, group) = (text("subscriptionId", "s"), text("resourceGroupName", "r"));
    let below = format!(
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ContainerInstance/"
    );
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{below}{path}")
    };
    let path = path
        .replace("{s}", &subscription)
        .replace("{r}", &group)
        .replace("{g}", &text("containerGroupName", "demo1"))
        .replace("{c}", &text("containerName", "container1"))
        .replace("{l}", &text("location", "westus"));
    let version = text("api-version", "");
    let body = ["containerGroup", "containerExecRequest", "Resource"]
        .iter()
        .find_map(|name| parameters.get(*name));
    (
        method.parse().expect("a method"),
        format!("{path}?api-version={version}"),
        body.cloned(),
    )
}

#[tokio::test]
async fn every_official_example_is_accepted_or_refused_as_the_service_would() {
    let azure = Azure::start().await;
    azure.admin(Method::PUT, "limits", json!({"reads": null, "writes": null, "deletes": null, "groupCreates": null, "groupDeletes": null})).await;
    let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
    for path in files() {
        let file = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name")
            .to_owned();
        let text = std::fs::read_to_string(&path).expect("readable");
        let example: Value =
            serde_json::from_str(text.trim_start_matches('\u{feff}')).expect("JSON");
        let (method, url, request) = request(&file, &example["parameters"]);
        azure.admin(Method::POST, "reset", Value::Null).await;
        if !file.contains("Create") && url.contains("containerGroups/") {
            // The group that the example refers to, running, with a container of the name that it
            // uses.
            let mut body = body(&[]);
            body["properties"]["containers"][0]["name"] = example["parameters"]["containerName"]
                .as_str()
                .unwrap_or("container1")
                .into();
            let group = url
                .split("/containers/")
                .next()
                .expect("a path")
                .split(['?'])
                .next()
                .expect("a path");
            let group = ["/restart", "/start", "/stop"]
                .iter()
                .fold(group, |g, a| g.strip_suffix(a).unwrap_or(g));
            if !file.contains("Extensions") && !file.contains("Encryption") && !is_newer(&file) {
                let created = azure
                    .call(
                        Method::PUT,
                        &format!("{group}?api-version=2023-05-01"),
                        Some(&body),
                    )
                    .await;
                assert_eq!(created.status, 201, "{file}: {}", created.body);
                azure.advance(60.0);
            }
        }
        let answer = azure.call(method, &url, request.as_ref()).await;
        *seen.entry(answer.status.as_u16()).or_default() += 1;
        let (status, code) = expected(&file);
        if code.is_empty() {
            let answers = example["responses"].as_object().expect("responses");
            // The example lists the possible responses of an operation. A create answers 201.
            let known = answers.contains_key(answer.status.as_str()) || answer.status == 201;
            assert!(
                known && answer.status.is_success(),
                "{}: {} {}",
                path.display(),
                answer.status,
                answer.body
            );
        } else {
            assert_eq!(answer.error(), (status, code), "{}", path.display());
        }
    }
    assert!(seen.values().sum::<usize>() >= 180, "{seen:?}");
}

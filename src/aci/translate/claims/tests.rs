//! Tests: persistent volumes as users and the CSI driver write them.

use serde_json::{Value, json};

use super::*;

fn of(modes: &[&str], volume: &Value) -> Result<ClaimedShare, String> {
    let claim =
        json!({"metadata": {"name": "data", "namespace": "shop"}, "spec": {"accessModes": modes}});
    let mut volume = json!({"metadata": {"name": "pv-1"}, "spec": volume});
    volume["spec"]["capacity"] = json!({"storage": "1Gi"});
    ClaimedShare::from_volume(
        &serde_json::from_value(claim).expect("a claim"),
        &serde_json::from_value(volume).expect("a volume"),
    )
}

fn csi(handle: &str, more: &Value) -> Value {
    let mut csi = json!({"driver": AZURE_FILE_CSI_DRIVER, "volumeHandle": handle});
    for (field, value) in more.as_object().into_iter().flatten() {
        csi[field] = value.clone();
    }
    json!({"csi": csi})
}

fn share(account: Option<&str>, secret: (&str, &str), read_only: bool) -> ClaimedShare {
    ClaimedShare {
        share: "files".to_owned(),
        account: account.map(str::to_owned),
        secret: (secret.0.to_owned(), secret.1.to_owned()),
        read_only,
    }
}

#[test]
fn a_share_is_found_as_the_driver_finds_it() {
    let made = "rg#acc#files###kube-system";
    let staged = json!({"nodeStageSecretRef": {"name": "key", "namespace": "store"}, "volumeAttributes": {"shareName": "files"}});
    let named = json!({"volumeAttributes": {"sharename": "files", "SecretName": "key", "secretNamespace": "store", "protocol": "smb"}, "readOnly": true});
    let automatic = ("kube-system", "azure-storage-account-acc-secret");
    let cases = [
        (csi(made, &json!({})), share(Some("acc"), automatic, false)),
        (
            csi(
                "rg#acc#files#",
                &json!({"volumeAttributes": {"storageAccount": "other"}}),
            ),
            share(
                Some("other"),
                ("shop", "azure-storage-account-other-secret"),
                false,
            ),
        ),
        (
            csi("#acc#files##old", &json!({})),
            share(Some("acc"), ("old", automatic.1), false),
        ),
        (csi("any", &staged), share(None, ("store", "key"), false)),
        (csi("any", &named), share(None, ("store", "key"), true)),
        (
            json!({"azureFile": {"secretName": "key", "secretNamespace": "store", "shareName": "files", "readOnly": true}}),
            share(None, ("store", "key"), true),
        ),
        (
            json!({"azureFile": {"secretName": "key", "shareName": "files"}, "mountOptions": ["dir_mode=0777"]}),
            share(None, ("shop", "key"), false),
        ),
        (
            json!({"azureFile": {"secretName": "key", "shareName": "files"}, "mountOptions": ["ro"]}),
            share(None, ("shop", "key"), true),
        ),
    ];
    for (volume, expected) in cases {
        assert_eq!(of(&["ReadWriteMany"], &volume), Ok(expected), "{volume}");
    }
    let volume = csi("any", &staged);
    assert!(of(&["ReadOnlyMany"], &volume).expect("a share").read_only);
    let both = of(&["ReadOnlyMany", "ReadWriteMany"], &volume);
    assert!(!both.expect("a share").read_only);
}

#[test]
fn anything_else_is_refused_by_its_field_and_its_driver() {
    let attribute =
        |name: &str, value: &str| csi("rg#a#files#", &json!({"volumeAttributes": {name: value}}));
    let cases = [
        (
            json!({"csi": {"driver": "disk.csi.azure.com", "volumeHandle": "d"}}),
            "spec.csi.driver is disk.csi.azure.com",
        ),
        (
            json!({"hostPath": {"path": "/"}}),
            "spec.hostPath is not an Azure Files share",
        ),
        (json!({}), "its spec is not an Azure Files share"),
        (attribute("protocol", "nfs"), "attribute protocol is nfs"),
        (
            attribute("foldername", "a/b"),
            "attribute folderName is a/b",
        ),
        (
            csi("rg#a#files#", &json!({"fsType": "ext4"})),
            "attribute fsType is ext4",
        ),
        (csi("rg#a#files#x.vhd", &json!({})), "disk image x.vhd"),
        (csi("any", &json!({})), "names no share"),
        (
            csi("any", &json!({"volumeAttributes": {"shareName": "files"}})),
            "names no Secret",
        ),
    ];
    for (volume, expected) in cases {
        let why = of(&["ReadWriteOnce"], &volume).expect_err(expected);
        assert!(why.starts_with("its PersistentVolume pv-1: "), "{why}");
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

#[test]
fn a_key_is_read_under_each_of_its_names_and_a_missing_one_is_named() {
    let with_key = |account: Option<&str>, data: &[(&str, &str)]| {
        let data = data
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()));
        let content = ObjectContent {
            data: data.collect(),
            ..ObjectContent::default()
        };
        share(account, ("a", "b"), false)
            .with_key(&content)
            .map(|file| {
                (
                    file.storage_account_name,
                    file.storage_account_key.expose().to_owned(),
                )
            })
    };
    let found = |account: &str| Ok((account.to_owned(), "k".to_owned()));
    let usual = [
        ("azurestorageaccountname", "acc\n"),
        ("azurestorageaccountkey", " k "),
    ];
    assert_eq!(with_key(Some("other"), &usual), found("acc"));
    assert_eq!(
        with_key(None, &[("accountName", "acc"), ("accountKey", "k")]),
        found("acc")
    );
    assert_eq!(with_key(Some("acc"), &[("accountkey", "k")]), found("acc"));
    assert_eq!(
        with_key(None, &[("accountkey", "k")]),
        Err("azurestorageaccountname")
    );
    assert_eq!(
        with_key(Some("acc"), &[("accountkey", "")]),
        Err("azurestorageaccountkey")
    );
}

use super::*;

#[test]
fn no_secret_survives_serialisation() {
    let body = json!({"properties": {
        "containers": [{"name": "a", "properties": {"environmentVariables": [{"name": "P", "secureValue": "HIDE"}]}}],
        "imageRegistryCredentials": [{"server": "s", "username": "u", "password": "HIDE"}],
        "volumes": [
            {"name": "files", "azureFile": {"shareName": "x", "storageAccountName": "y", "storageAccountKey": "HIDE"}},
            {"name": "secret", "secret": {"k": "HIDE"}}],
        "diagnostics": {"logAnalytics": {"workspaceId": "w", "workspaceKey": "HIDE"}},
        "extensions": [{"name": "e", "properties": {"extensionType": "kube-proxy", "protectedSettings": {"kubeConfig": "HIDE"}}}],
    }});
    let read: GroupBody = serde_json::from_value(body).expect("the body parses");
    let echoed = serde_json::to_value(&read).expect("the body serialises");
    assert!(!echoed.to_string().contains("HIDE"), "{echoed}");
    assert_eq!(echoed["properties"]["volumes"][1]["secret"], json!({}));
    assert_eq!(
        read.properties.expect("properties").containers()[0].environment()[0].seen(),
        "HIDE"
    );
}

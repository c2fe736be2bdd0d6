//! The operator's types read every pool that the API server accepts.

use burstpool::api::BurstPool;
use futures::StreamExt as _;
use kube::Client;
use serde_json::{Value, json};

use crate::support::Cluster;

/// JSON pointers to everything in a value.
fn pointers(all: &mut Vec<String>, path: &str, value: &Value) {
    all.push(path.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(all, &format!("{path}/{index}"), item);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                pointers(all, &format!("{path}/{name}"), field);
            }
        }
        _ => {}
    }
}

/// What the API server would store. `None` if it rejects the pool.
async fn stored(client: &Client, pool: &Value) -> Option<String> {
    // Send the JSON unchanged, as other programs may. A typed client would drop fields.
    let path = "/apis/burstpool.io/v1alpha1/burstpools?dryRun=All&fieldValidation=Ignore";
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(pool.to_string().into_bytes());
    match client.request_text(request.expect("a request")).await {
        Ok(stored) => Some(stored),
        Err(kube::Error::Api(_)) => None,
        Err(error) => unreachable!("no answer: {error}"),
    }
}

/// The operator's types accept every pool that the definition accepts. For each field the test tries a
/// value of another kind, and reads what the API server stores after it has added its defaults.
#[tokio::test]
async fn whatever_the_api_server_accepts_the_types_read() {
    let cluster = Cluster::shared().await;
    let served = cluster.install_crds().await;
    served.expect("the resource is served");
    let client = cluster.client().expect("a client");
    let sample = include_str!("../../../config/samples/burstpool-every-field.yaml");
    let sample: Value = serde_yaml::from_str(sample).expect("YAML");
    let mut fields = Vec::new();
    pointers(&mut fields, "/spec", &sample["spec"]);
    let odd = json!([
        null, true, 0, -1, 3_000_000_000_i64, i64::MAX, 1.5, 1e300, "", " ", "lots", "-1", "1e99", "0s", [], {},
        [null], {"a": null}
    ]);
    let all = fields.iter().flat_map(|field| {
        let odd = odd.as_array().into_iter().flatten();
        odd.map(|value| (field.clone(), value.clone()))
    });
    let read = futures::stream::iter(all).map(async |(field, value)| {
        let mut pool = sample.clone();
        *pool.pointer_mut(&field).expect("it is there") = value.clone();
        let stored = stored(&client, &pool).await?;
        let read = serde_json::from_str::<BurstPool>(&stored);
        Some(read.map_err(|error| format!("{field}: {value}: {error}")))
    });
    let read: Vec<_> = read.buffer_unordered(8).collect().await;
    let read: Vec<_> = read.into_iter().flatten().collect();
    let (right, wrong): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
    assert!(right.len() > 100, "{} were accepted", right.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

//! Tests: files that are mounted by `subPath`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::decode;
use super::super::references::pod_references;
use super::given::Given;
use crate::api::AcceptedLoss;

/// A volume's name, a `subPath` and a `mountPath`.
type FileMount = (&'static str, &'static str, &'static str);

/// A pod with containers that have these mounts, in a pool that accepts them.
fn pod(containers: &[&[FileMount]]) -> Given {
    let containers = containers.iter().enumerate().map(|(index, mounts)| {
        let mounts = mounts.iter().map(
            |(name, sub_path, path)| json!({"name": name, "subPath": sub_path, "mountPath": path}),
        );
        json!({"name": format!("c{index}"), "image": "a", "command": ["/app/bin/run"],
               "volumeMounts": mounts.collect::<Vec<_>>()})
    });
    let containers: Vec<Value> = containers.collect();
    let token = json!({"serviceAccountToken": {"path": "token"}});
    let items = json!([{"key": "app", "path": "conf/app.ini"}, {"key": "tls", "path": "crt"}]);
    let volumes = json!([
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys"}},
        {"name": "deep", "configMap": {"name": "settings", "items": items}},
        {"name": "mixed", "projected": {"sources": [{"secret": {"name": "keys"}}, token,
            {"downwardAPI": {"items": [{"path": "pod/name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}},
        {"name": "cache", "emptyDir": {}},
    ]);
    let mut given = Given::spec(json!({"containers": containers, "volumes": volumes}))
        .config_map("settings", &[("app", "1"), ("tls", "2")])
        .secret("keys", &[("key", "3")])
        .accepting(&[AcceptedLoss::SubPathHidesDirectory]);
    let used = |name: &Value| {
        let mounts = containers
            .iter()
            .filter_map(|one| one["volumeMounts"].as_array());
        mounts.flatten().any(|mount| mount["name"] == *name)
    };
    let volumes = given.pod["spec"]["volumes"].as_array_mut();
    volumes
        .expect("a list")
        .retain(|volume| used(&volume["name"]));
    given
}

/// Each mount of each container: its path, whether it is read-only, its volume, and the files in it.
fn shown(given: &Given) -> Vec<String> {
    let body = given.clone().body();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let volumes = list(&body["properties"]["volumes"]);
    let containers = list(&body["properties"]["containers"]).into_iter();
    let mounts = containers.flat_map(|container| list(&container["properties"]["volumeMounts"]));
    let show = |mount: Value| {
        let mut all = volumes.iter();
        let volume = all.find(|volume| volume["name"] == mount["name"]);
        let files = volume.expect("its volume")["secret"].as_object().cloned();
        let files = files
            .unwrap_or_default()
            .into_iter()
            .map(|(name, content)| {
                let content = STANDARD.decode(content.as_str().expect("text"));
                let content = String::from_utf8(content.expect("base64"));
                format!("{name}={}", content.expect("text"))
            });
        let files: Vec<String> = files.collect();
        let path = mount["mountPath"].as_str().expect("a path");
        let name = mount["name"].as_str().expect("a name");
        let mode = if mount["readOnly"] == true {
            "ro"
        } else {
            "rw"
        };
        format!("{path} {mode} {name}: {}", files.join(" "))
    };
    mounts.map(show).collect()
}

#[test]
fn files_of_one_directory_are_one_volume_which_containers_with_the_same_files_share() {
    let conf: [FileMount; 3] = [
        ("settings", "app", "/etc/app/app.ini"),
        ("keys", "key", "/etc/app//key.pem"),
        ("deep", "conf/app.ini", "/etc/app/deep.ini"),
    ];
    let other: [FileMount; 4] = [
        ("deep", "conf", "/srv/conf"),
        ("mixed", "key", "/srv/keys/key"),
        ("mixed", "pod/name", "/srv/name"),
        ("cache", "a", "/cache"),
    ];
    let given = pod(&[&conf, &conf, &other, &conf[..1]]);
    let app = "/etc/app ro files-0: app.ini=1 deep.ini=1 key.pem=3";
    assert_eq!(
        shown(&pod(&[&other[1..2]])),
        ["/srv/keys ro files-0: key=3"]
    );
    // `/srv` has other mounts in it.
    let third = |index: usize| format!("spec.containers[2].volumeMounts[{index}].subPath");
    assert_eq!(given.refused(), [third(1), third(2)]);
    let given = pod(&[&conf, &conf, &[other[0], other[1], other[3]], &conf[..1]]);
    assert_eq!(
        shown(&given),
        [
            app,
            app,
            "/srv/conf ro volume-2-0: app.ini=1",
            "/srv/keys ro files-1: key=3",
            "/cache rw volume-4-0: ",
            "/etc/app ro files-2: app.ini=1",
        ]
    );
}

#[test]
fn what_cannot_work_is_refused_for_good() {
    let cases: [(&[FileMount], &[usize], &str); 17] = [
        (
            &[("settings", "app", "/app.ini")],
            &[0],
            "no image can do without",
        ),
        (
            &[("settings", "app", "/etc/hosts.conf")],
            &[0],
            "no image can do without",
        ),
        (
            &[("settings", "app", "/usr/./bin/x")],
            &[0],
            "no image can do without",
        ),
        (
            &[("settings", "app", "/proc/sys/x")],
            &[0],
            "no image can do without",
        ),
        (
            &[("settings", "app", "/app/bin/conf")],
            &[0],
            "command in it, /app/bin/run",
        ),
        (
            &[("settings", "app", "/app/conf")],
            &[0],
            "command in it, /app/bin/run",
        ),
        (&[("settings", "app", "/app/conf/x")], &[], ""),
        (&[("settings", "app", "/appl/x")], &[], ""),
        (
            &[("settings", "app", "/d/x"), ("cache", "", "/d")],
            &[0],
            "overlaps another mount, /d",
        ),
        (
            &[("settings", "app", "/d/x"), ("cache", "", "/d/e/f")],
            &[0],
            "overlaps another mount, /d/e/f",
        ),
        (
            &[("settings", "app", "/d/e/x"), ("cache", "", "/d/")],
            &[0],
            "overlaps another mount, /d",
        ),
        (
            &[("settings", "app", "/d/x"), ("keys", "key", "/d/e/x")],
            &[0, 1],
            "overlaps another mount",
        ),
        (
            &[("settings", "app", "/d/x"), ("keys", "key", "/de/x")],
            &[],
            "",
        ),
        (
            &[("deep", "conf/absent", "/d/x")],
            &[0],
            "no such file or directory",
        ),
        (
            &[("deep", "app", "/d/x")],
            &[0],
            "no such file or directory",
        ),
        (
            &[("settings", "app", "/d/../x")],
            &[0],
            "is not a path of a file",
        ),
        (&[("settings", "app", "/d/..x")], &[0], "is not a file name"),
    ];
    for (mounts, wanted, word) in cases {
        let refused = pod(&[mounts]).translate().err().unwrap_or_default();
        let fields: Vec<String> = refused.iter().map(|one| one.field.clone()).collect();
        let field = |index: &usize| format!("spec.containers[0].volumeMounts[{index}].subPath");
        let wanted: Vec<String> = wanted.iter().map(field).collect();
        assert_eq!(fields, wanted, "{mounts:?}: {refused:?}");
        for one in refused {
            assert!(
                one.loss.is_none() && one.why.contains(word),
                "{mounts:?}: {one}"
            );
        }
    }
}

#[test]
fn one_file_cannot_be_mounted_twice_under_two_spellings() {
    let twice = pod(&[&[("settings", "app", "/d/x"), ("keys", "key", "/d//x")]]);
    assert_eq!(
        twice.refused(),
        ["spec.containers[0].volumeMounts[1].mountPath"]
    );
}

#[test]
fn a_key_that_is_mounted_is_waited_for() {
    let given = pod(&[&[("settings", "absent", "/d/x"), ("deep", "crt", "/e/x")]]);
    let (decoded, _) = decode(given.pod.clone()).expect("a pod");
    let references = pod_references(&decoded);
    let keys = &references.config_maps["settings"].keys;
    assert!(keys["absent"] && keys["tls"] && keys.len() == 3, "{keys:?}");
    assert_eq!(given.refused(), ["spec.volumes[0]"]);
    let given = pod(&[&[("settings", "absent", "/d/x")]]);
    let complete = given.config_map("settings", &[("absent", "5")]);
    assert_eq!(shown(&complete), ["/d ro files-0: x=5"]);
}

#[test]
fn each_directory_with_files_counts_as_a_volume() {
    let mounts = |count: usize| {
        let mut given = pod(&[&[("settings", "app", "/d/x")]]);
        let all = (0..count).map(|index| {
            json!({"name": "settings", "subPath": "app", "mountPath": format!("/d{index}/x{index}")})
        });
        given.pod["spec"]["containers"][0]["volumeMounts"] = all.collect();
        given.refused()
    };
    assert_eq!(mounts(20), Vec::<String>::new());
    assert_eq!(mounts(21), ["spec.volumes"]);
}

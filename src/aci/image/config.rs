//! The configuration of an image.
//!
//! In: the JSON that an image's manifest names as its configuration. Out: the fields that decide what a container
//! runs. Pure.

use serde::Deserialize;

use super::json::{self, FieldNames};
use super::manifest::{ImageProblem, platform_name, rank, wrong_platform};

/// The working directory of an image that names none.
const ROOT: &str = "/";

const CONFIG_FIELDS: FieldNames = FieldNames(&[
    ("User", None),
    ("Entrypoint", None),
    ("Cmd", None),
    ("WorkingDir", None),
]);
const IMAGE_FIELDS: FieldNames = FieldNames(&[
    ("architecture", None),
    ("os", None),
    ("config", Some(&CONFIG_FIELDS)),
]);

/// The configuration of an image. Empty fields are those that the image does not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The program, and its first arguments.
    pub entrypoint: Vec<String>,
    /// The default arguments, or the program if there is no entrypoint.
    pub cmd: Vec<String>,
    /// The user: a name or a number, with an optional group after a colon.
    pub user: String,
    /// The working directory; empty for `/`.
    pub working_dir: String,
    /// The operating system.
    pub os: String,
    /// The architecture.
    pub architecture: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawImage {
    architecture: Option<String>,
    os: Option<String>,
    config: Option<RawConfig>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RawConfig {
    user: Option<String>,
    #[serde(deserialize_with = "json::string_or_list")]
    entrypoint: Option<Vec<String>>,
    #[serde(deserialize_with = "json::string_or_list")]
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
}

impl ImageConfig {
    /// Decodes a configuration. Fields that are missing or `null` are empty, as for Docker and containerd.
    pub fn decode(body: &[u8]) -> Result<Self, ImageProblem> {
        let raw: RawImage = json::decode(body, &IMAGE_FIELDS, "the configuration")
            .map_err(ImageProblem::Malformed)?;
        let config = raw.config.unwrap_or_default();
        Ok(Self {
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            os: raw.os.unwrap_or_default(),
            architecture: raw.architecture.unwrap_or_default(),
        })
    }

    /// Checks that ACI can run the image. An image whose configuration does not name a platform is for any.
    pub fn check_platform(&self) -> Result<(), ImageProblem> {
        let (os, architecture) = (&self.os, &self.architecture);
        let known = if architecture.is_empty() {
            "amd64"
        } else {
            architecture
        };
        if rank(os, known).is_some() {
            return Ok(());
        }
        Err(wrong_platform(&platform_name(os, architecture, "")))
    }

    /// The working directory in which the image's process starts.
    pub fn working_dir(&self) -> &str {
        if self.working_dir.is_empty() {
            ROOT
        } else {
            &self.working_dir
        }
    }

    /// About how much memory this takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        let lists = [&self.entrypoint, &self.cmd].into_iter().flatten();
        let texts = [&self.user, &self.working_dir, &self.os, &self.architecture];
        let texts = lists.chain(texts);
        texts.map(|text| text.len() + size_of::<String>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn decode(body: &Value) -> ImageConfig {
        ImageConfig::decode(body.to_string().as_bytes()).expect("a configuration")
    }

    #[test]
    fn every_field_is_read() {
        let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let body = json!({
            "architecture": "amd64", "os": "linux", "created": "not a date", "rootfs": 7, "history": null,
            "config": {
                "User": "101:101", "ExposedPorts": {"80/tcp": {}, "53/udp": null},
                "Env": ["PATH=/bin", "A=b=c", "PATH=/usr/bin"], "Entrypoint": ["/docker-entrypoint.sh"],
                "Cmd": ["nginx", "-g", "daemon off;"], "WorkingDir": "/app", "StopSignal": "SIGQUIT",
                "Volumes": {"/data": {}}, "OnBuild": null,
            },
        });
        let config = decode(&body);
        assert_eq!(config.working_dir(), "/app");
        assert_eq!(
            config,
            ImageConfig {
                entrypoint: strings(&["/docker-entrypoint.sh"]),
                cmd: strings(&["nginx", "-g", "daemon off;"]),
                user: "101:101".to_owned(),
                working_dir: "/app".to_owned(),
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
            }
        );
    }

    #[test]
    fn what_is_missing_or_null_is_empty() {
        let nulls = json!({"config": {"User": null, "Entrypoint": null, "Cmd": null, "Env": null, "ExposedPorts": null,
            "WorkingDir": null, "StopSignal": null}, "os": null});
        for body in [
            json!({}),
            json!({"config": null}),
            json!({"config": {}}),
            nulls,
        ] {
            assert_eq!(decode(&body), ImageConfig::default(), "{body}");
        }
        assert_eq!(ImageConfig::default().working_dir(), "/");
        let word = decode(&json!({"config": {"Entrypoint": "/app", "Cmd": ["a"]}}));
        assert_eq!(word.entrypoint, ["/app"]);
    }

    #[test]
    fn malformed_configurations_are_refused() {
        for body in [
            "",
            "[",
            "7",
            r#"{"config": {"Cmd": [1]}}"#,
            r#"{"config": {"User": "1000", "user": "0"}}"#,
            r#"{"config": {"User": "1000", "User": "0"}}"#,
            r#"{"config": {"User": "1000"}, "Config": {}}"#,
            r#"{"os": []}"#,
        ] {
            let refusal = ImageConfig::decode(body.as_bytes());
            assert!(
                matches!(refusal, Err(ImageProblem::Malformed(_))),
                "{body}: {refusal:?}"
            );
        }
    }

    #[test]
    fn images_for_other_platforms_are_refused_by_name() {
        for (os, architecture, allowed) in [
            ("linux", "amd64", true),
            ("", "", true),
            ("linux", "", true),
            ("", "amd64", true),
            ("LINUX", "x86_64", true),
            ("linux", "386", true),
            ("linux", "arm64", false),
            ("windows", "amd64", false),
        ] {
            let config = decode(&json!({"os": os, "architecture": architecture}));
            let checked = config.check_platform();
            assert_eq!(checked.is_ok(), allowed, "{os}/{architecture}");
            if let Err(ImageProblem::Unsupported(why)) = checked {
                assert!(
                    why.ends_with(&format!("its platforms: {os}/{architecture}")),
                    "{why}"
                );
            }
        }
    }

    #[test]
    fn what_containers_do_not_need_takes_no_memory() {
        let ports: serde_json::Map<String, Value> = (0..5_000)
            .map(|port| (format!("{port}/tcp"), json!({})))
            .collect();
        let body = json!({"config": {"ExposedPorts": ports, "Env": vec!["A=secret"; 2_000], "Cmd": ["a"]}});
        let config = decode(&body);
        assert!(config.weight() < 1_000, "{}", config.weight());
        assert!(!format!("{config:?}").contains("secret"));
    }
}

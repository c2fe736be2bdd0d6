//! The configuration of an image.
//!
//! In: the JSON that an image's manifest names as its configuration. Out: the fields that decide what a container
//! runs. Pure. `ExposedPorts` and `StopSignal` are read only for messages: Kubernetes ignores both.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::manifest::{ImageProblem, wrong_platform};

/// The working directory of an image that names none.
const ROOT: &str = "/";

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
    /// The environment, as `NAME=value`.
    pub env: Vec<String>,
    /// The ports that the image declares, such as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// The signal that asks the image's process to end; empty for `SIGTERM`.
    pub stop_signal: String,
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
    exposed_ports: Option<BTreeMap<String, Value>>,
    env: Option<Vec<String>>,
    entrypoint: Option<ImageWords>,
    cmd: Option<ImageWords>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

/// A command line. Docker also accepts a single string, which early versions wrote.
#[derive(Deserialize)]
#[serde(untagged)]
enum ImageWords {
    Many(Vec<String>),
    One(String),
}

impl ImageWords {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::Many(words) => words,
            Self::One(word) => vec![word],
        }
    }
}

impl ImageConfig {
    /// Decodes a configuration. Fields that are missing or `null` are empty, as for Docker and containerd.
    pub fn decode(body: &[u8]) -> Result<Self, ImageProblem> {
        let raw: RawImage = serde_json::from_slice(body)
            .map_err(|error| ImageProblem::Malformed(format!("the configuration: {error}")))?;
        let config = raw.config.unwrap_or_default();
        Ok(Self {
            entrypoint: config
                .entrypoint
                .map_or_else(Vec::new, ImageWords::into_vec),
            cmd: config.cmd.map_or_else(Vec::new, ImageWords::into_vec),
            user: config.user.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            exposed_ports: config
                .exposed_ports
                .unwrap_or_default()
                .into_keys()
                .collect(),
            stop_signal: config.stop_signal.unwrap_or_default(),
            os: raw.os.unwrap_or_default(),
            architecture: raw.architecture.unwrap_or_default(),
        })
    }

    /// Checks that ACI can run the image. An image whose configuration does not name a platform is for any.
    pub fn check_platform(&self) -> Result<(), ImageProblem> {
        let permits = |actual: &str, wanted: &str| actual.is_empty() || actual == wanted;
        if permits(&self.os, "linux") && permits(&self.architecture, "amd64") {
            return Ok(());
        }
        let name = format!("{}/{}", self.os, self.architecture);
        let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
        Err(wrong_platform(&name))
    }

    /// The value of `PATH` in the image's environment; of several, the last.
    pub fn search_path(&self) -> Option<&str> {
        let mut paths = self.env.iter().rev();
        paths.find_map(|variable| variable.strip_prefix("PATH="))
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
        let lists = [&self.entrypoint, &self.cmd, &self.env, &self.exposed_ports];
        let texts = [
            &self.user,
            &self.working_dir,
            &self.stop_signal,
            &self.os,
            &self.architecture,
        ];
        let texts = lists.into_iter().flatten().chain(texts);
        texts.map(|text| text.len() + size_of::<String>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        assert_eq!(config.search_path(), Some("/usr/bin"));
        assert_eq!(config.working_dir(), "/app");
        assert_eq!(
            config,
            ImageConfig {
                entrypoint: strings(&["/docker-entrypoint.sh"]),
                cmd: strings(&["nginx", "-g", "daemon off;"]),
                user: "101:101".to_owned(),
                working_dir: "/app".to_owned(),
                env: strings(&["PATH=/bin", "A=b=c", "PATH=/usr/bin"]),
                exposed_ports: strings(&["53/udp", "80/tcp"]),
                stop_signal: "SIGQUIT".to_owned(),
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
        assert_eq!(ImageConfig::default().search_path(), None);
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
            r#"{"config": {"Env": "A"}}"#,
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
            ("linux", "arm64", false),
            ("windows", "amd64", false),
            ("LINUX", "amd64", false),
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
}

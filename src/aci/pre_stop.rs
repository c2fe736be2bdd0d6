//! The `preStop` hook of a container, decoded.
//!
//! In: a container of a pod, and whether its group is in a subnet. Out: the hook that the virtual node runs before it
//! deletes the group, or an error that names the field that cannot be run. Pure. ACI runs no hooks.

use std::time::Duration;

use k8s_openapi::api::core::v1::Container;

use super::probe::{HttpGetProbe, ProbeSpecError};

/// A `preStop` hook that the virtual node runs.
#[derive(Clone, Debug, PartialEq)]
pub enum PreStopHook {
    /// `sleep`: for how long, in whole seconds.
    Sleep(Duration),
    /// `httpGet`: the request that is sent to the pod.
    HttpGet(Box<HttpGetProbe>),
    /// `exec`: the command and its arguments.
    Exec(Vec<String>),
}

impl PreStopHook {
    /// The hook of `container`; `None` if it has none. `at` is the container's field path.
    ///
    /// # Errors
    ///
    /// If the node cannot run the hook: it is an `httpGet` and the group is not in a subnet, or a field has a value
    /// that no API server accepts. The field table refuses `tcpSocket`.
    pub fn of(
        container: &Container,
        in_subnet: bool,
        at: &str,
    ) -> Result<Option<Self>, ProbeSpecError> {
        let lifecycle = container.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
            return Ok(None);
        };
        let at = format!("{at}.lifecycle.preStop");
        let refusal = |field: &str, why: &str| ProbeSpecError {
            field: format!("{at}.{field}"),
            why: why.to_owned(),
        };
        if let Some(get) = &hook.http_get {
            if !in_subnet {
                let why = "without a subnet, the virtual node does not reach the container: use sleep, or a placement \
                     with subnetId";
                return Err(refusal("httpGet", why));
            }
            let get = HttpGetProbe::of(get, container, &format!("{at}.httpGet"))?;
            return Ok(Some(Self::HttpGet(Box::new(get))));
        }
        if let Some(exec) = &hook.exec {
            return Ok(Some(Self::Exec(exec.command.clone().unwrap_or_default())));
        }
        let Some(sleep) = &hook.sleep else {
            return Ok(None);
        };
        let seconds = u64::try_from(sleep.seconds);
        let seconds = seconds.map_err(|_| refusal("sleep.seconds", "it is negative"))?;
        Ok(Some(Self::Sleep(Duration::from_secs(seconds))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn hook(pre_stop: &Value, in_subnet: bool) -> Result<Option<PreStopHook>, String> {
        let container = json!({"name": "main", "lifecycle": {"preStop": pre_stop}});
        let container: Container = serde_json::from_value(container).expect("a container");
        PreStopHook::of(&container, in_subnet, "spec.containers[0]").map_err(|error| error.field)
    }

    #[test]
    fn the_node_runs_commands_and_sleeps_everywhere_and_sends_requests_only_into_a_subnet() {
        let sleep = json!({"sleep": {"seconds": 7}});
        for in_subnet in [false, true] {
            let hook = hook(&sleep, in_subnet);
            assert_eq!(hook, Ok(Some(PreStopHook::Sleep(Duration::from_secs(7)))));
        }
        let get = json!({"httpGet": {"port": 8080, "path": "/drain"}});
        let field = "spec.containers[0].lifecycle.preStop.httpGet";
        assert_eq!(hook(&get, false), Err(field.to_owned()));
        let Ok(Some(PreStopHook::HttpGet(get))) = hook(&get, true) else {
            unreachable!("a request");
        };
        assert_eq!((get.port, get.target.as_str()), (8080, "/drain"));
        let elsewhere = json!({"httpGet": {"port": 8080, "host": "10.0.0.1"}});
        assert_eq!(hook(&elsewhere, true), Err(format!("{field}.host")));
        let negative = hook(&json!({"sleep": {"seconds": -1}}), true);
        assert_eq!(
            negative,
            Err("spec.containers[0].lifecycle.preStop.sleep.seconds".to_owned())
        );
        let exec = hook(&json!({"exec": {"command": ["bye", "a b"]}}), false);
        let command = ["bye", "a b"].map(str::to_owned).to_vec();
        assert_eq!(exec, Ok(Some(PreStopHook::Exec(command))));
        assert_eq!(hook(&json!({}), true), Ok(None));
    }
}

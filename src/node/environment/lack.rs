//! What a pod needs and does not get: pure.

use std::collections::BTreeMap;
use std::fmt;

use super::read::{Failure, Objects, Read};
use crate::aci::translate::Needs;
use crate::aci::translate::needs::Need;
use crate::aci::translate::resolved::Content;

/// Why something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It does not exist, or it has no such key.
    Missing,
    /// The operator may not read it.
    Forbidden,
    /// The API server could not be asked.
    Unreadable,
}

impl Reason {
    /// The reason of the Event that says so.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "ReferenceMissing",
            Self::Forbidden => "ReferenceForbidden",
            Self::Unreadable => "ReferenceUnreadable",
        }
    }
}

/// Something that a pod needs and does not get. Its text shows no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it is, such as `Secret shop/db`.
    pub what: String,
    /// What kind of trouble it is.
    pub reason: Reason,
    /// The same in words, as a half sentence.
    pub why: String,
    /// What to do about it; said once where it is the same for several.
    pub remedy: Option<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.why)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl Missing {
    fn of(what: String, failure: &Failure, namespace: &str) -> Self {
        let (reason, why, remedy) = match failure {
            Failure::Absent => (Reason::Missing, "does not exist".to_owned(), None),
            Failure::Forbidden => {
                let remedy = format!(
                    "to let burstpool read what pods of this namespace refer to: kubectl apply -k config/namespace -n {namespace}"
                );
                (
                    Reason::Forbidden,
                    "may not be read".to_owned(),
                    Some(remedy),
                )
            }
            Failure::Unreadable(why) => (
                Reason::Unreadable,
                format!("could not be read: {why}"),
                None,
            ),
        };
        Self {
            what,
            reason,
            why,
            remedy,
        }
    }
}

/// Everything that the pod cannot do without and that was not read. What is optional may be missing,
/// but whether it is must be known.
pub(super) fn required(needs: &Needs, read: &Read) -> Vec<Missing> {
    let namespace = &read.namespace;
    let mut missing = lacks("Secret", &needs.secrets, &read.secrets, namespace);
    missing.extend(lacks(
        "ConfigMap",
        &needs.config_maps,
        &read.config_maps,
        namespace,
    ));
    for (need, token) in &read.token_requests {
        if let Err(failure) = token {
            let audience = match need.audience.as_str() {
                "" => String::new(),
                audience => format!(" for {audience}"),
            };
            let account = &needs.service_account;
            let what = match failure {
                Failure::Absent => format!("ServiceAccount {namespace}/{account}"),
                _ => format!("a token{audience} of the ServiceAccount {namespace}/{account}"),
            };
            let mut one = Missing::of(what, failure, namespace);
            if one.reason == Reason::Forbidden {
                one.why = String::from("may not be requested");
            }
            missing.push(one);
        }
    }
    for name in &needs.pull_secrets {
        if let Some(Err(failure)) = read.secrets.0.get(name)
            && *failure != Failure::Absent
            && !needs.secrets.contains_key(name)
        {
            missing.push(Missing::of(
                format!("Secret {namespace}/{name}"),
                failure,
                namespace,
            ));
        }
    }
    say_once(&mut missing);
    missing
}

/// Leaves each remedy with the last that it is for: an Event has room for 1,024 characters.
fn say_once(missing: &mut [Missing]) {
    let mut said = Vec::new();
    for one in missing.iter_mut().rev() {
        match &one.remedy {
            Some(remedy) if said.contains(remedy) => one.remedy = None,
            Some(remedy) => said.push(remedy.clone()),
            None => {}
        }
    }
}

/// Pull secrets that do not exist.
pub(super) fn passed_over(needs: &Needs, read: &Read) -> Vec<Missing> {
    let absent = |name: &&String| read.secrets.0.get(*name) == Some(&Err(Failure::Absent));
    let absent = needs.pull_secrets.iter().filter(absent);
    let namespace = &read.namespace;
    absent
        .map(|name| {
            let what = format!("Secret {namespace}/{name} of imagePullSecrets");
            Missing::of(what, &Failure::Absent, namespace)
        })
        .collect()
}

fn lacks(
    kind: &str,
    needs: &BTreeMap<String, Need>,
    objects: &Objects<Content>,
    namespace: &str,
) -> Vec<Missing> {
    let mut missing = Vec::new();
    for (name, need) in needs {
        let what = format!("{kind} {namespace}/{name}");
        match objects.0.get(name) {
            Some(Ok(content)) => {
                let required = need.keys.iter().filter(|(_, required)| **required);
                let lacking = required.filter(|(key, _)| content.file(key).is_none());
                missing.extend(lacking.map(|(key, _)| Missing {
                    what: what.clone(),
                    reason: Reason::Missing,
                    why: format!("has no key '{key}'"),
                    remedy: None,
                }));
            }
            Some(Err(Failure::Absent)) if !need.required => {}
            Some(Err(failure)) => missing.push(Missing::of(what, failure, namespace)),
            None => missing.push(Missing::of(what, &Failure::Absent, namespace)),
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::aci::translate::concealed::Concealed;
    use crate::aci::translate::needs::{TokenNeed, needs};

    fn pod() -> Pod {
        let from = |name: &str, key: &str, optional: bool| json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": key, "optional": optional}}});
        let pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "a", "env": [from("db", "user", false), from("db", "extra", true), from("maybe", "x", true)]}],
            "volumes": [{"name": "t", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t", "audience": "vault"}}, {"configMap": {"name": "conf"}}]}}],
        }});
        serde_json::from_value(pod).expect("a pod")
    }

    type Answers<'a> = &'a [(&'a str, Result<&'a [&'a str], Failure>)];

    fn objects(answers: Answers<'_>) -> Objects<Content> {
        let answers = answers.iter().map(|(name, answer)| {
            let content = answer.clone().map(|keys| Content {
                data: keys
                    .iter()
                    .map(|key| ((*key).to_owned(), b"hidden".to_vec()))
                    .collect(),
                ..Content::default()
            });
            ((*name).to_owned(), content)
        });
        Objects(answers.collect())
    }

    fn read(secrets: Answers<'_>, maps: Answers<'_>, token: Result<&str, Failure>) -> Read {
        let need = TokenNeed {
            audience: "vault".into(),
            seconds: 3600,
        };
        Read {
            namespace: "shop".into(),
            secrets: objects(secrets),
            config_maps: objects(maps),
            token_requests: vec![(need, token.map(Concealed::new))],
        }
    }

    fn said(read: &Read) -> Vec<String> {
        let missing = required(&needs(&pod()), read);
        missing.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_required_is_missing_and_what_is_optional_is_not() {
        let absent = || Err(Failure::Absent);
        let all = read(
            &[
                ("db", Ok(&["user"])),
                ("maybe", absent()),
                ("pull", absent()),
            ],
            &[("conf", Ok(&[]))],
            Ok("hidden"),
        );
        assert_eq!(said(&all), Vec::<String>::new());
        let warnings = passed_over(&needs(&pod()), &all);
        assert_eq!(
            warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["Secret shop/pull of imagePullSecrets does not exist"]
        );
        let none = read(
            &[
                ("db", Ok(&["other"])),
                ("maybe", absent()),
                ("pull", absent()),
            ],
            &[("conf", absent())],
            Err(Failure::Absent),
        );
        assert_eq!(
            said(&none),
            [
                "Secret shop/db has no key 'user'",
                "ConfigMap shop/conf does not exist",
                "ServiceAccount shop/default does not exist",
            ]
        );
    }

    #[test]
    fn what_may_not_be_read_comes_with_the_command_that_allows_it() {
        let no = || Err(Failure::Forbidden);
        let token = Err(Failure::Forbidden);
        let read = read(
            &[("db", no()), ("maybe", no()), ("pull", no())],
            &[("conf", Ok(&[]))],
            token,
        );
        let missing = required(&needs(&pod()), &read);
        let names: Vec<&str> = missing.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(
            names,
            [
                "Secret shop/db",
                "Secret shop/maybe",
                "a token for vault of the ServiceAccount shop/default",
                "Secret shop/pull",
            ]
        );
        assert!(missing.iter().all(|one| one.reason == Reason::Forbidden));
        let said: Vec<String> = missing.iter().map(ToString::to_string).collect();
        let said = said.join("; ");
        let remedy = "kubectl apply -k config/namespace -n shop";
        assert_eq!(said.matches(remedy).count(), 1, "{said}");
        assert!(said.ends_with(remedy), "{said}");
    }

    #[test]
    fn what_was_not_answered_is_asked_for_again_also_if_it_is_optional() {
        let slow = || Err(Failure::Unreadable("slow".into()));
        let read = read(
            &[("db", Ok(&["user"])), ("maybe", slow()), ("pull", slow())],
            &[("conf", Ok(&[]))],
            Ok("hidden"),
        );
        assert_eq!(
            said(&read),
            [
                "Secret shop/maybe could not be read: slow",
                "Secret shop/pull could not be read: slow",
            ]
        );
        assert!(!format!("{read:?}").contains("hidden"));
    }
}

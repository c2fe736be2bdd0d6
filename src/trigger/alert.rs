//! Which alerts fire.
//!
//! In: the bodies of Alertmanager's webhook (version 4). Out: [`AlertNotice`]s, and for each trigger its
//! [`ActiveAlerts`]. An alert fires until Alertmanager reports it resolved. If that report is lost, the alert
//! ends when Alertmanager has not sent it again for `expireAfter`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::api::{Alert, FiringAlert};

/// How many alerts of a trigger are kept, as many as fit into a status. One is enough to make it active.
const MAX_REMEMBERED: usize = 64;

/// What a webhook payload reports about one alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertNotice {
    /// The alert's labels.
    pub labels: BTreeMap<String, String>,
    /// Alertmanager's fingerprint of the labels, or a hash of them if it sent none.
    pub fingerprint: String,
    /// Whether it fires. Otherwise it is resolved.
    pub is_firing: bool,
}

#[derive(Deserialize)]
struct WebhookPayload {
    version: String,
    alerts: Vec<WebhookAlert>,
}

#[derive(Deserialize)]
struct WebhookAlert {
    status: AlertState,
    labels: BTreeMap<String, String>,
    #[serde(default)]
    fingerprint: String,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum AlertState {
    Firing,
    Resolved,
}

/// Parses a body of the webhook.
pub fn parse(body: &[u8]) -> Result<Vec<AlertNotice>, String> {
    let payload: WebhookPayload = serde_json::from_slice(body)
        .map_err(|error| format!("the body is not a payload of Alertmanager's webhook: {error}"))?;
    if payload.version != "4" {
        return Err(format!(
            "the payload's version is '{}', but burstpool supports only 4",
            payload.version.chars().take(20).collect::<String>()
        ));
    }
    let notices = payload.alerts.into_iter().map(|entry| AlertNotice {
        is_firing: entry.status == AlertState::Firing,
        fingerprint: if entry.fingerprint.is_empty() {
            fallback_fingerprint(&entry.labels)
        } else {
            entry.fingerprint.chars().take(64).collect()
        },
        labels: entry.labels,
    });
    Ok(notices.collect())
}

/// A hash of the labels in place of a fingerprint, which senders older than Alertmanager 0.16 do not send.
fn fallback_fingerprint(labels: &BTreeMap<String, String>) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The alerts of one trigger that fire, by fingerprint, with the time at which each expires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActiveAlerts(BTreeMap<String, Timestamp>);

impl ActiveAlerts {
    /// Restores the alerts from a status.
    pub fn from_status(alerts: &[FiringAlert]) -> Self {
        let alerts = alerts.iter();
        Self(
            alerts
                .map(|alert| (alert.fingerprint.clone(), alert.expires.0))
                .collect(),
        )
    }

    /// Applies the notices that match the trigger. Returns whether any did.
    pub fn apply(&mut self, spec: &Alert, notices: &[AlertNotice], now: Timestamp) -> bool {
        self.0.retain(|_, expires| *expires > now);
        let expire_after = Duration::from(spec.expire_after);
        let expires = now.saturating_add(expire_after).unwrap_or(Timestamp::MAX);
        let matching = || notices.iter().filter(|notice| matches(spec, notice));
        // Resolved alerts first, because they make room.
        for notice in matching().filter(|notice| !notice.is_firing) {
            self.0.remove(&notice.fingerprint);
        }
        for notice in matching().filter(|notice| notice.is_firing) {
            if self.0.len() < MAX_REMEMBERED || self.0.contains_key(&notice.fingerprint) {
                self.0.insert(notice.fingerprint.clone(), expires);
            }
        }
        matching().next().is_some()
    }

    /// Whether any alert fires at `now`.
    pub fn is_any_firing(&self, now: Timestamp) -> bool {
        self.0.values().any(|expires| *expires > now)
    }

    /// When the next alert expires.
    pub fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        self.0
            .values()
            .copied()
            .filter(|expires| *expires > now)
            .min()
    }

    /// The alerts that fire, for a status.
    pub fn to_status(&self, now: Timestamp) -> Vec<FiringAlert> {
        let firing = self.0.iter().filter(|(_, expires)| **expires > now);
        firing
            .map(|(fingerprint, expires)| FiringAlert {
                fingerprint: fingerprint.clone(),
                expires: Time(Timestamp::from_second(expires.as_second()).unwrap_or(*expires)),
            })
            .collect()
    }
}

/// Whether a notice matches the trigger's labels. A trigger without labels matches none; otherwise it would
/// match every alert.
pub fn matches(spec: &Alert, notice: &AlertNotice) -> bool {
    let is_present = |(name, value): (&String, &String)| notice.labels.get(name) == Some(value);
    !spec.match_labels.is_empty() && spec.match_labels.iter().all(is_present)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The example body in Alertmanager's documentation, with the fields that its source adds.
    fn payload(status: &str, fingerprints: &[&str]) -> Value {
        let alerts = fingerprints.iter().map(|fingerprint| {
            json!({
                "status": status,
                "labels": {"alertname": "WebSaturated", "severity": "page", "instance": fingerprint},
                "annotations": {"summary": "web is saturated"},
                "startsAt": "2026-11-24T10:00:00.000Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prometheus.example/graph?g0.expr=up",
                "fingerprint": fingerprint,
            })
        });
        json!({
            "receiver": "burstpool",
            "status": status,
            "alerts": alerts.collect::<Vec<_>>(),
            "groupLabels": {"alertname": "WebSaturated"},
            "commonLabels": {"alertname": "WebSaturated", "severity": "page"},
            "commonAnnotations": {"summary": "web is saturated"},
            "externalURL": "http://alertmanager.example:9093",
            "version": "4",
            "groupKey": "{}:{alertname=\"WebSaturated\"}",
            "truncatedAlerts": 0,
            "notificationReason": "first",
        })
    }

    fn notices(status: &str, fingerprints: &[&str]) -> Vec<AlertNotice> {
        parse(payload(status, fingerprints).to_string().as_bytes()).expect("a payload")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn spec() -> Alert {
        let spec = json!({"matchLabels": {"alertname": "WebSaturated"}, "expireAfter": "100s"});
        serde_json::from_value(spec).expect("a spec")
    }

    #[test]
    fn an_alert_fires_until_it_is_resolved() {
        let mut firing = ActiveAlerts::default();
        assert!(firing.apply(&spec(), &notices("firing", &["a", "b"]), at(0)));
        assert!(firing.is_any_firing(at(1)));
        firing.apply(&spec(), &notices("resolved", &["a"]), at(2));
        assert!(firing.is_any_firing(at(3)), "the other alert still fires");
        firing.apply(&spec(), &notices("resolved", &["b"]), at(4));
        assert!(!firing.is_any_firing(at(4)));
        assert!(
            firing.apply(&spec(), &notices("resolved", &["b"]), at(5)),
            "a repeated notification also matches"
        );
    }

    #[test]
    fn an_alert_whose_resolution_was_lost_expires_unless_it_is_sent_again() {
        let mut firing = ActiveAlerts::default();
        firing.apply(&spec(), &notices("firing", &["a"]), at(0));
        firing.apply(&spec(), &notices("firing", &["a"]), at(60));
        assert_eq!(firing.next_expiry(at(61)), Some(at(160)));
        assert!(firing.is_any_firing(at(159)) && !firing.is_any_firing(at(160)));
        assert_eq!(firing.next_expiry(at(160)), None);
    }

    #[test]
    fn a_restart_keeps_the_alerts_and_a_repeat_restores_lost_ones() {
        let mut firing = ActiveAlerts::default();
        firing.apply(&spec(), &notices("firing", &["a", "b"]), at(0));
        let mut restored = ActiveAlerts::from_status(&firing.to_status(at(1)));
        assert_eq!(restored, firing);
        restored.apply(&spec(), &notices("resolved", &["a", "b"]), at(2));
        assert!(!restored.is_any_firing(at(2)));
        let mut lost = ActiveAlerts::default();
        lost.apply(&spec(), &notices("firing", &["a"]), at(3));
        assert!(lost.is_any_firing(at(3)));
    }

    #[test]
    fn only_alerts_with_all_labels_match_a_trigger() {
        let mut firing = ActiveAlerts::default();
        let mut other = spec();
        other
            .match_labels
            .insert("team".to_owned(), "shop".to_owned());
        assert!(!firing.apply(&other, &notices("firing", &["a"]), at(0)));
        other.match_labels.clear();
        assert!(!firing.apply(&other, &notices("firing", &["a"]), at(0)));
        assert!(!firing.is_any_firing(at(0)));
    }

    #[test]
    fn only_a_limited_number_of_alerts_is_kept() {
        let mut firing = ActiveAlerts::default();
        let fingerprints: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let fingerprints: Vec<&str> = fingerprints.iter().map(String::as_str).collect();
        firing.apply(&spec(), &notices("firing", &fingerprints), at(0));
        assert_eq!(firing.to_status(at(0)).len(), MAX_REMEMBERED);
    }

    #[test]
    fn resolved_alerts_make_room_for_firing_ones_in_the_same_request() {
        let mut firing = ActiveAlerts::default();
        let resolved: Vec<String> = (0..MAX_REMEMBERED).map(|n| n.to_string()).collect();
        let resolved: Vec<&str> = resolved.iter().map(String::as_str).collect();
        firing.apply(&spec(), &notices("firing", &resolved), at(0));
        let new = notices("firing", &["new"]);
        let all_notices = [new, notices("resolved", &resolved)].concat();
        assert!(firing.apply(&spec(), &all_notices, at(1)));
        let remaining: Vec<String> = firing
            .to_status(at(1))
            .into_iter()
            .map(|alert| alert.fingerprint)
            .collect();
        assert_eq!(remaining.len(), 1, "{remaining:?}");
    }

    #[test]
    fn an_invalid_payload_is_refused_with_a_reason() {
        let mut old_version = payload("firing", &["a"]);
        old_version["version"] = json!("3");
        let mut unknown_status = payload("firing", &["a"]);
        unknown_status["alerts"][0]["status"] = json!("maybe");
        for (body, expected) in [
            (b"{".to_vec(), "not a payload"),
            (b"[]".to_vec(), "not a payload"),
            (b"\xff".to_vec(), "not a payload"),
            (old_version.to_string().into_bytes(), "version is '3'"),
            (unknown_status.to_string().into_bytes(), "maybe"),
        ] {
            let why = parse(&body).expect_err(expected);
            assert!(why.contains(expected), "{expected}: {why}");
        }
        let mut without_fingerprint = payload("firing", &["a"]);
        without_fingerprint["alerts"][0]
            .as_object_mut()
            .expect("fields")
            .remove("fingerprint");
        let parsed = parse(without_fingerprint.to_string().as_bytes()).expect("a payload");
        assert_eq!(parsed[0].fingerprint.len(), 16);
    }
}

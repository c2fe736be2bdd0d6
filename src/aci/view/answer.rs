//! Answers that are no container group: pages of them, operations, errors.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::lenient::{each, lenient, time};
use super::{Event, Group, OperationState};

/// One page of a LIST.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The groups that could be read.
    pub groups: Vec<Group>,
    /// What could not be read: those elements' places in the page. A page with one of them does not
    /// prove that a group is gone.
    pub unreadable: Vec<usize>,
    /// Where the next page is.
    pub next_link: Option<String>,
}

/// An operation that a PUT, a DELETE or a start began.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// How far it has got.
    #[serde(deserialize_with = "lenient")]
    pub status: Option<OperationState>,
    /// When it began.
    #[serde(deserialize_with = "time")]
    pub start_time: Option<Timestamp>,
    /// What happened meanwhile.
    #[serde(deserialize_with = "lenient")]
    pub properties: OperationProperties,
    /// Why it failed, where ARM says it the usual way.
    #[serde(deserialize_with = "lenient")]
    pub error: Option<ErrorBody>,
}

/// What an operation says beside its status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationProperties {
    /// The events of the group and of all its containers.
    #[serde(deserialize_with = "each")]
    pub events: Vec<Event>,
}

/// An error as ARM writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorBody {
    /// What is wrong, in one word.
    #[serde(deserialize_with = "lenient")]
    pub code: String,
    /// What is wrong, in words.
    #[serde(deserialize_with = "lenient")]
    pub message: String,
    /// What it is about.
    #[serde(deserialize_with = "lenient")]
    pub target: Option<String>,
    /// The errors that it wraps.
    #[serde(deserialize_with = "each")]
    pub details: Vec<ErrorBody>,
}

impl Page {
    /// Reads the body of a LIST; nothing if it is no such body.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let mut page = Self {
            next_link: body
                .get("nextLink")
                .and_then(Value::as_str)
                .map(str::to_owned),
            ..Self::default()
        };
        page.next_link = page.next_link.filter(|link| !link.is_empty());
        for (at, element) in body.get("value")?.as_array()?.iter().enumerate() {
            match Group::read(element) {
                Some(group) => page.groups.push(group),
                None => page.unreadable.push(at),
            }
        }
        Some(page)
    }
}

impl Operation {
    /// Reads the body of an answer that is an operation.
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

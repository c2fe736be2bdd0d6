//! Answers that are no container group: pages of them, operations, errors.

use std::fmt;

use jiff::Timestamp;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
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

/// A LIST's answer as it is sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    value: Elements,
    #[serde(default)]
    next_link: Option<String>,
}

/// The elements of a page: those that could be read, and the places of the others.
#[derive(Default)]
struct Elements(Vec<Group>, Vec<usize>);

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self::default())
    }
}

impl<'de> Visitor<'de> for Elements {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of container groups")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Self, A::Error> {
        let mut at = 0;
        while let Some(element) = elements.next_element::<Value>()? {
            match Group::read(&element) {
                Some(group) => self.0.push(group),
                None => self.1.push(at),
            }
            at += 1;
        }
        Ok(self)
    }
}

impl Page {
    /// Reads the body of a LIST, one element after the other: as JSON's own values, a page of a thousand
    /// groups would take ten times its length.
    ///
    /// # Errors
    ///
    /// When it is no such body. What cannot be told from an empty page proves that nothing is there.
    pub fn parse(body: &[u8]) -> serde_json::Result<Self> {
        let answer: Answer = serde_json::from_slice(body)?;
        let Elements(groups, unreadable) = answer.value;
        Ok(Self {
            groups,
            unreadable,
            next_link: answer.next_link.filter(|link| !link.is_empty()),
        })
    }
}

impl Operation {
    /// Reads the body of an answer that is an operation.
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

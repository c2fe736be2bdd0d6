//! Answers that are not a container group: pages of a LIST, asynchronous operations, errors.
//!
//! In: the body of an answer. Out: [`ListPage`], [`AsyncOperation`] or [`ArmErrorBody`].

use std::fmt;

use jiff::Timestamp;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::lenient::{each, lenient, time};
use super::{ContainerGroup, InstanceEvent, OperationState};

/// One page of a LIST.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListPage {
    /// The groups that could be parsed.
    pub groups: Vec<ContainerGroup>,
    /// The indexes of the elements that could not be parsed. A page with such elements does not prove that a group
    /// is gone.
    pub unreadable: Vec<usize>,
    /// The URL of the next page; `None` on the last page.
    pub next_link: Option<String>,
}

/// An asynchronous operation that a PUT, a DELETE or a start began.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AsyncOperation {
    /// The status of the operation.
    #[serde(deserialize_with = "lenient")]
    pub status: Option<OperationState>,
    /// When it began.
    #[serde(deserialize_with = "time")]
    pub start_time: Option<Timestamp>,
    /// Further results of the operation.
    #[serde(deserialize_with = "lenient")]
    pub properties: OperationProperties,
    /// The error, if the operation failed and ARM reports it in its usual form.
    #[serde(deserialize_with = "lenient")]
    pub error: Option<ArmErrorBody>,
}

/// The results of an operation besides its status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationProperties {
    /// The events of the group and of all its containers.
    #[serde(deserialize_with = "each")]
    pub events: Vec<InstanceEvent>,
}

/// An error in ARM's format.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArmErrorBody {
    /// The error code: one word.
    #[serde(deserialize_with = "lenient")]
    pub code: String,
    /// The error message.
    #[serde(deserialize_with = "lenient")]
    pub message: String,
    /// The target of the error.
    #[serde(deserialize_with = "lenient")]
    pub target: Option<String>,
    /// The errors that this one wraps.
    #[serde(deserialize_with = "each")]
    pub details: Vec<ArmErrorBody>,
}

/// The body of an answer to LIST.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListResponse {
    value: ListElements,
    #[serde(default)]
    next_link: Option<String>,
}

/// The elements of a page: the groups that could be parsed, and the indexes of the others.
#[derive(Default)]
struct ListElements(Vec<ContainerGroup>, Vec<usize>);

impl<'de> Deserialize<'de> for ListElements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self::default())
    }
}

impl<'de> Visitor<'de> for ListElements {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of container groups")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Self, A::Error> {
        let mut at = 0;
        while let Some(element) = elements.next_element::<Value>()? {
            match ContainerGroup::from_value(&element) {
                Some(group) => self.0.push(group),
                None => self.1.push(at),
            }
            at += 1;
        }
        Ok(self)
    }
}

impl ListPage {
    /// Parses the body of an answer to LIST, element by element: as one JSON value, a page of a thousand groups
    /// would need ten times its length in memory.
    ///
    /// # Errors
    ///
    /// If the body is not an answer to LIST. It must not be taken for an empty page, which would prove that no
    /// group exists.
    pub fn parse(body: &[u8]) -> serde_json::Result<Self> {
        let answer: ListResponse = serde_json::from_slice(body)?;
        let ListElements(groups, unreadable) = answer.value;
        Ok(Self {
            groups,
            unreadable,
            next_link: answer.next_link.filter(|link| !link.is_empty()),
        })
    }
}

impl AsyncOperation {
    /// Parses the body of an answer that contains an operation.
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

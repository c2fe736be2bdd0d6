//! Listing container groups.
//!
//! In: a resource group. Out: what is in it, page after page; or an error where the pages do not prove
//! that this is all.

use url::Url;

use super::send::body;
use super::{Class, Client, Scope};
use crate::aci::error::Error;
use crate::aci::pace::Pace;
use crate::aci::view::{Group, Page};

/// The container groups of a resource group.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// Those that can be read.
    pub all: Vec<Group>,
    /// How many cannot: with one of them, nothing proves that a group is gone.
    pub unreadable: usize,
    /// How many pages they came in.
    pub pages: u32,
}

impl Client {
    /// All container groups of the resource group, without instance views. Each page takes a turn of the
    /// pace.
    ///
    /// # Errors
    ///
    /// Also when a page says of the next one what cannot be followed: what was read until then proves of
    /// no group that it is gone. The token goes to nobody but Azure.
    pub async fn list(&self, scope: &Scope, pace: &Pace) -> Result<Groups, Error> {
        let what = format!("listing container groups of {}", scope.resource_group);
        let unreadable = |source| Error::Unreadable {
            what: what.clone(),
            source,
        };
        let mut url = self.arm.clone();
        url.set_path(&format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ContainerInstance/containerGroups",
            scope.subscription, scope.resource_group
        ));
        let mut listed = Groups::default();
        loop {
            listed.pages += 1;
            pace.turn_ahead().await;
            let answer = self
                .guarded(scope, Class::Reads, &what, self.read_url(url))
                .await?;
            let page = Page::parse(&body(answer, &what).await?).map_err(unreadable)?;
            listed.unreadable += page.unreadable.len();
            listed.all.extend(page.groups);
            let Some(link) = page.next_link else {
                return Ok(listed);
            };
            url = self.next(&link).map_err(unreadable)?;
        }
    }

    /// Where a page's next one is.
    fn next(&self, link: &str) -> serde_json::Result<Url> {
        let next = Url::parse(link).ok();
        let ours = next.filter(|next| next.origin() == self.arm.origin());
        ours.ok_or_else(|| serde::de::Error::custom(format!("nextLink leads elsewhere: {link}")))
    }
}

#[cfg(test)]
mod tests {
    use crate::aci::client::{Client, Cloud, Credential};

    #[test]
    fn a_next_page_elsewhere_is_not_asked_for_with_our_token() {
        let credential = Credential::File("token".into());
        let client = Client::new(&Cloud::default(), credential, reqwest::Client::new());
        let arm = "https://management.azure.com/subscriptions/s?$skiptoken=a%2Fb";
        assert_eq!(client.next(arm).expect("ours").as_str(), arm);
        for elsewhere in [
            "https://management.azure.com.example/",
            "http://management.azure.com/",
            "https://management.azure.com:8443/",
            "/subscriptions/s",
            "next",
        ] {
            let error = client.next(elsewhere).expect_err(elsewhere).to_string();
            assert!(error.contains(elsewhere), "{error}");
        }
    }
}

//! Lists container groups.
//!
//! In: a resource group. Out: all of its container groups, read page by page; an error if a page is missing,
//! because the list would then not prove that an absent group is gone.

use url::Url;

use super::requests::read_body;
use super::{AciClient, GroupScope, RequestClass};
use crate::aci::error::Error;
use crate::aci::rate_limiter::RateLimiter;
use crate::aci::response::{ContainerGroup, ListPage};

/// The container groups of a resource group.
#[derive(Clone, Debug, Default)]
pub struct GroupList {
    /// The groups that could be parsed.
    pub groups: Vec<ContainerGroup>,
    /// The number of groups that could not be parsed. If it is not zero, the list does not prove that any group is
    /// gone.
    pub unreadable_count: usize,
    /// The number of pages.
    pub page_count: u32,
}

impl AciClient {
    /// Returns all container groups of the resource group, without instance views. Each page takes one turn of the
    /// `rate_limiter`, ahead of the queue.
    ///
    /// # Errors
    ///
    /// If a request fails, and also if a page has an invalid link to the next page, or one that points to another
    /// host than Azure's: an incomplete list does not prove that a group is gone, and the token must be sent only
    /// to Azure.
    pub async fn list(
        &self,
        scope: &GroupScope,
        rate_limiter: &RateLimiter,
    ) -> Result<GroupList, Error> {
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
        let mut listed = GroupList::default();
        loop {
            listed.page_count += 1;
            rate_limiter.acquire_priority().await;
            let answer = self
                .send_counted(scope, RequestClass::Reads, &what, self.get_url(url))
                .await?;
            let page = ListPage::parse(&read_body(answer, &what).await?).map_err(unreadable)?;
            listed.unreadable_count += page.unreadable.len();
            listed.groups.extend(page.groups);
            let Some(link) = page.next_link else {
                return Ok(listed);
            };
            url = self.next_page_url(&link).map_err(unreadable)?;
        }
    }

    /// Parses the link to the next page and checks that it points to the same ARM endpoint.
    fn next_page_url(&self, link: &str) -> serde_json::Result<Url> {
        let next = Url::parse(link).ok();
        let same_host = next.filter(|next| next.origin() == self.arm.origin());
        same_host.ok_or_else(|| {
            serde::de::Error::custom(format!(
                "nextLink is not a URL of Azure Resource Manager: {link}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::aci::client::{AciClient, CloudEndpoints, Credential};

    #[test]
    fn the_token_is_not_sent_to_a_next_page_on_another_host() {
        let credential = Credential::File("token".into());
        let client = AciClient::new(
            &CloudEndpoints::default(),
            credential,
            reqwest::Client::new(),
        );
        let arm = "https://management.azure.com/subscriptions/s?$skiptoken=a%2Fb";
        assert_eq!(client.next_page_url(arm).expect("ours").as_str(), arm);
        for elsewhere in [
            "https://management.azure.com.example/",
            "http://management.azure.com/",
            "https://management.azure.com:8443/",
            "/subscriptions/s",
            "next",
        ] {
            let error = client
                .next_page_url(elsewhere)
                .expect_err(elsewhere)
                .to_string();
            assert!(error.contains(elsewhere), "{error}");
        }
    }
}

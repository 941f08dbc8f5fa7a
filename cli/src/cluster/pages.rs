//! Lists come in pages; verbs want them whole, or the first so many.

use tresor_proto::v1;

use super::{Cluster, ClusterError};

/// Rows asked for at once: about a megabyte of the longest kind.
const PAGE: usize = 1000;

/// Rows, and whether there are more than were wanted.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    /// In the cluster's order.
    pub(crate) rows: Vec<T>,
    /// There are more.
    pub(crate) more: bool,
}

impl<T> Listed<T> {
    const fn new() -> Self {
        Self {
            rows: Vec::new(),
            more: false,
        }
    }

    /// How many to ask for next. One more than wanted tells whether there are more.
    fn page_size(&self, most: Option<usize>) -> u32 {
        let wanted = most.map_or(PAGE, |most| (most + 1).saturating_sub(self.rows.len()).min(PAGE));
        u32::try_from(wanted).expect("a page has at most 1000 rows")
    }

    /// Takes a page; gives the token to ask on with, or nothing when this is enough.
    fn take(
        &mut self,
        page: Vec<T>,
        asked_with: &str,
        next: String,
        most: Option<usize>,
    ) -> Result<Option<String>, ClusterError> {
        self.rows.extend(page);
        if let Some(most) = most.filter(|most| self.rows.len() > *most) {
            self.rows.truncate(most);
            self.more = true;
            return Ok(None);
        }
        if next.is_empty() {
            return Ok(None);
        }
        // A page that leads to itself would be read for ever.
        if next == asked_with {
            return Err(ClusterError::Answer {
                what: "a page of a list comes after itself",
            });
        }
        Ok(Some(next))
    }
}

macro_rules! lists {
    ($($(#[$doc:meta])* $name:ident: $call:ident($request:ident) -> $field:ident: $row:ident;)*) => {
        impl Cluster {
            $($(#[$doc])*
            pub(crate) async fn $name(
                &self,
                mut request: v1::$request,
                most: Option<usize>,
            ) -> Result<Listed<v1::$row>, ClusterError> {
                let mut listed = Listed::new();
                loop {
                    request.page_size = listed.page_size(most);
                    let page = self.$call(request.clone()).await?;
                    match listed.take(page.$field, &request.page_token, page.next_page_token, most)? {
                        Some(next) => request.page_token = next,
                        None => return Ok(listed),
                    }
                }
            })*
        }
    };
}

/// Whether more rows are wanted.
pub(crate) enum Go {
    /// On to the next one.
    On,
    /// Nothing that comes after is wanted.
    Enough,
}

macro_rules! walks {
    ($($(#[$doc:meta])* $name:ident: $call:ident($request:ident) -> $field:ident: $row:ident;)*) => {
        impl Cluster {
            $($(#[$doc])*
            pub(crate) async fn $name(
                &self,
                mut request: v1::$request,
                mut take: impl FnMut(v1::$row) -> Go,
            ) -> Result<(), ClusterError> {
                let mut listed = Listed::new();
                request.page_size = listed.page_size(None);
                loop {
                    let page = self.$call(request.clone()).await?;
                    let next = listed.take(page.$field, &request.page_token, page.next_page_token, None)?;
                    for row in listed.rows.drain(..) {
                        if matches!(take(row), Go::Enough) {
                            return Ok(());
                        }
                    }
                    match next {
                        Some(next) => request.page_token = next,
                        None => return Ok(()),
                    }
                }
            })*
        }
    };
}

// One by one, where nobody needs all at once: there may be a hundred thousand items and a million points.
walks! {
    /// Items by name.
    each_item: list_items(ListItemsRequest) -> items: Item;
    /// Points by item, the newest of each first.
    each_point: list_points(ListPointsRequest) -> points: Point;
    /// Jobs, the newest first.
    each_job: list_jobs(ListJobsRequest) -> jobs: Job;
    /// Entries of the audit trail, the newest first.
    each_audited: list_audit(ListAuditRequest) -> entries: AuditEntry;
}

lists! {
    /// Vaults by name.
    vaults: list_vaults(ListVaultsRequest) -> vaults: Vault;
    /// Policies by name.
    policies: list_policies(ListPoliciesRequest) -> policies: Policy;
    /// Items by name.
    items: list_items(ListItemsRequest) -> items: Item;
    /// Points, the newest first.
    points: list_points(ListPointsRequest) -> points: Point;
    /// Jobs, the newest first.
    jobs: list_jobs(ListJobsRequest) -> jobs: Job;
    /// Workers by name.
    workers: list_workers(ListWorkersRequest) -> workers: Worker;
    /// Tokens, the newest first.
    tokens: list_tokens(ListTokensRequest) -> tokens: Token;
    /// Entries of the audit trail, the newest first.
    audit: list_audit(ListAuditRequest) -> entries: AuditEntry;
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn one_row_more_than_wanted_is_asked_for_and_not_shown() {
        let mut listed = Listed::new();
        assert_eq!(listed.page_size(Some(2)), 3);
        assert_eq!(
            listed.take(vec![1, 2, 3], "", String::from("a"), Some(2)).unwrap(),
            None
        );
        assert_eq!((listed.rows, listed.more), (vec![1, 2], true));
    }

    #[test]
    fn pages_are_read_on_until_the_last() {
        let mut listed = Listed::new();
        assert_eq!(listed.page_size(None), 1000);
        let next = listed.take(vec![1, 2], "", String::from("a"), None).unwrap();
        assert_eq!(next.as_deref(), Some("a"));
        // A page may be empty and not the last: what was in it went away meanwhile.
        let next = listed.take(vec![], "a", String::from("b"), None).unwrap();
        assert_eq!(next.as_deref(), Some("b"));
        assert_eq!(listed.take(vec![3], "b", String::new(), None).unwrap(), None);
        assert_eq!((listed.rows, listed.more), (vec![1, 2, 3], false));
    }

    #[test]
    fn a_page_that_leads_to_itself_is_refused() {
        let mut listed = Listed::new();
        assert!(listed.take(vec![1], "a", String::from("a"), None).is_err());
    }
}

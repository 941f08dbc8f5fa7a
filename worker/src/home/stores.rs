//! From an URL to an open store, with what the configuration says of it.

use std::collections::BTreeMap;

use tresor_storage::backend::{BackendError, OpenStore, StoreConfig, open};

/// Opens stores. Commands have [`StoreConfigs`]; tests put other stores in.
pub trait Stores: Send + Sync {
    /// Opens the store at `url`; with `create`, a local folder is made if need be.
    ///
    /// # Errors
    /// As [`open`].
    fn open(&self, url: &str, create: bool) -> Result<OpenStore, BackendError>;
}

/// How each store is reached.
#[derive(Debug, Clone, Default)]
pub struct StoreConfigs {
    /// For stores of which nothing is said.
    pub default: StoreConfig,
    /// By the beginning of the URL; the longest that ends where a part of the path ends wins.
    pub by_url: BTreeMap<String, StoreConfig>,
}

impl StoreConfigs {
    /// What is said of a store.
    pub fn of(&self, url: &str) -> &StoreConfig {
        let url = url.trim_end_matches('/');
        let fits = |prefix: &str| {
            url.strip_prefix(prefix.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let best = self
            .by_url
            .iter()
            .filter(|(prefix, _)| fits(prefix))
            .max_by_key(|(prefix, _)| prefix.trim_end_matches('/').len());
        best.map_or(&self.default, |(_, config)| config)
    }
}

impl Stores for StoreConfigs {
    fn open(&self, url: &str, create: bool) -> Result<OpenStore, BackendError> {
        let mut config = self.of(url).clone();
        config.create_root |= create;
        open(url, &config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_of_the_url_wins() {
        let config = |region: &str| StoreConfig {
            region: Some(region.into()),
            ..StoreConfig::default()
        };
        let by_url = [("s3://a", "one"), ("s3://a/b/", "two"), ("s3://a/b/c", "three")];
        let configs = StoreConfigs {
            default: config("default"),
            by_url: by_url
                .into_iter()
                .map(|(url, region)| (url.to_owned(), config(region)))
                .collect(),
        };
        let region = |url| configs.of(url).region.as_deref();
        assert_eq!(region("s3://a"), Some("one"));
        assert_eq!(region("s3://a/bb"), Some("one"));
        assert_eq!(region("s3://a/b"), Some("two"));
        assert_eq!(region("s3://a/b/c/d"), Some("three"));
        assert_eq!(region("s3://ab"), Some("default"));
    }
}

//! The real program beside a coordinator that plays a script.

use super::admin::{Coordinator, refused};
use super::common::{Ran, Site};

/// A home, and the cluster of a node beside it.
pub(crate) struct Here {
    pub(crate) site: Site,
    pub(crate) coordinator: Coordinator,
}

impl Here {
    pub(crate) fn new() -> Self {
        let site = Site::new();
        let coordinator = Coordinator::at(&site.path("node/socket"));
        Self { site, coordinator }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let args = [&["--cluster", &self.coordinator.target], args].concat();
        let mut command = self.site.command(&args);
        Ran::new(&args, command.env("TRESOR_CLUSTER_PATIENCE", "4s").output().unwrap())
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let ran = self.run(&[&["--json"], args].concat());
        assert_eq!(ran.code, 0, "{ran}");
        ran.value()
    }

    /// The answer to requests of this type.
    pub(crate) fn on<Q: 'static, A: Clone + Send + 'static>(&self, answer: A) {
        self.coordinator.script.answer::<Q, A>(Ok(answer));
    }

    /// The refusal of a request of this type.
    pub(crate) fn refuse<Q: 'static, A: Clone + Send + 'static>(&self, kind: &str, field: &str, message: &str) {
        self.coordinator
            .script
            .answer::<Q, A>(Err(refused(kind, field, message)));
    }

    pub(crate) fn only<Q: Clone + 'static>(&self) -> Q {
        self.coordinator.script.only::<Q>()
    }
}

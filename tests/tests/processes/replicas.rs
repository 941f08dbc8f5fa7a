//! Whether replicas agree: their rows, read from their folders after their processes have ended.

use std::path::Path;

use tresor_coordinator::process::Folder;
use tresor_coordinator::store::rocks::Rocks;
use tresor_coordinator::store::{Row, Stamp, Store};
use tresor_proto::ids::MemberId;

use super::cluster::Cluster;

/// Opens the store of a coordinator that does not run.
pub(crate) fn store(folder: &Path) -> Store<Rocks> {
    let identity = Folder::new(folder).identity().unwrap();
    let name = identity.name();
    let stamp = Stamp {
        node: MemberId(name.id),
        cluster: name.cluster,
    };
    Store::open(Rocks::open(&folder.join("raft")).unwrap(), stamp).unwrap()
}

impl Cluster {
    /// Ends all coordinators that run, once they have applied the same, and compares all rows that they have.
    pub(crate) fn assert_replicas_agree(mut self) {
        let names: Vec<String> = self.coordinators().into_iter().filter(|name| self.runs(name)).collect();
        // Workers end first, so that nothing happens any more of which one coordinator has heard and another one not yet.
        for worker in self.workers() {
            if self.runs(&worker) {
                self.kill(&worker);
            }
        }
        self.settle();
        for name in &names {
            self.kill(name);
        }
        let mut replicas = names.iter().map(|name| {
            let store = store(&self.path(name));
            let rows: Vec<Row> = store.read_rows(|rows| rows.collect()).unwrap();
            (name, store.applied(), rows)
        });
        let (first, applied, rows) = replicas.next().unwrap();
        assert!(!rows.is_empty());
        for (name, its_applied, its_rows) in replicas {
            assert_eq!(its_applied, applied, "{name} has applied other entries than {first}");
            assert!(its_rows == rows, "{name} has other rows than {first}");
        }
    }
}

use super::*;
use crate::seeded::{Random, for_seeds};
use crate::state::entry::Actor;
use crate::state::rows::Slot;
use crate::testing::{Acts as _, LIFE, MAIN, Story, registers, serves};

/// The slots and who shares them, played without a log: what is planned is done.
struct Board {
    owned: BTreeMap<u16, Owned>,
    servers: BTreeMap<WorkerId, Server>,
}

const HERE: Server = Server {
    stand: Stand::Here,
    drained: false,
};

impl Board {
    fn new(servers: u64) -> Self {
        Self {
            owned: BTreeMap::new(),
            servers: (1..=servers).map(|id| (WorkerId(id), HERE)).collect(),
        }
    }

    fn plan(&self) -> Plan {
        plan(SLOTS, &self.owned, &self.servers)
    }

    fn grant(&mut self, grants: &[(u16, WorkerId)]) {
        for (slot, worker) in grants {
            let owned = Owned {
                worker: *worker,
                is_live: true,
            };
            self.owned.insert(*slot, owned);
        }
    }

    /// Grants what nobody answers for; how much that was.
    fn settle(&mut self) -> usize {
        let plan = self.plan();
        self.grant(&plan.at_once);
        plan.at_once.len()
    }

    /// Moves until nothing is planned any more; how much moved.
    fn balance(&mut self) -> usize {
        let mut moved = 0;
        loop {
            let mut moves = self.plan().moves;
            moves.truncate(BATCH_SLOTS);
            if moves.is_empty() {
                return moved;
            }
            moved += moves.len();
            self.grant(&moves);
        }
    }

    fn load(&self, id: u64) -> usize {
        self.owned.values().filter(|owned| owned.worker == WorkerId(id)).count()
    }

    fn loads(&self) -> BTreeMap<WorkerId, usize> {
        let mut loads: BTreeMap<WorkerId, usize> = self.servers.keys().map(|id| (*id, 0)).collect();
        for owned in self.owned.values() {
            *loads.entry(owned.worker).or_insert(0) += 1;
        }
        loads
    }

    fn set(&mut self, id: u64, stand: Stand, drained: bool) {
        self.servers.insert(WorkerId(id), Server { stand, drained });
    }

    /// A worker's process restarts: what it had is granted to nobody that lives.
    fn restart(&mut self, id: u64) {
        for owned in self.owned.values_mut().filter(|owned| owned.worker == WorkerId(id)) {
            owned.is_live = false;
        }
    }
}

fn spread(loads: impl IntoIterator<Item = usize>) -> usize {
    let loads: Vec<usize> = loads.into_iter().collect();
    loads.iter().max().unwrap() - loads.iter().min().unwrap()
}

#[test]
fn the_first_grants_are_even_and_in_one_run_for_each() {
    for workers in [1, 2, 3, 7, 100, 1000, 4096, 5000] {
        let mut board = Board::new(workers);
        assert_eq!(board.settle(), 4096);
        assert!(spread(board.loads().into_values()) <= 1, "{workers}");
        let owners: Vec<WorkerId> = board.owned.values().map(|owned| owned.worker).collect();
        let runs = 1 + owners.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(runs as u64, workers.min(4096));
        assert_eq!(board.plan(), Plan::default(), "nothing is left to do");
    }
}

#[test]
fn a_restarted_worker_gets_its_own_slots_back_and_nothing_else_changes() {
    let mut board = Board::new(3);
    board.settle();
    let own: Vec<u16> = board
        .owned
        .iter()
        .filter(|(_, owned)| owned.worker == WorkerId(2))
        .map(|(slot, _)| *slot)
        .collect();
    board.restart(2);
    let plan = board.plan();
    assert!(plan.at_once.iter().all(|(_, worker)| *worker == WorkerId(2)));
    assert_eq!(plan.at_once.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), own);
    assert!(plan.moves.is_empty());
    // While it is not heard of, they wait for it.
    board.set(2, Stand::Quiet, false);
    assert_eq!(board.plan(), Plan::default());
}

#[test]
fn slots_of_the_dead_go_to_the_living_evenly_and_nothing_else_moves() {
    let mut board = Board::new(4);
    board.settle();
    board.set(3, Stand::Dead, false);
    let dead = board.load(3);
    let plan = board.plan();
    assert_eq!((plan.at_once.len(), plan.moves.len()), (dead, 0));
    board.settle();
    assert!(spread([1, 2, 4].map(|id| board.load(id))) <= 1);
    assert_eq!(board.load(3), 0);
    // Removed ones are not there at all.
    board.servers.remove(&WorkerId(4));
    let gone = board.load(4);
    assert_eq!(board.settle(), gone);
    assert_eq!((board.load(1), board.load(2)), (2048, 2048));
}

#[test]
fn the_last_one_keeps_what_it_has_however_it_stands() {
    let mut board = Board::new(1);
    board.settle();
    for (stand, drained) in [
        (Stand::Quiet, false),
        (Stand::Dead, false),
        (Stand::Here, true),
        (Stand::Dead, true),
    ] {
        board.set(1, stand, drained);
        assert_eq!(board.plan(), Plan::default(), "{stand:?} {drained}");
    }
    // Restarted while it drains, and nobody else is there: it answers again.
    board.set(1, Stand::Here, true);
    board.restart(1);
    assert_eq!(board.plan().at_once.len(), 4096);
}

#[test]
fn a_join_and_a_drain_move_no_more_than_they_have_to() {
    let mut board = Board::new(4);
    board.settle();
    board.set(5, Stand::Here, false);
    assert_eq!(board.settle(), 0);
    assert_eq!(
        board.balance(),
        819,
        "the fifth gets its share, and nobody else anything"
    );
    assert!(spread(board.loads().into_values()) <= 1);
    board.set(5, Stand::Here, true);
    assert_eq!(board.balance(), 819);
    assert_eq!(board.load(5), 0);
    // A drained worker that restarts has nothing to keep: it moves at once.
    board.set(4, Stand::Here, true);
    board.restart(4);
    assert_eq!(board.settle(), 1024);
    assert_eq!(board.load(4), 0);
}

#[test]
fn nobody_gets_more_than_a_share_because_others_are_not_heard_of_yet() {
    let mut board = Board::new(4);
    for id in 2..=4 {
        board.set(id, Stand::Quiet, false);
    }
    board.settle();
    assert_eq!((board.load(1), board.owned.len()), (1024, 1024));
    for id in 2..=4 {
        board.set(id, Stand::Here, false);
    }
    board.settle();
    assert!(spread(board.loads().into_values()) <= 1);
    assert_eq!(board.balance(), 0);
}

/// Workers come, go, drain, fall silent and restart by the hundred.
#[test]
fn whatever_comes_and_goes_loads_are_even_and_nothing_moves_that_need_not() {
    for_seeds(0..60, |seed| {
        let mut random = Random::seeded(seed);
        let mut board = Board::new(1 + random.below(if seed % 10 == 0 { 1000 } else { 30 }));
        let mut next = 2000;
        for _ in 0..15 {
            let ids: Vec<u64> = board.servers.keys().map(|id| id.0).collect();
            let id = ids[random.place(ids.len())];
            match random.below(6) {
                0 => {
                    next += 1;
                    board.set(next, Stand::Here, false);
                }
                1 => board.set(id, Stand::Dead, false),
                2 => board.set(id, Stand::Here, random.one_in(2)),
                3 => board.restart(id),
                4 if ids.len() > 1 => {
                    board.servers.remove(&WorkerId(id));
                }
                _ => board.set(id, Stand::Here, false),
            }
            let plan = board.plan();
            assert_eq!(plan, board.plan(), "it is decided the same again");
            let shares = |id: &WorkerId| board.servers[id] == HERE;
            let sharing: Vec<WorkerId> = board.servers.keys().copied().filter(shares).collect();
            // Nothing that somebody answers for is granted at once, and nobody gets anything who is not to.
            for (slot, to) in &plan.at_once {
                if let Some(owned) = board.owned.get(slot) {
                    let owner = board.servers.get(&owned.worker);
                    let answers = owned.is_live && owner.is_some_and(|owner| owner.stand != Stand::Dead);
                    assert!(!answers, "seed {seed}: slot {slot}");
                }
                assert!(sharing.contains(to) || sharing.is_empty(), "seed {seed}: to {to}");
            }
            board.settle();
            let before = board.loads();
            let moved = board.balance();
            let after = board.loads();
            if sharing.is_empty() {
                assert_eq!(moved, 0);
                continue;
            }
            assert_eq!(board.owned.len(), 4096, "seed {seed}");
            assert!(spread(sharing.iter().map(|id| after[id])) <= 1, "seed {seed}");
            // What has to move: all of those that drain, and what is above the level that the others come to.
            let level = 4096 / sharing.len();
            let mut above: usize = 0;
            let mut over = 0;
            for (id, load) in &before {
                if !sharing.contains(id) {
                    above += load;
                } else if *load > level {
                    above += load - level;
                    over += 1;
                }
            }
            let spared = over.min(4096 % sharing.len());
            assert_eq!(moved, above - spared, "seed {seed}");
        }
    });
}

/// A cluster with workers `a`, `b`, … that serve, and what the leader knows.
struct Lead {
    story: Story,
    presence: Presence,
    moves: Moves,
    now_ms: u64,
    workers: Vec<WorkerId>,
}

impl Lead {
    fn new(workers: usize) -> Self {
        let mut story = Story::new();
        let workers = (0..workers)
            .map(|number| serves(&mut story, &format!("s{number}")))
            .collect();
        let mut lead = Self {
            story,
            presence: Presence::default(),
            moves: Moves::default(),
            now_ms: 1_000_000,
            workers,
        };
        lead.moves.begin(lead.now_ms);
        lead.story.advance(SETTLE_MS);
        lead.hear_all();
        lead
    }

    fn hear(&mut self, worker: WorkerId) {
        let life = self.story.state.workers().get(&worker).unwrap().life.unwrap();
        self.presence.hear(worker, life, 0, self.now_ms);
    }

    fn hear_all(&mut self) {
        for worker in self.workers.clone() {
            if self.story.state.workers().get(&worker).unwrap().life.is_some() {
                self.hear(worker);
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.story.advance(i64::try_from(ms).unwrap());
    }

    /// Looks once, long after the last grant; what was granted.
    fn look(&mut self) -> usize {
        self.moves.granted_at = None;
        self.look_again()
    }

    /// Looks once; what was granted.
    fn look_again(&mut self) -> usize {
        let command = self
            .moves
            .due(&self.story.state, &self.presence, self.story.now, self.now_ms);
        let Some(Command::GrantSlots { seen, grants }) = command else {
            return 0;
        };
        let count = grants.len();
        self.story.makes(Command::GrantSlots { seen, grants });
        count
    }

    fn load(&self, worker: WorkerId) -> usize {
        self.story
            .state
            .slots()
            .values()
            .filter(|slot| slot.worker == worker)
            .count()
    }

    fn slot(&self, number: u16) -> Slot {
        *self.story.state.slots().get(&number).unwrap()
    }

    fn restart(&mut self, place: usize, life: u8, kept: Option<[u8; 16]>) {
        let worker = self.workers[place];
        registers(&mut self.story, worker, &format!("s{place}"), [life; 16], kept);
    }
}

#[test]
fn a_new_cluster_waits_until_those_that_come_together_are_there() {
    let mut lead = Lead::new(1);
    lead.story.now = lead.story.now.plus(-SETTLE_MS);
    assert_eq!(lead.look(), 0);
    lead.pass(u64::try_from(SETTLE_MS).unwrap() - 1);
    let second = serves(&mut lead.story, "s1");
    lead.workers.push(second);
    lead.hear_all();
    lead.pass(10);
    assert_eq!(lead.look(), 0, "one came just now");
    lead.pass(u64::try_from(SETTLE_MS).unwrap());
    lead.hear_all();
    assert_eq!(lead.look(), 4096);
    assert_eq!((lead.load(lead.workers[0]), lead.load(second)), (2048, 2048));
}

#[test]
fn grants_come_no_faster_than_maps_can_be_told() {
    let mut lead = Lead::new(2);
    assert_eq!(lead.look(), 4096);
    lead.restart(0, 7, Some(LIFE));
    lead.hear_all();
    assert_eq!(lead.look_again(), 0);
    lead.pass(GRANT_MS - 1);
    lead.restart(1, 8, Some(LIFE));
    lead.hear_all();
    assert_eq!(lead.look_again(), 0);
    lead.pass(1);
    assert_eq!(lead.look_again(), 4096, "both at once");
}

#[test]
fn where_nobody_serves_nothing_is_granted() {
    let mut lead = Lead::new(0);
    lead.pass(100_000);
    assert_eq!(lead.look(), 0);
    assert_eq!(lead.story.state.marks().slot_map, 0);
}

#[test]
fn a_worker_that_restarts_has_its_slots_again_at_the_next_look_with_all_that_it_kept() {
    let mut lead = Lead::new(2);
    lead.look();
    let first = lead.slot(0);
    lead.pass(LEASE_MS - 1);
    lead.hear(lead.workers[1]);
    assert_eq!(lead.look(), 0, "it may come back");
    lead.restart(0, 7, Some(LIFE));
    lead.hear(lead.workers[0]);
    assert_eq!(lead.look(), 2048);
    let again = lead.slot(0);
    assert_eq!(
        (again.worker, again.life, again.since),
        (first.worker, [7; 16], first.owner_epoch)
    );
    assert!(again.owner_epoch > first.owner_epoch);
    assert_eq!(
        lead.slot(4095).owner_epoch,
        first.owner_epoch,
        "the other's stand as they were"
    );
}

#[test]
fn the_slots_of_who_is_not_heard_of_for_a_lease_go_to_the_others() {
    let mut lead = Lead::new(3);
    lead.look();
    lead.pass(LEASE_MS - 1);
    lead.hear(lead.workers[0]);
    lead.hear(lead.workers[1]);
    assert_eq!(lead.look(), 0);
    lead.pass(1);
    let dead = lead.load(lead.workers[2]);
    assert_eq!(lead.look(), dead);
    assert_eq!(lead.load(lead.workers[2]), 0);
    assert_eq!(lead.load(lead.workers[0]), 2048);
}

#[test]
fn a_new_leader_gives_everybody_a_full_term() {
    let mut lead = Lead::new(2);
    lead.look();
    lead.pass(10 * LEASE_MS);
    (lead.presence, lead.moves) = (Presence::default(), Moves::default());
    lead.moves.begin(lead.now_ms);
    assert_eq!(lead.look(), 0);
    lead.pass(LEASE_MS - 1);
    lead.hear(lead.workers[0]);
    assert_eq!(lead.look(), 0);
    lead.pass(1);
    assert_eq!(lead.look(), 2048);
}

#[test]
fn a_removed_workers_slots_move_at_once() {
    let mut lead = Lead::new(2);
    lead.look();
    let worker = lead.workers[1];
    lead.story.does(Command::RemoveWorker { worker });
    assert_eq!(lead.look(), 2048);
    assert_eq!(lead.load(lead.workers[0]), 4096);
}

#[test]
fn planned_moves_come_in_batches_with_a_minute_between_them() {
    let mut lead = Lead::new(2);
    lead.look();
    let worker = lead.workers[0];
    lead.story.does(Command::Drain { worker, drained: true });
    assert_eq!(lead.look(), BATCH_SLOTS);
    let mut batches = 1;
    let begun = lead.now_ms;
    while lead.load(worker) > 0 {
        lead.pass(500);
        lead.hear_all();
        let moved = lead.look();
        assert!(moved <= BATCH_SLOTS);
        batches += u64::from(moved > 0);
    }
    assert_eq!(batches, 8);
    assert_eq!(lead.now_ms - begun, 7 * BATCH_MS);
    lead.pass(BATCH_MS);
    lead.hear_all();
    assert_eq!(lead.look(), 0);
}

#[test]
fn planned_moves_wait_for_a_session_that_was_refused_twice_but_not_for_ever() {
    let mut lead = Lead::new(2);
    lead.look();
    let item = lead.story.protect("web", None);
    let job = lead.story.queues(item, MAIN);
    let (epoch, session) = lead.story.leases(job, lead.story.worker);
    let worker = lead.workers[0];
    lead.story.does(Command::Drain { worker, drained: true });
    lead.moves.refused(session);
    assert_eq!(lead.look(), BATCH_SLOTS, "once is bad luck");
    lead.moves.refused(session);
    lead.pass(BATCH_MS);
    lead.hear_all();
    assert_eq!(lead.look(), 0);
    // Whoever dies meanwhile is not waited for: nobody answers for those.
    lead.restart(1, 9, Some(LIFE));
    lead.hear_all();
    assert_eq!(lead.look(), 2048 + BATCH_SLOTS);
    lead.pass(WAIT_MS - 1);
    lead.hear_all();
    assert_eq!(lead.look(), 0);
    lead.pass(1);
    assert_eq!(lead.look(), BATCH_SLOTS, "a batch goes, whoever waits");
    lead.pass(BATCH_MS);
    lead.hear_all();
    assert_eq!(lead.look(), 0, "and the next one waits again");
    // It ends, and nothing is waited for any more.
    let command = Command::ExpireLease {
        job,
        epoch,
        retry_at: None,
    };
    lead.story.acts(Actor::Cluster, command).accepted().unwrap();
    assert_eq!(lead.look(), BATCH_SLOTS);
}

#[test]
fn a_look_at_a_thousand_workers_walks_slots_and_workers_once() {
    let mut lead = Lead::new(1000);
    assert_eq!(lead.look(), 4096);
    let (granted, looks) = crate::state::table::looks::during(|| lead.look());
    assert_eq!(granted, 0);
    // Each worker's row and life a few times, and no slot by its key.
    assert!(looks <= 5 * 1000, "{looks} looks");
}

#[test]
fn a_slot_that_lacks_entries_goes_back_to_its_owner_to_begin_afresh() {
    let lacking = Owned {
        worker: WorkerId(1),
        is_live: false,
    };
    let whole = Owned {
        is_live: true,
        ..lacking
    };
    let server = Server {
        stand: Stand::Here,
        drained: false,
    };
    let servers = BTreeMap::from([(WorkerId(1), server)]);
    let plan = plan(2, &BTreeMap::from([(0, whole), (1, lacking)]), &servers);
    assert_eq!(plan.at_once, [(1, WorkerId(1))]);
    assert!(plan.moves.is_empty());
}

//! The choice is the one of a look at all jobs, and looks at few of them.

use std::cmp::Reverse;

use tresor_proto::ids::{ItemId, PolicyId, VaultId};

use super::*;
use crate::seeded::{Random, for_seeds};
use crate::state::command::{Command, Failure, ItemSpec, JobSpec, PolicySpec, WorkerFacts, WorkerSpec};
use crate::state::entry::Actor;
use crate::state::reply::Reply;
use crate::state::table::looks;
use crate::testing::{Acts, LIFE, MAIN, Story, item_spec};

const OTHER: VaultId = VaultId([0x22; 16]);
const HOSTS: [&str; 4] = ["", "w1", "w2", "rack-9"];

/// The job that comes first of all that wait, by looking at each.
fn choose_among_all(story: &Story, presence: &Presence, plans: &Plans, id: WorkerId) -> Option<JobId> {
    let (state, now) = (&story.state, story.now);
    let worker = state.workers().get(&id).filter(|worker| !worker.removed)?;
    if unfit_now(state, presence, id, worker, 0).is_some() {
        return None;
    }
    let running = |like: &dyn Fn(&Job) -> bool| {
        let leases = state.leases().filter_map(|id| state.jobs().get(&id));
        leases.filter(|job| like(job)).count()
    };
    let may_have = |job_id: JobId, job: &Job| {
        unfit_for_work(state, worker, job).is_none()
            && window_is_open(state, plans, job, now)
            && !should_go_elsewhere(state, presence, id, job_id, job, now, 0)
    };
    let rank = |job_id: JobId| {
        let job = state.jobs().get(&job_id)?;
        let JobState::Queued { not_before } = job.state else {
            return None;
        };
        let in_vault = running(&|other| other.spec.vault == job.spec.vault);
        let under = running(&|other| policy_of(state, other) == policy_of(state, job));
        let waits = not_before > now || in_vault as u64 >= VAULT_JOBS_MAX || !may_have(job_id, job);
        (!waits).then_some((Reverse(job.spec.priority), in_vault, under, not_before, job_id))
    };
    state.open_jobs().filter_map(rank).min().map(|(.., job)| job)
}

fn policy(number: u8) -> PolicyId {
    PolicyId([number; 16])
}

/// A cluster with two vaults, three policies, one of which has its window closed, and three workers.
fn story() -> (Story, Presence, Plans, Vec<WorkerId>) {
    let mut story = Story::new();
    story.makes_vault(OTHER, "other", story.worker);
    for number in 0..3 {
        // The story begins on a Friday at noon.
        let windows = if number == 2 {
            vec![String::from("mon-fri 20:00-06:00")]
        } else {
            Vec::new()
        };
        story.does(Command::CreatePolicy {
            policy: policy(number),
            spec: PolicySpec {
                name: format!("policy-{number}"),
                schedule: String::from("daily 02:00"),
                zone: String::from("UTC"),
                windows,
                ..PolicySpec::default()
            },
        });
    }
    let mut workers = vec![story.worker];
    for (name, host, label, stores) in [("w2", "rack-9", "fast", ""), ("w3", "rack-9", "", "file:///srv/main")] {
        let worker = WorkerId(story.makes(Command::AddWorker(WorkerSpec {
            name: name.to_owned(),
            token: None,
        })));
        let labels = [(String::from("disk"), label.to_owned())]
            .into_iter()
            .filter(|_| !label.is_empty());
        story.does(Command::Register {
            worker,
            life: LIFE,
            facts: WorkerFacts {
                host: host.to_owned(),
                version: String::new(),
                labels: labels.collect(),
                permits: 6,
                stores: Some(stores)
                    .filter(|stores| !stores.is_empty())
                    .map(String::from)
                    .into_iter()
                    .collect(),
                ..WorkerFacts::default()
            },
            kept_life: None,
        });
        workers.push(worker);
    }
    let mut presence = Presence::default();
    for worker in &workers {
        presence.hear(*worker, LIFE, 0, 0);
    }
    let mut plans = Plans::default();
    plans.refresh(&story.state);
    (story, presence, plans, workers)
}

fn spec(random: &mut Random, name: &str, vault: VaultId) -> ItemSpec {
    let mut spec = item_spec(name, vault, None);
    spec.policy = (!random.one_in(4)).then(|| policy(random.below(3) as u8));
    spec.host = HOSTS[random.place(HOSTS.len())].to_owned();
    if random.one_in(4) {
        spec.worker_labels.insert(String::from("disk"), String::from("fast"));
    }
    spec
}

#[test]
fn the_choice_is_the_one_that_a_look_at_all_jobs_makes() {
    let mut chosen = 0;
    for_seeds(0..60, |seed| {
        let mut random = Random::seeded(seed);
        let (mut story, presence, plans, workers) = story();
        let mut items: Vec<(ItemId, VaultId, String)> = Vec::new();
        for step in 0..60 {
            let item = random.place(items.len().max(1));
            match random.below(8) {
                0 | 1 => {
                    let name = format!("vm-{step}");
                    let vault = if random.one_in(3) { OTHER } else { MAIN };
                    let id = crate::testing::item_id(&name, vault);
                    let spec = spec(&mut random, &name, vault);
                    story.does(Command::Protect {
                        item: id,
                        spec,
                        also: true,
                    });
                    items.push((id, vault, name));
                }
                2 | 3 if !items.is_empty() => {
                    let (item, vault, _) = items[item];
                    let now = story.now;
                    // Refused where one waits already.
                    story.acts(
                        Actor::Cluster,
                        Command::Enqueue(JobSpec {
                            vault,
                            work: Work::Backup { item, keep_until: None },
                            priority: random.below(2) as i32,
                            not_before: now.plus(random.below(4) as i64 * 1000 - 2000),
                            occurrence: random.one_in(2).then(|| now.plus(step)),
                        }),
                    );
                }
                4 if !items.is_empty() => {
                    let (item, vault, name) = items[item].clone();
                    let spec = spec(&mut random, &name, vault);
                    story.acts(Actor::Cluster, Command::UpdateItem { item, version: 0, spec });
                }
                5 if !items.is_empty() => {
                    // Unprotected while its job runs, it may be protected again with other needs.
                    let (item, vault, name) = items[item].clone();
                    story.acts(Actor::Cluster, Command::Unprotect { item });
                    let spec = spec(&mut random, &name, vault);
                    story.acts(Actor::Cluster, Command::Protect { item, spec, also: true });
                }
                6 => {
                    let leases: Vec<JobId> = story.state.leases().collect();
                    if let Some(job) = leases.get(random.place(leases.len().max(1))) {
                        let attempt = story.state.jobs().get(job).and_then(Job::running).unwrap();
                        let failure = Failure {
                            kind: if random.one_in(2) {
                                FailureKind::Lost
                            } else {
                                FailureKind::Retry
                            },
                            message: String::new(),
                            hint: String::new(),
                        };
                        let retry_at = Some(story.now);
                        let epoch = attempt.epoch;
                        story.does(Command::Fail {
                            job: *job,
                            epoch,
                            failure,
                            retry_at,
                        });
                    }
                }
                _ => story.advance(random.below(3) as i64 * 1000),
            }
            for worker in &workers {
                let found = choose(&story.state, &presence, &plans, *worker, story.now, 0);
                assert_eq!(
                    found,
                    choose_among_all(&story, &presence, &plans, *worker),
                    "step {step}"
                );
                if let Some(job) = found.filter(|_| random.one_in(6)) {
                    story.leases(job, *worker);
                    chosen += 1;
                }
            }
        }
    });
    assert!(chosen > 0, "nothing was ever chosen");
}

#[test]
fn a_choice_among_many_jobs_looks_at_few() {
    let looks_at = |jobs: u64| {
        let (mut story, presence, plans, workers) = story();
        for number in 0..jobs {
            let name = format!("vm-{number}");
            let mut spec = item_spec(&name, MAIN, Some(policy(number as u8 % 2)));
            // Half of them are for another worker than the one that asks.
            spec.host = if number % 2 == 0 {
                String::new()
            } else {
                String::from("w2")
            };
            let item = crate::testing::item_id(&name, MAIN);
            let reply = story.does(Command::Protect {
                item,
                spec,
                also: false,
            });
            assert_eq!(reply, Reply::Item(item));
            story.queues(item, MAIN);
        }
        let (job, looks) = looks::during(|| choose(&story.state, &presence, &plans, workers[0], story.now, 0));
        assert!(job.is_some());
        looks
    };
    let (few, many) = (looks_at(20), looks_at(400));
    assert_eq!(few, many);
    assert!(few <= 20, "{few} rows were looked up");
}

#[test]
fn a_limit_of_jobs_at_a_time_keeps_further_ones_waiting_and_says_so() {
    use crate::state::limits::{LimitRates, LimitRule, LimitSubject};

    let (mut story, presence, mut plans, workers) = story();
    let items = ["web", "db"].map(|name| story.protects(name, MAIN, None));
    let jobs = items.map(|item| story.queues(item, MAIN));
    let url = story.state.vaults().get(&MAIN).unwrap().spec.url.clone();
    let row = story.state.workers().get(&workers[0]).unwrap().clone();
    let first = choose(&story.state, &presence, &plans, workers[0], story.now, 0).unwrap();
    story.leases(first, workers[0]);
    let other = if first == jobs[0] { jobs[1] } else { jobs[0] };
    for subject in [
        LimitSubject::Store(url),
        LimitSubject::Worker(workers[0]),
        LimitSubject::Host(row.facts.host),
    ] {
        for (max, is_free) in [(1, false), (2, true)] {
            let rates = LimitRates {
                concurrency: Some(max),
                ..LimitRates::default()
            };
            story.does(Command::SetLimit {
                subject: subject.clone(),
                rule: LimitRule {
                    rates,
                    ..LimitRule::default()
                },
            });
            plans.refresh(&story.state);
            let (id, worker) = (workers[0], story.state.workers().get(&workers[0]).unwrap());
            let job = story.state.jobs().get(&other).unwrap();
            let limited = limited(&story.state, &plans, id, worker, job, story.now);
            assert_eq!(limited.is_none(), is_free, "{subject}: {limited:?}");
            if let Some(limited) = limited {
                assert!(limited.to_string().contains(&subject.to_string()), "{limited}");
                assert_ne!(choose(&story.state, &presence, &plans, id, story.now, 0), Some(other));
            }
        }
        story.does(Command::RemoveLimit { subject, windows: None });
    }
}

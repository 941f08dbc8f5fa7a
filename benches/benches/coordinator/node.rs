//! A coordinator as a process of its own, told what to do line by line. It ends with its input: no process outlives the one that asks.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tresor_coordinator::node::Handle;
use tresor_coordinator::process::{self, Bound, Folder, ServeSettings};
use tresor_coordinator::security::TokenHash;
use tresor_coordinator::state::command::{Command, JoinTokenSpec};
use tresor_coordinator::state::entry::{Actor, Time};
use tresor_proto::token::JoinToken;

use crate::load;

/// Serves the coordinator of a folder; answers each line with one of JSON, the first when it listens.
pub(crate) fn run(folder: &Path, address: &str) {
    let begin = Instant::now();
    let runtime = Runtime::new().expect("threads can be started");
    let (ready_in, ready) = tokio::sync::oneshot::channel();
    let settings = ServeSettings {
        listen: Some(address.to_owned()),
        http: None,
        zone: String::from("UTC"),
        item_metrics: false,
    };
    let folder = Folder::new(folder);
    let stop = CancellationToken::new();
    let until = stop.clone();
    let serving = runtime.spawn(async move {
        let ready = move |_: &Bound, handle: &Handle| {
            // Who started this waits for it.
            let _ = ready_in.send(handle.clone());
        };
        Box::pin(process::serve(&folder, settings, None, ready, until))
            .await
            .expect("the coordinator serves until it is stopped");
    });
    let handle = runtime.block_on(ready).expect("the coordinator starts");
    say(&json!({ "ready_ms": begin.elapsed().as_secs_f64() * 1e3 }));
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split(' ').collect();
        say(&runtime.block_on(does(&handle, &words)));
    }
    stop.cancel();
    runtime.block_on(serving).expect("the coordinator stops");
}

fn say(answer: &Value) {
    println!("{answer}");
    std::io::stdout().flush().expect("who started this reads");
}

async fn does(handle: &Handle, words: &[&str]) -> Value {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match words {
        ["token", authority] => token(handle, authority).await,
        ["standing"] => standing(handle).await,
        ["events", clients, count] => load::events(handle, number(clients), number(count)).await.to_json(),
        ["adopt", points, items] => {
            load::adopt(handle, number(points), number(items)).await;
            json!({})
        }
        ["first-commit", after] => first_commit(handle, number(after)).await,
        ["caught-up", index] => caught_up(handle, number(index)).await,
        other => panic!("nobody asks {other:?}"),
    }
}

/// A token with which a coordinator joins.
async fn token(handle: &Handle, authority: &str) -> Value {
    let token = JoinToken::random(authority.parse().expect("a fingerprint")).expect("random numbers can be had");
    let spec = JoinTokenSpec {
        token: token.id,
        role: String::from("coordinator"),
        hash: TokenHash::of(token.id, &token.secret).to_bytes(),
        expires: Time(i64::MAX),
        uses: 1,
    };
    let made = handle
        .change(Actor::Cluster, None, Command::CreateJoinToken(spec))
        .await;
    made.expect("a leader takes it");
    json!({ "token": token.reveal().as_str() })
}

async fn standing(handle: &Handle) -> Value {
    let lead = *handle.leadership().borrow();
    let standing = handle.standing().await.expect("the node runs");
    let voters = standing.members.iter().filter(|member| member.votes).count();
    json!({
        "leads": lead.is_me,
        "leader": lead.leader.map(|leader| leader.0),
        "applied": standing.applied,
        "first": standing.first,
        "voters": voters,
        "points": handle.read(|state| state.points().len()),
    })
}

/// Tries to commit until this member does, or follows another leader than `before`.
async fn first_commit(handle: &Handle, before: u64) -> Value {
    loop {
        let note = Command::Note {
            action: String::from("asked"),
            object: String::from("who leads"),
        };
        if handle.change(Actor::Cluster, None, note).await.is_ok() {
            return json!({ "leads": true });
        }
        let leader = handle.leadership().borrow().leader;
        if leader.is_some_and(|leader| leader.0 != before && leader != handle.me()) {
            return json!({ "leads": false });
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until an entry is applied.
async fn caught_up(handle: &Handle, index: u64) -> Value {
    let mut applied = handle.applied();
    applied
        .wait_for(|applied| *applied >= index)
        .await
        .expect("the node runs");
    json!({})
}

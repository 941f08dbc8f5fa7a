use super::*;
use crate::state::command::Command;
use tresor_proto::ids::PolicyId;

fn spec(name: &str) -> v1::PolicySpec {
    v1::PolicySpec {
        name: name.to_owned(),
        schedule: String::from("daily 2:00"),
        retention: String::from("daily 7, last 3"),
        jitter: String::from("1h"),
        late_after: String::from("26h"),
        ..v1::PolicySpec::default()
    }
}

fn create(number: u8, spec: v1::PolicySpec) -> v1::CreatePolicyRequest {
    v1::CreatePolicyRequest {
        idempotency_key: key(number),
        spec: Some(spec),
    }
}

fn named(name: &str) -> v1::GetPolicyRequest {
    v1::GetPolicyRequest { name: name.to_owned() }
}

#[tokio::test]
async fn a_policy_is_made_once_and_says_what_it_does() {
    let cluster = Cluster::start();
    let made = call!(cluster, create_policy, create(1, spec("gold"))).unwrap();
    let kept = made.spec.clone().unwrap();
    assert_eq!(
        (kept.schedule.as_str(), kept.zone.as_str()),
        ("daily 02:00", "Europe/Berlin")
    );
    assert_eq!(kept.retention, "last 3, daily 7");
    assert_eq!(made.words.len(), 3);
    assert_eq!(call!(cluster, create_policy, create(1, spec("gold"))).unwrap(), made);
    assert_eq!(call!(cluster, get_policy, named("gold")).unwrap(), made);
    assert_eq!(call!(cluster, get_policy, named(&made.id)).unwrap(), made);
    refused(call!(cluster, create_policy, create(2, spec("gold"))), "fenced");
    refused(call!(cluster, get_policy, named("silver")), "missing");
    let mut wrong = spec("silver");
    wrong.schedule = String::from("at night");
    refused_for(call!(cluster, create_policy, create(3, wrong)), "spec.schedule");
    refused_for(call!(cluster, create_policy, create(3, spec("1"))), "name");
    let nothing = v1::CreatePolicyRequest {
        idempotency_key: key(4),
        spec: None,
    };
    refused_for(call!(cluster, create_policy, nothing), "spec");
}

#[tokio::test]
async fn a_policy_is_changed_by_who_has_seen_it() {
    let cluster = Cluster::start();
    let made = call!(cluster, create_policy, create(1, spec("gold"))).unwrap();
    let update = |number, version, name: &str| v1::UpdatePolicyRequest {
        idempotency_key: key(number),
        name: String::from("gold"),
        version,
        spec: Some(spec(name)),
    };
    let renamed = call!(cluster, update_policy, update(2, made.version, "platinum")).unwrap();
    assert_eq!(renamed.spec.as_ref().unwrap().name, "platinum");
    assert_eq!((&renamed.id, renamed.version > made.version), (&made.id, true));
    // Its old name means nothing any more, and yet the answer is the same.
    assert_eq!(
        call!(cluster, update_policy, update(2, made.version, "platinum")).unwrap(),
        renamed
    );
    refused(call!(cluster, update_policy, update(3, 0, "platinum")), "missing");
    let stale = v1::UpdatePolicyRequest {
        name: String::from("platinum"),
        ..update(4, made.version, "platinum")
    };
    assert!(
        refused(call!(cluster, update_policy, stale), "fenced")
            .message()
            .contains("changed meanwhile")
    );
}

#[tokio::test]
async fn a_policy_that_items_have_stays() {
    let mut cluster = Cluster::start();
    let made = call!(cluster, create_policy, create(1, spec("gold"))).unwrap();
    let id: PolicyId = made.id.parse().unwrap();
    let web = cluster.node.protects("web", MAIN, Some(id));
    assert_eq!(call!(cluster, get_policy, named("gold")).unwrap().items, 1);
    let remove = |number| v1::RemovePolicyRequest {
        idempotency_key: key(number),
        name: String::from("gold"),
    };
    refused(call!(cluster, remove_policy, remove(2)), "fenced");
    cluster.node.does(Command::Unprotect { item: web });
    call!(cluster, remove_policy, remove(3)).unwrap();
    call!(cluster, remove_policy, remove(3)).unwrap();
    refused(call!(cluster, remove_policy, remove(4)), "missing");
}

#[tokio::test]
async fn policies_come_by_name_in_pages() {
    let cluster = Cluster::start();
    for (n, name) in ["cc", "aa", "bb"].into_iter().enumerate() {
        call!(cluster, create_policy, create(n as u8, spec(name))).unwrap();
    }
    let list = |page_token: String| v1::ListPoliciesRequest {
        page_size: 2,
        page_token,
    };
    let first = call!(cluster, list_policies, list(String::new())).unwrap();
    let second = call!(cluster, list_policies, list(first.next_page_token.clone())).unwrap();
    let names: Vec<String> = first
        .policies
        .iter()
        .chain(&second.policies)
        .map(|policy| policy.spec.clone().unwrap().name)
        .collect();
    assert_eq!(names, ["aa", "bb", "cc"]);
    // The token of one list is none of another.
    let vaults = v1::ListVaultsRequest {
        page_size: 2,
        page_token: first.next_page_token,
    };
    refused_for(call!(cluster, list_vaults, vaults), "page_token");
}

#[tokio::test]
async fn a_policy_is_previewed_before_it_does_anything() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    for _ in 0..6 {
        cluster.node.advance(24 * 3_600_000);
        cluster.node.makes_point(web, MAIN, cluster.worker);
    }
    let mut asked = spec("new");
    asked.retention = String::from("last 2");
    asked.zone = String::from("UTC");
    let preview = v1::PreviewPolicyRequest {
        name: String::new(),
        spec: Some(asked),
        item: String::from("web"),
        runs: 3,
    };
    let shown = call!(cluster, preview_policy, preview).unwrap();
    assert_eq!(
        shown.runs,
        ["2026-11-27T02:00:00Z", "2026-11-28T02:00:00Z", "2026-11-29T02:00:00Z"]
    );
    assert_eq!(shown.points.len(), 6);
    assert_eq!(shown.points.iter().filter(|point| point.stays).count(), 2);
    assert_eq!(
        (shown.points[0].because.as_slice(), shown.points_held),
        (["last 1 of 2".to_owned()].as_slice(), 2)
    );
    assert!(shown.words.last().unwrap().contains("at most 2 points"));
    assert_eq!(cluster.node.read(|state| state.policies().len()), 0, "nothing was made");
}

#[tokio::test]
async fn the_built_in_policy_can_be_looked_at_and_made() {
    let cluster = Cluster::start();
    let preview = |name: &str| v1::PreviewPolicyRequest {
        name: name.to_owned(),
        ..v1::PreviewPolicyRequest::default()
    };
    let shown = call!(cluster, preview_policy, preview("daily")).unwrap();
    assert_eq!(shown.runs.len(), 5);
    assert!(shown.words[0].contains("02:00 Europe/Berlin"), "{:?}", shown.words);
    refused(call!(cluster, preview_policy, preview("nightly")), "missing");
    refused_for(call!(cluster, preview_policy, preview("")), "name");
    let made = call!(
        cluster,
        create_policy,
        create(
            1,
            v1::PolicySpec {
                name: String::from("daily"),
                ..v1::PolicySpec::default()
            }
        )
    );
    assert_eq!(made.unwrap().spec.unwrap().late_after, "26h");
    assert_eq!(call!(cluster, preview_policy, preview("daily")).unwrap(), shown);
}

//! Limits by their names, and what they come to.

use super::*;

fn of_store(name: &str) -> v1::LimitSubject {
    v1::LimitSubject {
        store: name.to_owned(),
        ..v1::LimitSubject::default()
    }
}

fn rule(windows: &[&str], upload: u64) -> v1::LimitRule {
    v1::LimitRule {
        windows: windows.iter().map(|window| (*window).to_owned()).collect(),
        upload: Some(upload),
        ..v1::LimitRule::default()
    }
}

fn set(number: u8, subject: v1::LimitSubject, rule: v1::LimitRule) -> v1::SetLimitRequest {
    v1::SetLimitRequest {
        idempotency_key: key(number),
        subject: Some(subject),
        rule: Some(rule),
    }
}

fn remove(number: u8, subject: v1::LimitSubject) -> v1::RemoveLimitRequest {
    v1::RemoveLimitRequest {
        idempotency_key: key(number),
        subject: Some(subject),
        ..v1::RemoveLimitRequest::default()
    }
}

#[tokio::test]
async fn a_limit_is_of_the_store_of_a_vault_and_has_rules_by_hours() {
    let cluster = Cluster::start();
    let made = call!(cluster, set_limit, set(1, of_store("main"), rule(&[], 9000))).unwrap();
    let url = made.subject.clone().unwrap().store;
    assert!(url.contains("://"), "{url}");
    assert_eq!(made.now.unwrap().upload, Some(9000));
    let by_hours = rule(&["MON-sun 0:00-24:00"], 5000);
    let made = call!(cluster, set_limit, set(2, of_store(&format!("{url}/")), by_hours)).unwrap();
    assert_eq!(made.rules.len(), 2, "a URL and the vault's name mean the same");
    assert_eq!(made.rules[1].windows, ["mon-sun 00:00-24:00"]);
    assert_eq!(made.rules[1].zone, "Europe/Berlin");
    assert_eq!(made.now.as_ref().unwrap().upload, Some(5000));
    let listed = call!(cluster, list_limits, v1::ListLimitsRequest {}).unwrap();
    assert_eq!(listed.limits, [made]);
    let mut only = remove(3, of_store("main"));
    only.windows = vec![String::from("mon-sun 00:00-24:00")];
    call!(cluster, remove_limit, only).unwrap();
    call!(cluster, remove_limit, remove(4, of_store("main"))).unwrap();
    call!(cluster, remove_limit, remove(4, of_store("main"))).unwrap();
    refused(call!(cluster, remove_limit, remove(5, of_store("main"))), "missing");
    let listed = call!(cluster, list_limits, v1::ListLimitsRequest {}).unwrap();
    assert_eq!(listed.limits, []);
}

#[tokio::test]
async fn what_is_wrong_with_a_limit_is_named() {
    let cluster = Cluster::start();
    let ok = || rule(&[], 9000);
    refused(call!(cluster, set_limit, set(1, of_store("nowhere"), ok())), "missing");
    refused_for(
        call!(cluster, set_limit, set(1, v1::LimitSubject::default(), ok())),
        "subject",
    );
    let mut two = of_store("main");
    two.host = String::from("hv1");
    refused_for(call!(cluster, set_limit, set(1, two, ok())), "subject");
    refused_for(
        call!(cluster, set_limit, set(1, of_store("main"), rule(&[], 10))),
        "upload",
    );
    let nothing = v1::LimitRule::default();
    refused_for(call!(cluster, set_limit, set(1, of_store("main"), nothing)), "rates");
    let never = rule(&["sometimes"], 9000);
    refused_for(
        call!(cluster, set_limit, set(1, of_store("main"), never)),
        "rule.windows",
    );
    let mut lost = rule(&["mon 01:00-02:00"], 9000);
    lost.zone = String::from("Atlantis");
    refused_for(call!(cluster, set_limit, set(1, of_store("main"), lost)), "rule.zone");
    let mut idle = ok();
    idle.zone = String::from("UTC");
    refused_for(call!(cluster, set_limit, set(1, of_store("main"), idle)), "rule.zone");
    let job = v1::LimitSubject {
        job: 99,
        ..v1::LimitSubject::default()
    };
    refused(call!(cluster, set_limit, set(1, job, ok())), "missing");
}

//! Which of them is meant: this home, or a cluster.

use tresor_proto::v1::*;

use super::common::{self, Ran, Site};
use super::here::Here;

#[test]
fn without_a_cluster_its_verbs_say_so_and_touch_no_home() {
    let site = Site::new();
    for args in [
        &["job", "list"][..],
        &["item", "list"],
        &["policy", "list"],
        &["worker", "list"],
        &["coordinator", "list"],
        &["audit", "verify"],
        &["explain", "item", "web"],
        &["cluster", "status"],
        &["point", "hold", "web", "--reason", "x"],
        &["backup", "x.img", "--detach"],
        &["restore", "web", "--to", "x", "--worker", "kvm-7"],
        &["vault", "verify", "--detach"],
    ] {
        let ran = site.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, 2, "{ran}");
        assert!(ran.stderr.contains("needs a cluster"), "{ran}");
    }
    assert!(!site.path("home").exists());
}

#[test]
fn what_a_cluster_cannot_do_is_refused_and_not_left_out() {
    let here = Here::new();
    for args in [
        &["vault", "rebuild"][..],
        &["vault", "recovery-kit"],
        &["vault", "key", "list"],
        &["vault", "verify", "--pack", "x"],
        &["vault", "remove", "main", "--delete-data"],
        &["vault", "create", "v2", "--passphrase", "--store", "s3://b/x"],
        &["point", "diff", "a", "b"],
        &["restore", "web", "--to", "kvm-7:/x", "--dry-run"],
        &["restore", "web", "--to", "kvm-7:/x", "--allow-damage"],
        &["point", "list", "--store", "s3://b/x"],
    ] {
        let ran = here.run(args);
        assert_eq!(ran.code, 2, "{ran}");
        assert!(ran.stderr.contains("cluster"), "{ran}");
    }
}

#[test]
fn a_store_that_is_named_is_read_though_a_cluster_is_set() {
    let here = Here::new();
    let image = here.site.file("web.img", common::noise(1, 50_000));
    here.site.json(&["backup", &image]);
    let url = format!("file://{}", here.site.text("home/stores/main"));
    let key = common::files(&here.site.path("home/keys")).remove(0);
    let args = [
        "point",
        "list",
        "--json",
        "--store",
        &url,
        "--key-file",
        key.to_str().unwrap(),
    ];
    let mut command = here.site.command(&args);
    let ran = Ran::new(
        &args,
        command
            .env("TRESOR_CLUSTER", &here.coordinator.target)
            .output()
            .unwrap(),
    );
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(ran.value()["points"].as_array().unwrap().len(), 1);

    here.on::<ListPointsRequest, _>(ListPointsResponse::default());
    let mut command = here.site.command(&["point", "list", "--json"]);
    let ran = Ran::new(
        &[],
        command
            .env("TRESOR_CLUSTER", &here.coordinator.target)
            .output()
            .unwrap(),
    );
    assert_eq!(
        ran.value()["points"].as_array().unwrap().len(),
        0,
        "the variable chooses the cluster: {ran}"
    );
    let ran = here.run(&["--cluster", "", "point", "list", "--json"]);
    assert_eq!(ran.code, 2, "an option is given once: {ran}");
    let mut command = here.site.command(&["--cluster", "", "point", "list", "--json"]);
    let ran = Ran::new(
        &[],
        command
            .env("TRESOR_CLUSTER", &here.coordinator.target)
            .output()
            .unwrap(),
    );
    assert_eq!(
        ran.value()["points"].as_array().unwrap().len(),
        1,
        "the empty option chooses the home: {ran}"
    );
}

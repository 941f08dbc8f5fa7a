//! A login: who is believed, what is kept, what is sent to whom.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use tresor_coordinator::security::Authority;
use tresor_proto::tls::{PeerName, Role};
use tresor_proto::token::ApiToken;
use tresor_proto::v1::*;

use super::admin::{Coordinator, refused};
use super::common::{Ran, Site, files};

/// A cluster of coordinators with one authority, and a home.
struct Cluster {
    site: Site,
    authority: Authority,
    coordinators: Vec<Coordinator>,
    token: ApiToken,
}

fn authority(id: u8) -> Authority {
    Authority::create([id; 16], jiff::Timestamp::now().as_second()).unwrap()
}

fn coordinator(authority: &Authority, id: u64) -> Coordinator {
    let name = PeerName {
        cluster: authority.cluster(),
        role: Role::Coordinator,
        id,
    };
    let coordinator = Coordinator::with_identity(authority.identity(name, jiff::Timestamp::now().as_second()).unwrap());
    coordinator.script.answer::<WhoAmIRequest, _>(Ok(WhoAmIResponse {
        name: String::from("alice"),
        role: String::from("operator"),
        cluster: String::from("ab"),
        cluster_name: String::from("prod"),
        ..Default::default()
    }));
    coordinator
}

impl Cluster {
    fn new(members: u64) -> Self {
        let authority = authority(0xab);
        Self {
            site: Site::new(),
            coordinators: (1..=members).map(|id| coordinator(&authority, id)).collect(),
            authority,
            token: ApiToken::random().unwrap(),
        }
    }

    fn addresses(&self) -> String {
        let addresses: Vec<&str> = self.coordinators.iter().map(|c| c.target.as_str()).collect();
        addresses.join(",")
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.site.command(args);
        let ran = Ran::new(args, command.env("TRESOR_CLUSTER_PATIENCE", "4s").output().unwrap());
        let secret = self.token.reveal();
        let secret = secret.rsplit('_').nth(1).unwrap();
        assert!(
            !ran.stdout.contains(secret) && !ran.stderr.contains(secret),
            "the token is shown: {ran}"
        );
        ran
    }

    fn login(&self, fingerprint: &str) -> Ran {
        let file = self.site.file("token", format!("{}\n", self.token.reveal().as_str()));
        let addresses = self.addresses();
        self.run(&[
            "login",
            &addresses,
            "--ca-fingerprint",
            fingerprint,
            "--token-file",
            &file,
            "--json",
            "-vvv",
        ])
    }

    fn logged_in(members: u64) -> Self {
        let cluster = Self::new(members);
        let ran = cluster.login(&cluster.authority.fingerprint().to_string());
        assert_eq!(ran.code, 0, "{ran}");
        cluster
    }
}

#[test]
fn a_login_keeps_what_is_needed_for_its_owner_alone_and_every_request_shows_the_token() {
    let cluster = Cluster::new(1);
    let ran = cluster.login(&cluster.authority.fingerprint().to_string());
    assert_eq!(ran.code, 0, "{ran}");
    let shown = ran.value();
    assert_eq!(
        (&shown["cluster"], &shown["name"], &shown["role"]),
        (&json!("prod"), &json!("alice"), &json!("operator"))
    );
    let folder = cluster.site.path("home/clusters/prod");
    let names: Vec<String> = files(&folder)
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["ca.crt", "cluster.toml", "token"]);
    for file in files(&folder) {
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o077,
            0,
            "{}",
            file.display()
        );
    }

    let script = &cluster.coordinators[0].script;
    script.answer::<ListJobsRequest, _>(Ok(ListJobsResponse::default()));
    for target in ["prod", &cluster.addresses()] {
        let ran = cluster.run(&["--cluster", target, "job", "list", "-vvv", "--log-format", "json"]);
        assert_eq!(ran.code, 0, "{ran}");
    }
    let asked = script.asked::<ListJobsRequest>();
    assert_eq!(asked.len(), 2);
    for (metadata, _) in &asked {
        let header = metadata.get("authorization").unwrap().to_str().unwrap();
        assert_eq!(header, format!("Bearer {}", cluster.token.reveal().as_str()));
    }

    let ran = cluster.run(&["config", "show", "--json"]);
    assert_eq!(
        ran.value()["logins"][0]["addresses"],
        json!(cluster.addresses()),
        "{ran}"
    );

    let ran = cluster.run(&["logout", "--json"]);
    assert_eq!(ran.value()["cluster"], "prod", "{ran}");
    assert!(!folder.exists());
    assert_eq!(cluster.run(&["--cluster", "prod", "job", "list"]).code, 5);
    assert_eq!(cluster.run(&["logout", "prod"]).code, 5);
}

#[test]
fn a_wrong_fingerprint_is_refused_before_anything_secret_is_sent() {
    let cluster = Cluster::new(1);
    let ran = cluster.login(&authority(0xab).fingerprint().to_string());
    assert_eq!(ran.code, 5, "{ran}");
    assert!(ran.stderr.contains("could not trust"), "{ran}");
    assert!(cluster.coordinators[0].script.asked::<WhoAmIRequest>().is_empty());
    assert!(!cluster.site.path("home/clusters").exists());
}

#[test]
fn a_token_that_the_cluster_refuses_is_not_kept() {
    let cluster = Cluster::new(1);
    let other = Cluster::new(0);
    // Its own coordinator, with answers of its own.
    let name = PeerName {
        cluster: cluster.authority.cluster(),
        role: Role::Coordinator,
        id: 2,
    };
    let identity = cluster
        .authority
        .identity(name, jiff::Timestamp::now().as_second())
        .unwrap();
    let strict = Coordinator::with_identity(identity);
    strict
        .script
        .answer::<WhoAmIRequest, WhoAmIResponse>(Err(refused("denied", "", "nobody knows this token")));
    let file = other.site.file("token", cluster.token.reveal().as_str());
    let fingerprint = cluster.authority.fingerprint().to_string();
    let ran = other.run(&[
        "login",
        &strict.target,
        "--ca-fingerprint",
        &fingerprint,
        "--token-file",
        &file,
    ]);
    assert_eq!(ran.code, 5, "{ran}");
    assert!(ran.stderr.contains("nobody knows this token"), "{ran}");
    assert!(!other.site.path("home/clusters").exists());

    let file = other.site.file("token", "tresor_api_hunter2");
    let ran = other.run(&[
        "login",
        &strict.target,
        "--ca-fingerprint",
        &fingerprint,
        "--token-file",
        &file,
    ]);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(!ran.stderr.contains("hunter2"), "{ran}");
    let ran = other.run(&["login", &strict.target, "--ca-fingerprint", &fingerprint]);
    assert!(
        ran.code == 2 && ran.stderr.contains("TRESOR_TOKEN_FILE"),
        "nobody can be asked: {ran}"
    );
    assert_eq!(strict.script.asked::<WhoAmIRequest>().len(), 1);
}

#[test]
fn who_answers_with_another_authority_gets_no_request() {
    let cluster = Cluster::logged_in(1);
    let impostor = coordinator(&authority(0xab), 1);
    impostor
        .script
        .answer::<ListJobsRequest, _>(Ok(ListJobsResponse::default()));
    let file = cluster.site.path("home/clusters/prod/cluster.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&cluster.addresses(), &impostor.target)).unwrap();
    let ran = cluster.run(&["--cluster", "prod", "job", "list"]);
    assert_eq!(ran.code, 5, "{ran}");
    assert!(ran.stderr.contains("could not trust who answers"), "{ran}");
    assert!(impostor.script.asked::<ListJobsRequest>().is_empty());
}

#[test]
fn a_change_goes_to_the_leader_that_is_named_under_the_same_key() {
    let cluster = Cluster::logged_in(3);
    let leader = &cluster.coordinators[2];
    let info = ErrorInfo {
        kind: String::from("retry"),
        leader: leader.target.clone(),
        ..Default::default()
    };
    for follower in &cluster.coordinators[..2] {
        let not_me = info.clone().into_status("another coordinator leads");
        follower.script.answer::<RemovePolicyRequest, Empty>(Err(not_me));
    }
    leader.script.answer::<RemovePolicyRequest, _>(Ok(Empty {}));
    let ran = cluster.run(&["--cluster", "prod", "policy", "remove", "daily"]);
    assert_eq!(ran.code, 0, "{ran}");
    let asked: Vec<usize> = cluster
        .coordinators
        .iter()
        .map(|c| c.script.asked::<RemovePolicyRequest>().len())
        .collect();
    assert_eq!(asked, [1, 0, 1], "the second is not the leader, and was not asked");
    assert_eq!(
        cluster.coordinators[0].script.only::<RemovePolicyRequest>(),
        leader.script.only::<RemovePolicyRequest>()
    );
}

#[test]
fn a_coordinator_that_is_gone_is_passed_over() {
    let mut cluster = Cluster::logged_in(2);
    cluster.coordinators[1]
        .script
        .answer::<ListJobsRequest, _>(Ok(ListJobsResponse::default()));
    let gone = cluster.coordinators.remove(0);
    let target = format!("{},{}", gone.target, cluster.coordinators[0].target);
    drop(gone);
    let ran = cluster.run(&["--cluster", &target, "job", "list"]);
    assert_eq!(ran.code, 0, "{ran}");
}

#[test]
fn a_login_by_the_variable_gets_the_name_that_was_given() {
    let cluster = Cluster::new(1);
    let file = cluster.site.file("token", cluster.token.reveal().as_str());
    let (addresses, fingerprint) = (cluster.addresses(), cluster.authority.fingerprint().to_string());
    let args = [
        "login",
        &addresses,
        "--ca-fingerprint",
        &fingerprint,
        "--name",
        "site-a",
    ];
    let mut command = cluster.site.command(&args);
    let ran = Ran::new(&args, command.env("TRESOR_TOKEN_FILE", &file).output().unwrap());
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stdout.contains("--cluster site-a"), "{ran}");
    assert!(cluster.site.path("home/clusters/site-a/token").exists());
}

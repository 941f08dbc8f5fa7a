use super::*;
use crate::state::command::Command;
use tresor_proto::ids::PointId;

async fn get(cluster: &Cluster, name: &str) -> Result<v1::Point, Status> {
    let message = v1::GetPointRequest { name: name.to_owned() };
    call!(cluster, get_point, message)
}

/// A cluster whose item `web` has points, the oldest first, a day apart.
fn with_points(count: usize) -> (Cluster, Vec<PointId>) {
    let mut cluster = Cluster::start();
    let worker = cluster.worker;
    let web = cluster.node.protects("web", MAIN, None);
    let points = (0..count)
        .map(|_| {
            cluster.node.advance(24 * 3_600_000);
            cluster.node.makes_point(web, MAIN, worker)
        })
        .collect();
    (cluster, points)
}

#[tokio::test]
async fn a_point_is_found_by_what_people_write() {
    let (cluster, points) = with_points(3);
    let id = points[0].to_string();
    let shown = get(&cluster, &id).await.unwrap();
    assert_eq!((shown.item_name.as_str(), shown.vault.as_str()), ("web", "main"));
    assert_eq!(
        (shown.time.as_str(), shown.consistency.as_str()),
        ("2026-11-21T12:00:00Z", "crash")
    );
    assert_eq!(shown.manifest.as_ref(), [4; 32]);
    assert_eq!(get(&cluster, "web").await.unwrap().id, points[2].to_string());
    assert_eq!(get(&cluster, "web@2026-11-22").await.unwrap().id, points[1].to_string());
    assert_eq!(get(&cluster, &id[..8]).await.unwrap().id, id);
    refused(get(&cluster, "mail").await, "missing");
    refused_for(get(&cluster, "web@soon").await, "name");
}

#[tokio::test]
async fn removing_the_newest_point_twice_with_one_key_removes_one() {
    let (cluster, points) = with_points(3);
    let remove = |number, name: &str| v1::RemovePointRequest {
        idempotency_key: key(number),
        name: name.to_owned(),
    };
    let removed = call!(cluster, remove_point, remove(1, "web")).unwrap();
    assert_eq!(removed.id, points[2].to_string());
    assert_eq!(
        (removed.hidden_at.as_str(), removed.undo_until.as_str()),
        ("2026-11-23T12:00:00Z", "2026-11-30T12:00:00Z")
    );
    // By now the name means another point.
    assert_eq!(get(&cluster, "web").await.unwrap().id, points[1].to_string());
    assert_eq!(call!(cluster, remove_point, remove(1, "web")).unwrap(), removed);
    assert_eq!(get(&cluster, &points[1].to_string()).await.unwrap().hidden_at, "");

    let undelete = |number| v1::UndeletePointRequest {
        idempotency_key: key(number),
        name: points[2].to_string(),
    };
    assert_eq!(call!(cluster, undelete_point, undelete(2)).unwrap().hidden_at, "");
    assert_eq!(
        call!(cluster, undelete_point, undelete(2)).unwrap().id,
        points[2].to_string()
    );
    refused(call!(cluster, undelete_point, undelete(3)), "fenced");
}

#[tokio::test]
async fn a_held_point_is_not_removed_before_it_is_released() {
    let (mut cluster, points) = with_points(2);
    let hold = |number, reason: &str| v1::HoldPointRequest {
        idempotency_key: key(number),
        name: String::from("web"),
        reason: reason.to_owned(),
    };
    refused_for(call!(cluster, hold_point, hold(1, "")), "reason");
    let held = call!(cluster, hold_point, hold(2, "audit 2026")).unwrap();
    assert_eq!(
        (held.id.as_str(), held.held.as_str()),
        (points[1].to_string().as_str(), "audit 2026")
    );
    // Another point is the newest when the answer is asked for again.
    let web = cluster.node.read(|state| state.items_named("web").next().unwrap());
    cluster.node.advance(1000);
    cluster.node.makes_point(web, MAIN, cluster.worker);
    assert_eq!(call!(cluster, hold_point, hold(2, "audit 2026")).unwrap(), held);
    let remove = v1::RemovePointRequest {
        idempotency_key: key(3),
        name: held.id.clone(),
    };
    let status = refused(call!(cluster, remove_point, remove), "fenced");
    assert!(status.message().contains("is held (audit 2026): release it first"));
    let release = |number| v1::ReleasePointRequest {
        idempotency_key: key(number),
        name: held.id.clone(),
    };
    assert_eq!(call!(cluster, release_point, release(4)).unwrap().held, "");
    call!(cluster, release_point, release(4)).unwrap();
    refused(call!(cluster, release_point, release(5)), "fenced");
}

#[tokio::test]
async fn points_come_newest_first_and_removed_ones_when_asked_for() {
    let (mut cluster, points) = with_points(5);
    cluster.node.does(Command::HidePoints {
        points: vec![points[2]],
        by_retention: false,
    });
    let list = v1::ListPointsRequest {
        page_size: 2,
        item: String::from("web"),
        ..v1::ListPointsRequest::default()
    };
    let first = call!(cluster, list_points, list.clone()).unwrap();
    // A newer one does not move the pages.
    let web = cluster.node.read(|state| state.items_named("web").next().unwrap());
    cluster.node.advance(1000);
    cluster.node.makes_point(web, MAIN, cluster.worker);
    let mut shown: Vec<String> = first.points.into_iter().map(|point| point.id).collect();
    let next = v1::ListPointsRequest {
        page_token: first.next_page_token,
        ..list.clone()
    };
    let second = call!(cluster, list_points, next).unwrap();
    shown.extend(second.points.into_iter().map(|point| point.id));
    let ids = |which: &[usize]| which.iter().map(|at| points[*at].to_string()).collect::<Vec<_>>();
    assert_eq!(shown, ids(&[4, 3, 1, 0]));
    assert_eq!(second.next_page_token, "");
    let hidden = v1::ListPointsRequest {
        page_size: 100,
        hidden: true,
        ..list
    };
    assert_eq!(call!(cluster, list_points, hidden).unwrap().points.len(), 6);
}

#[tokio::test]
async fn points_of_all_items_come_by_item() {
    let (mut cluster, points) = with_points(2);
    let worker = cluster.worker;
    let second = tresor_proto::ids::VaultId([2; 16]);
    cluster.node.makes_vault(second, "second", worker);
    // Without points, before and between.
    cluster.node.protects("aaa", MAIN, None);
    cluster.node.protects("web-2", MAIN, None);
    let app = cluster.node.protects("app", second, None);
    let made = cluster.node.makes_point(app, second, worker);
    for page_size in 1..=4 {
        let mut shown = Vec::new();
        let mut list = v1::ListPointsRequest {
            page_size,
            ..v1::ListPointsRequest::default()
        };
        loop {
            let page = call!(cluster, list_points, list.clone()).unwrap();
            shown.extend(page.points.into_iter().map(|point| point.id));
            if page.next_page_token.is_empty() {
                break;
            }
            list.page_token = page.next_page_token;
        }
        assert_eq!(shown, [made.to_string(), points[1].to_string(), points[0].to_string()]);
    }
    let of_second = v1::ListPointsRequest {
        vault: String::from("second"),
        ..v1::ListPointsRequest::default()
    };
    let page = call!(cluster, list_points, of_second).unwrap();
    assert_eq!(page.points.len(), 1);
    assert_eq!(page.points[0].vault, "second");
    let unknown = v1::ListPointsRequest {
        item: String::from("mail"),
        ..v1::ListPointsRequest::default()
    };
    refused(call!(cluster, list_points, unknown), "missing");
}
